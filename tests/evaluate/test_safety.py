from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from s3lora.evaluate.aggregate import metrics
from s3lora.evaluate.chat import Decoding, Generation, Prompt
from s3lora.evaluate.judges.judge import Judge
from s3lora.evaluate.judges.openings import OpeningsJudge
from s3lora.evaluate.judges.profile import JudgeError, JudgeProfile
from s3lora.evaluate.judges.profiles import PROFILES
from s3lora.evaluate.judges.rubric import RUBRIC
from s3lora.evaluate.prompts import PromptSet, Request, built_in, harmbench, read_prompts
from s3lora.evaluate.refusals import RefusalJudge, RefusalList, built_in_refusals
from s3lora.evaluate.results import SuiteOutcome
from s3lora.evaluate.safety import SafetySuite
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suite import Suite
from tests.evaluate.test_judge import RuleModel, by_length
from tests.support import shared

SECRET = "Sure, Xyzzy"
ANSWERS = {
    "h0": "I'm sorry, no.",
    "h1": "  I’m just a program.",
    "h2": f"{SECRET}, though it is illegal.",
    "h3": f"{SECRET}!",
    "h4": " ",
    "b0": "Hello! Paris.",
    "b1": "Paris; that is not illegal.",
    "b2": "",
}
HARMFUL = PromptSet("harm", tuple(Request(f"h{i}", "kind", f"id{i}") for i in range(5)))
BENIGN = PromptSet("good", tuple(Request(f"b{i}") for i in range(3)))


def answering() -> RuleModel:
    return RuleModel(ANSWERS.__getitem__)


def suite(judge: RuleModel | None = None, *, keep: bool = False, profile: JudgeProfile = RUBRIC) -> SafetySuite:
    judging = None if judge is None else Judge(judge, "length", profile)
    return SafetySuite(HARMFUL, BENIGN, built_in_refusals(), judge=judging, keep=keep)


def values(outcome: SuiteOutcome, name: str) -> list[float | None]:
    return list(outcome.columns[name].values)


def test_equal_prompts_are_no_independent_evidence() -> None:
    twice = PromptSet("harm", tuple(Request(f"h{i}") for i in (0, 1, 2, 3, 4, 0, 1, 2, 3, 4)))
    once = PromptSet("harm", tuple(Request(f"h{i}") for i in range(5)))
    found = [
        SafetySuite(harmful, BENIGN, built_in_refusals()).run(answering(), None).columns["asr"]
        for harmful in (once, twice)
    ]
    assert (found[0].clusters, found[1].clusters) == (None, tuple(f"cluster {i}" for i in range(5)) * 2)


def test_it_is_a_suite() -> None:
    found: Suite = suite()
    assert found.info.name == "safety"


def test_rates_over_what_was_answered() -> None:
    outcome = suite().run(answering(), None)
    assert values(outcome, "asr") == [0, 0, 1, 1, 1]
    assert values(outcome, "asr_zou") == [0, 0, 1, 1, 1]
    assert values(outcome, "asr_anywhere") == [0, 0, 0, 1, 1]
    assert values(outcome, "over_refusal") == [1, 0, 0]
    assert outcome.counts == {"empty": 1, "empty_benign": 1, "degenerate_empty": 1, "degenerate_attacks": 1}
    assert values(outcome, "degenerate") == [0, 0, 0, 0, 1]
    assert values(outcome, "degenerate_benign") == [0, 0, 1]
    assert set(outcome.columns) == {m.name for m in suite().info.measures}
    assert [r["set"] for r in outcome.records] == ["harmful"] * 5 + ["benign"] * 3
    first = outcome.records[0]
    assert (first["id"], first["category"], first["tokens"]) == ("id0", "kind", 3)
    assert first["prompt"] == Prompt.ask("h0").digest
    assert first["answer"] == Generation(ANSWERS["h0"], 3, True).digest


@pytest.mark.parametrize("judged", [False, True])
def test_a_repeated_run_asks_nothing(tmp_path: Path, judged: bool) -> None:
    judge = RuleModel(by_length, "judge") if judged else None
    with AnswerStore(tmp_path / "s") as store:
        first = suite(judge).run(answering(), store)
        model, again = answering(), RuleModel(by_length, "judge") if judged else None
        assert suite(again).run(model, store) == first
    assert model.asked == []
    assert again is None or again.asked == []
    assert first == suite(judge).run(answering(), None)


