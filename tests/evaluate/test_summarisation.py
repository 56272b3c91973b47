from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from s3lora.evaluate import textscores
from s3lora.evaluate.chat import Decoding, Generation, Prompt
from s3lora.evaluate.references import Example, ReferenceSet, built_in_references, read_references
from s3lora.evaluate.results import SuiteOutcome
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suite import Suite
from s3lora.evaluate.summarisation import SummarisationSuite
from s3lora.needs import MissingPackageError
from tests.evaluate.test_judge import RuleModel
from tests.evaluate.test_losses import FixedModel, LossModel
from tests.support import shared

pytest.importorskip("rouge_score")
pytest.importorskip("nltk")

DATA = ReferenceSet(
    "three",
    (
        Example("a", Prompt.ask("p0"), ("the cat sat on the mat",)),
        Example("b", Prompt.ask("p1"), ("The Orrin.", "a river")),
        Example("c", Prompt.ask("p2"), ("été",)),
    ),
)
ANSWERS = {"p0": "the cat sat", "p1": "River", "p2": " "}
SCORES = ("rouge1", "rouge2", "rougeL", "meteor", "exact_match", "token_f1")


def answering() -> RuleModel:
    return RuleModel(ANSWERS.__getitem__)


def values(outcome: SuiteOutcome, name: str) -> list[float | None]:
    return list(outcome.columns[name].values)


def test_it_is_a_suite_and_says_what_it_is() -> None:
    suite: Suite = SummarisationSuite(built_in_references())
    info = suite.info
    assert info.name == "summarisation"
    [data] = info.data
    assert (data.n, data.built_in, data.sha256) == (24, True, built_in_references().sha256)
    assert "Apache-2.0" in data.note
    assert info.notes[0] == "built-in summaries: 24 built-in references are few: mind the intervals"
    assert [m.name for m in info.measures if m.role == "utility"] == ["rougeL"]
    assert {m.name: (m.kind, m.better) for m in info.measures} == {
        **dict.fromkeys(SCORES, ("mean", "higher")),
        "exact_match": ("rate", "higher"),
        "tokens": ("mean", "neither"),
        "loss": ("mean", "lower"),
    }
    assert re.search(r"rouge-score \d\S+ with Porter stems; METEOR of nltk \d", info.judge)


def test_scores_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3lora.evaluate.summarisation.meteor_kind", lambda: "exact+stem")
    outcome = SummarisationSuite(DATA).run(answering(), None)
    assert values(outcome, "rouge1") == pytest.approx([2 / 3, 2 / 3, 0])
    assert values(outcome, "rouge2") == pytest.approx([4 / 7, 0, 0])
    assert values(outcome, "rougeL") == pytest.approx([2 / 3, 2 / 3, 0])
    # P = 1 and R = 1/2. nltk pairs "the" with the second one of the reference: two chunks of three words.
    f = 0.5 / 0.95
    assert values(outcome, "meteor") == pytest.approx([f * (1 - 0.5 * (2 / 3) ** 3), f * 0.5, 0])
    assert values(outcome, "exact_match") == [0, 1, 0]
    # Without articles: "cat sat" of "cat sat on mat".
    assert values(outcome, "token_f1") == pytest.approx([2 / 3, 1, 0])
    assert values(outcome, "tokens") == [3, 1, 0]
    assert "loss" not in outcome.columns
    assert outcome.counts == {"empty": 1, "unfinished": 0}
    first = outcome.records[0]
    assert (first["id"], first["prompt"], first["tokens"], first["finished"]) == ("a", Prompt.ask("p0").digest, 3, True)
    assert first["rougeL"] == outcome.columns["rougeL"].values[0]
    assert "cat" not in json.dumps([dict(record) for record in outcome.records])


def test_perfect_answers() -> None:
    data = built_in_references()
    right = {example.prompt.messages[-1].content: example.references[0] for example in data.examples}
    outcome = SummarisationSuite(data).run(RuleModel(right.__getitem__), None)
    for name in SCORES:
        assert all(value is not None and value > 0.999 for value in values(outcome, name))
    assert SummarisationSuite(data).warnings(outcome) == ()


def test_an_empty_answer_is_worth_nothing() -> None:
    data = ReferenceSet("d", (Example("", Prompt.ask("p"), ("The.",)),))
    outcome = SummarisationSuite(data).run(RuleModel(lambda _: ""), None)
    assert [values(outcome, name) for name in SCORES] == [[0]] * 6