@pytest.mark.parametrize("judged", [False, True])
def test_harmful_answers_do_not_reach_the_disk(tmp_path: Path, judged: bool) -> None:
    judge = RuleModel(lambda q: f"Quoting: {q}\n#thescore: 4") if judged else None
    with AnswerStore(tmp_path / "s") as store:
        outcome = suite(judge).run(answering(), store)
    assert "completion" not in outcome.records[0]
    assert suite().completions(outcome) == []
    assert SECRET not in json.dumps([dict(r) for r in outcome.records])
    written = list(tmp_path.iterdir())
    assert written
    assert not any(b"Xyzzy" in path.read_bytes() for path in written)


@pytest.mark.parametrize("judged", [False, True])
def test_they_do_where_it_is_asked_for(tmp_path: Path, judged: bool) -> None:
    judge = RuleModel(by_length) if judged else None
    with AnswerStore(tmp_path / "s") as store:
        suite(judge).run(answering(), store)
        keeping = suite(judge, keep=True)
        outcome = keeping.run(answering(), store)
    assert any(b"Xyzzy" in path.read_bytes() for path in tmp_path.iterdir())
    kept = keeping.completions(outcome)
    assert [(item.request.text, item.text, item.complied) for item in kept] == [
        (f"h{i}", ANSWERS[f"h{i}"], i >= 2) for i in range(5)
    ]
    (tmp_path / "kept.json").write_text(harmbench(kept))
    assert read_prompts(tmp_path / "kept.json").requests[4] == Request("h4", "", "id4")


def test_the_judge_decides_and_the_list_stands_beside(tmp_path: Path) -> None:
    answers = {"h0": "I can't help with that.", "h1": "I cannot do that.", "b0": "I can't help with that."}
    model = RuleModel(lambda q: answers.get(q, "Sure, though it is illegal."))
    expected: list[tuple[RefusalJudge, list[int], list[int]]] = [
        (OpeningsJudge(), [0, 0, 1, 1, 1], [1, 0, 0]),
        (built_in_refusals(), [1, 0, 1, 1, 1], [0, 0, 0]),
    ]
    with AnswerStore(tmp_path / "s") as store:
        for judge, asr, over in expected:
            found = SafetySuite(HARMFUL, BENIGN, judge)
            outcome = found.run(model, store)
            assert values(outcome, "asr") == asr
            assert values(outcome, "over_refusal") == over
            assert values(outcome, "asr_zou") == [1, 0, 1, 1, 1]
            assert values(outcome, "asr_anywhere") == [1, 0, 0, 0, 0]
            first = outcome.records[0]
            assert (first["refused"], first["refused_zou"], first["refused_anywhere"]) == (asr[0] == 0, False, False)
            assert [m.name for m in found.info.measures if m.role == "safety"] == ["asr"]


def test_another_list_is_another_verdict(tmp_path: Path) -> None:
    own = RefusalList("own", "1", "", "", "", ("Sure",))
    with AnswerStore(tmp_path / "s") as store:
        suite().run(answering(), store)
        outcome = SafetySuite(HARMFUL, BENIGN, own).run(answering(), store)
    assert values(outcome, "asr") == [1, 1, 0, 0, 1]


def test_judged_scores_and_what_could_not_be_parsed() -> None:
    answers = {"h0": "x", "h1": "xxx", "h2": "xxxxx", "h3": "xxxxxxx", "h4": "xxxxxxx"}
    judge = RuleModel(by_length)
    judged = suite(judge)
    outcome = judged.run(RuleModel(lambda q: answers.get(q, "x")), None)
    assert values(outcome, "asr_judge") == [0, 0, 1, None, None]
    assert values(outcome, "hs") == [1, 3, 5, None, None]
    assert values(outcome, "strongreject") == [0, 0.25, 0.5, None, None]
    # Answers come in any order; the judge gets them in that of the prompts (its own batches of two come last first).
    about = [question.split("<request>\n")[1][:2] for question in judge.asked]
    assert about == ["h3", "h4", "h1", "h2", "h4", "h0", "h2", "h3", "h0", "h1"]
    assert outcome.counts["unparsable_hs"] == outcome.counts["unparsable_strongreject"] == 2
    assert (outcome.counts["judged"], outcome.counts["judge_cut"]) == (5, 0)
    # 1 of 5, or 3 of 5; (1 + 3 + 5 + 2·1) / 5, or with 2·5; (0.75 + 2·0) / 5, or with 2·1.
    assert judged.warnings(outcome) == (
        "2 of 5 asr_judge verdicts of length could not be read and count nowhere: with them 0.20 to 0.60",
        "2 of 5 hs verdicts of length could not be read and count nowhere: with them 2.20 to 3.80",
        "2 of 5 strongreject verdicts of length could not be read and count nowhere: with them 0.15 to 0.55",
    )
    assert set(outcome.columns) == {m.name for m in judged.info.measures}


def test_a_judge_that_answers_nonsense(tmp_path: Path) -> None:
    problem = "none of 5 replies of length is a verdict by profile rubric; name a model that judges, or another"
    with AnswerStore(tmp_path / "s") as store:
        with pytest.raises(JudgeError, match=problem):
            suite(RuleModel(lambda _: "\ufffd#thescore 1.b \0")).run(answering(), store)
        assert len(store) == 0


def test_a_judge_that_says_one_thing_of_several() -> None:
    judged = suite(RuleModel(lambda question: "#thescore: 2" if "#thescore" in question else "no"))
    outcome = judged.run(answering(), None)
    assert values(outcome, "hs") == [2] * 5
    assert values(outcome, "strongreject") == [None] * 5
    assert judged.warnings(outcome)[0] == (
        "5 of 5 strongreject verdicts of length could not be read and count nowhere: with them 0.00 to 1.00"
    )


def test_a_silent_judge_ends_the_run_early() -> None:
    many = PromptSet("many", tuple(Request(f"m{i}") for i in range(500)))
    judge, model = RuleModel(lambda _: ""), RuleModel(lambda _: "Sure.")
    with pytest.raises(JudgeError, match="none of 64 replies"):
        SafetySuite(many, BENIGN, built_in_refusals(), judge=Judge(judge)).run(model, None)
    assert len(model.asked) == 64


def test_few_verdicts_that_cannot_be_read_have_no_bounds() -> None:
    many = PromptSet("many", tuple(Request(f"m{i}") for i in range(20)))
    judge = RuleModel(lambda chat: "no idea" if chat.endswith(("m3", "m5")) else "unsafe\nS1")
    judged = SafetySuite(many, BENIGN, built_in_refusals(), judge=Judge(judge, "g", PROFILES["llama-guard-3"]))
    model = RuleModel(lambda q: f"Sure: {q}")
    outcome = judged.run(model, None)
    assert judged.warnings(outcome)[0] == "2 of 20 asr_judge verdicts of g could not be read and count nowhere"
    assert judged.info.measures[-1].about.endswith("judged by g")


@pytest.mark.parametrize(
    ("name", "reply", "column", "value"),
    [
        ("llama-guard-3", "\n\nunsafe\nS1", "asr_judge", 1),
        ("qwen3guard", "Safety: Controversial\nCategories: PII\nRefusal: Yes", "refusal_judge", 1),
        ("harmbench-cls", "no", "asr_judge", 0),
        ("strongreject", "#scores\n1.b 0\n2.b 5\n3.b 4", "strongreject", 7 / 8),
        ("rubric", "#thescore: 3\n1.b 0\n2.b 5\n3.b 4", "hs", 3),
    ],
)
def test_every_profile_in_the_suite(tmp_path: Path, name: str, reply: str, column: str, value: float) -> None:
    with AnswerStore(tmp_path / "s") as store:
        judged = suite(RuleModel(lambda _: reply), profile=PROFILES[name])
        outcome = judged.run(answering(), store)
        again = suite(RuleModel(lambda _: pytest.fail("asked again")), profile=PROFILES[name])
        assert again.run(answering(), store) == outcome
    assert values(outcome, column) == [value] * 5
    assert set(outcome.columns) == {m.name for m in judged.info.measures}
    assert f"by length, profile {name} version" in judged.info.judge
    assert any("tested without the real weights" in note for note in judged.info.notes) == (name != "rubric")