def test_the_loss_is_of_the_first_references() -> None:
    model = LossModel()
    outcome = SummarisationSuite(DATA).run(model, None)
    assert model.measured == [[example.references[0] for example in DATA.examples]]
    assert values(outcome, "loss") == pytest.approx([22 / 6, 10 / 2, 3 / 1])
    assert outcome.columns["loss"].weights == (6, 2, 1)
    assert outcome.counts["no_loss"] == 0
    assert set(outcome.columns) == {m.name for m in SummarisationSuite(DATA).info.measures}


class Cut(RuleModel):
    """A model that never ends by itself."""

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Generation]]:
        for i, answer in super().generate(prompts, decoding, batches):
            yield i, Generation(answer.text, decoding.max_new_tokens, False)


def test_what_a_reader_must_be_told() -> None:
    suite = SummarisationSuite(DATA)
    assert suite.warnings(suite.run(answering(), None)) == ("1 of 3 answers to three were empty; they score 0",)
    short = SummarisationSuite(DATA, Decoding(4))
    assert short.warnings(short.run(Cut(str), None)) == ("3 of 3 answers to three were cut off at 4 tokens",)
    broken = suite.run(FixedModel([(float("nan"), 2), (1.0, 2), (1.0, 2)]), None)
    assert values(broken, "loss") == [None, 0.5, 0.5]
    assert (
        suite.warnings(broken)[-1]
        == "1 of 3 references of three have no finite loss, or no room in the model's context, and are left out"
    )


def test_notes_on_references(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = SummarisationSuite(DATA).info.notes
    assert "three: 3 references are few: mind the intervals" in notes
    # "été" has a t.
    assert not any("ROUGE knows" in note for note in notes)
    assert any("the loss is of the first" in note for note in notes)
    one = Example("", Prompt.ask("p"), ("これ",))
    plain = Example("", Prompt.ask("p"), ("this",))
    notes = SummarisationSuite(ReferenceSet("l", (one, *[plain] * 99))).info.notes
    assert not any("few" in note or "first" in note for note in notes)
    assert "ROUGE knows the letters a to z and digits only: it is 0 for 1 of 100 references" in notes


@pytest.mark.parametrize(("kind", "word"), [("full", "synonyms of WordNet"), ("exact+stem", "exact + stem")])
def test_which_meteor_is_said(monkeypatch: pytest.MonkeyPatch, kind: str, word: str) -> None:
    monkeypatch.setattr("s3lora.evaluate.summarisation.meteor_kind", lambda: kind)
    info = SummarisationSuite(DATA).info
    assert word in info.judge
    assert [word in m.about for m in info.measures if m.name == "meteor"] == [True]
    assert any("no full METEOR" in note for note in info.notes) == (kind != "full")


def test_a_repeated_run_asks_nothing(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with AnswerStore(tmp_path / "s") as store:
        first = SummarisationSuite(DATA).run(LossModel(), store, lambda done, total: seen.append((done, total)))
        model = LossModel()
        assert SummarisationSuite(DATA).run(model, store) == first
        assert model.asked == model.measured == []
        SummarisationSuite(DATA, Decoding(5)).run(model, store)
        assert len(model.asked) == 3
        assert model.measured == []
    assert seen[0] == (0, 3)
    assert seen[-1] == (3, 3)
    assert SummarisationSuite(DATA).run(LossModel(), None) == first


def test_absent_packages_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textscores, "_scorer", textscores._scorer.__wrapped__)
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(MissingPackageError, match="pip install"):
        SummarisationSuite(DATA)


def test_on_published_dialogues() -> None:
    """People who sum up the same dialogue agree more with each other than with the dialogue's first words."""
    data = read_references(shared() / "data" / "dialogsum.test.jsonl").take(30, 1)
    first = {e.prompt.messages[-1].content: e.references[0] for e in data.examples}
    others = ReferenceSet("others", tuple(Example(e.id, e.prompt, e.references[1:]) for e in data.examples))
    suite = SummarisationSuite(others)

    def mean(model: RuleModel, name: str) -> float:
        found = [value for value in values(suite.run(model, None), name) if value is not None]
        return sum(found) / len(found)

    for name in ("rouge1", "rouge2", "rougeL", "meteor", "token_f1"):
        people = mean(RuleModel(first.__getitem__), name)
        lead = mean(RuleModel(lambda text: " ".join(text.split()[8:40])), name)
        assert 0.15 < people < 0.7
        assert lead < people