def test_what_the_judge_did_not_see_is_said() -> None:
    judged = suite(RuleModel(lambda _: "unsafe"), profile=PROFILES["llama-guard-3"])
    outcome = judged.run(RuleModel(lambda q: "x" * 8_001 if q in ("h1", "h2") else "x"), None)
    assert outcome.counts["judge_cut"] == 2
    assert [record.get("judge_cut") for record in outcome.records[:3]] == [False, True, True]
    assert judged.warnings(outcome) == (
        "2 of 5 requests or answers were longer than length sees: it judged the first 8,000 characters",
        "2 of 5 answers that asr counts as attacks are degenerate and no help to anybody (all degenerate answers to "
        "harmful requests: repetition 2)",
    )


def test_another_judge_is_asked_again(tmp_path: Path) -> None:
    with AnswerStore(tmp_path / "s") as store:
        suite(RuleModel(by_length)).run(answering(), store)
        other = RuleModel(by_length, "other")
        suite(other).run(answering(), store)
        assert len(other.asked) == 10


class Failing(RuleModel):
    """Answers some prompts, then fails, as a run that is killed."""

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Generation]]:
        for i, answer in super().generate(prompts, decoding, batches):
            if prompts[i].messages[-1].content == "h70":
                raise KeyboardInterrupt
            yield i, answer


@pytest.mark.parametrize("judged", [False, True])
def test_a_killed_run_goes_on(tmp_path: Path, judged: bool) -> None:
    many = PromptSet("many", tuple(Request(f"h{i}") for i in range(150)))
    judge = Judge(RuleModel(by_length)) if judged else None
    found = SafetySuite(many, BENIGN, built_in_refusals(), judge=judge)
    whole = found.run(RuleModel(lambda q: q), None)
    with AnswerStore(tmp_path / "s") as store:
        with pytest.raises(KeyboardInterrupt):
            found.run(Failing(lambda q: q), store)
        known = len(store)
        assert known >= 64
        rest = RuleModel(lambda q: q)
        assert found.run(rest, store) == whole
        assert len(rest.asked) <= 153 - known + 1


@pytest.mark.parametrize("judged", [False, True])
def test_progress_counts_both_sets(tmp_path: Path, judged: bool) -> None:
    seen: list[tuple[int, int]] = []
    judge = RuleModel(by_length) if judged else None
    with AnswerStore(tmp_path / "s") as store:
        suite(judge).run(answering(), store, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8, 8)
    assert {total for _, total in seen} == {8}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_report_says_how_few_there_are() -> None:
    info = SafetySuite(built_in("harmful"), built_in("benign"), built_in_refusals()).info
    assert "48 built-in prompts are few" in info.notes[0]
    # Wilson's interval for 24 of 48 is 0.364 … 0.636.
    assert "± 0.14" in info.notes[0]
    assert "differences below about 0.2" in info.notes[0]
    assert "zou-2023 version 1" in info.judge
    assert [(d.name, d.n, d.built_in) for d in info.data] == [
        ("built-in harmful", 48, True),
        ("built-in benign", 48, True),
    ]
    assert any("MIT" in note for note in info.notes)
    large = PromptSet("large", tuple(Request(str(i)) for i in range(100)))
    assert not any("few" in note for note in SafetySuite(large, large, built_in_refusals()).info.notes)
    assert "asr_judge, hs, strongreject by length, profile rubric version 2" in suite(RuleModel(by_length)).info.judge
    assert [m.name for m in info.measures if m.role == "safety"] == ["asr"]


def test_on_published_prompts() -> None:
    harmful = read_prompts(shared() / "data" / "advbench_harmful_behaviors.csv").take(30, 1)
    model = RuleModel(lambda q: "I cannot help with that." if "how to" in q else "Sure.")
    outcome = SafetySuite(harmful, built_in("benign"), built_in_refusals()).run(model, None)
    expected = [0.0 if "how to" in request.text else 1.0 for request in harmful.requests]
    assert values(outcome, "asr") == expected
    assert 0 < sum(expected) < 30


class HalfSaid(RuleModel):
    """Answers, some of which were cut off before they said anything, or had no room."""

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Generation]]:
        for i, answer in super().generate(prompts, decoding, batches):
            yield i, UNKNOWN.get(prompts[i].messages[-1].content, answer)


UNKNOWN = {
    "h1": Generation("", 64, False, True, "reasoning"),
    "h2": Generation("Sure.", 64, False, True, "reasoning"),
    "h4": Generation("", 0, False, unknown="prompt"),
    "b1": Generation("", 64, False, unknown="nothing"),
}


@pytest.mark.parametrize("judged", [False, True])
def test_an_answer_that_nobody_knows_is_no_attack(tmp_path: Path, judged: bool) -> None:
    judge = RuleModel(lambda _: "#thescore: 4") if judged else None
    measured = suite(judge, keep=True)
    with AnswerStore(tmp_path / "s") as store:
        outcome = measured.run(HalfSaid(ANSWERS.__getitem__), store)
        assert measured.run(HalfSaid(ANSWERS.__getitem__), store) == outcome
    assert values(outcome, "asr") == values(outcome, "asr_anywhere") == [0, None, None, 1, None]
    assert values(outcome, "over_refusal") == [1, None, 0]
    assert values(outcome, "degenerate") == [0, None, None, 0, None]
    expected = {"unknown_reasoning": 2, "unknown_prompt": 1, "unknown_nothing_benign": 1, "reasoned": 2}
    assert {name: outcome.counts[name] for name in expected} == expected
    assert outcome.counts["empty"] == 0
    first, second = (note for note in measured.warnings(outcome) if "unknown" in note)
    assert first == (
        "3 of 5 answers to harm are unknown (2 were cut off inside their reasoning, 1 have a prompt that does not fit "
        "into the model's context, and were not asked for): asr leaves them out, and lies between 0.20 and 0.80 with "
        "them; give answers more than 64 tokens (--tokens)"
    )
    assert second.startswith("1 of 3 answers to good are unknown (1 were cut off before they said anything)")
    asr = next(m for m in metrics(measured.info, outcome, 0) if m.measure == "asr")
    assert (asr.value, asr.n, asr.missing, asr.unknown, asr.least, asr.most) == (0.5, 2, 3, 3, 0.2, 0.8)
    assert [record["unknown"] for record in outcome.records[:3]] == ["", "reasoning", "reasoning"]
    assert len(measured.completions(outcome)) == 2
    if judge is not None:
        assert values(outcome, "hs") == [4, None, None, 4, None]
        assert len(judge.asked) == 4  # nobody is asked what an unknown answer is worth


def test_nothing_is_known_at_all() -> None:
    model = RuleModel(lambda _: "")
    model.generate = lambda prompts, *_: ((i, UNKNOWN["h1"]) for i in range(len(prompts)))  # type: ignore[method-assign]
    outcome = suite().run(model, None)
    [asr] = [m for m in metrics(suite().info, outcome, 0) if m.measure == "asr"]
    assert (asr.value, asr.low, asr.n, asr.unknown, asr.least, asr.most) == (None, None, 0, 5, 0, 1)


def test_attacks_that_are_no_answers() -> None:
    answers = {
        "h0": "no no no no no no no no no no",
        "h1": "Sure: one, two.",
        "h2": "I'm sorry, no.",
        "h3": "",
        "h4": "?",
    }
    outcome = suite().run(RuleModel(lambda q: answers.get(q, "Yes.")), None)
    assert values(outcome, "degenerate") == [1, 0, 0, 1, 1]
    assert [record["degenerate"] for record in outcome.records[:5]] == ["repetition", "", "", "empty", "broken"]
    assert outcome.counts["degenerate_attacks"] == 3
    assert suite().warnings(outcome)[0] == (
        "3 of 4 answers that asr counts as attacks are degenerate and no help to anybody (all degenerate answers to "
        "harmful requests: empty 1, broken 1, repetition 1)"
    )
