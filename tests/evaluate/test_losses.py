from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.losses import reference_losses
from s3lora.evaluate.results import MeasureColumn
from s3lora.evaluate.store import AnswerStore
from tests.evaluate.test_judge import RuleModel

PROMPTS = [Prompt.ask(text) for text in ("p0", "p1", "p2")]
REFERENCES = ["one", "two words", "three words here"]


class LossModel(RuleModel):
    """A model whose references cost a nat for each letter, a token for each word, and a little for the company."""

    def __init__(self, identity: str = "loss") -> None:
        super().__init__(str.upper, identity)
        self.measured: list[list[str]] = []

    def losses(
        self, prompts: Sequence[Prompt], references: Sequence[str], cut: Collection[int] = ()
    ) -> list[tuple[float, int]]:
        self.measured.append(list(references))
        # As rounding does: depends on what is computed beside it.
        company = 1e-9 * len(references)
        less = [0.5 * (i in cut) for i in range(len(references))]
        return [(len(text) - end + company, len(text.split())) for text, end in zip(references, less, strict=True)]


class FixedModel(RuleModel):
    def __init__(self, found: Sequence[tuple[float, int]]) -> None:
        super().__init__(str)
        self.found = list(found)

    def losses(self, prompts: Sequence[Prompt], references: Sequence[str]) -> list[tuple[float, int]]:
        return self.found


def test_nats_a_token_weighted_by_tokens() -> None:
    found = reference_losses(FixedModel([(3.0, 1), (5.0, 2), (6.0, 4)]), PROMPTS, REFERENCES, None)
    assert found == MeasureColumn((3.0, 2.5, 1.5), (1.0, 2.0, 4.0))
    assert found.weights is not None
    total = sum(v * w for v, w in zip(found.values, found.weights, strict=True) if v is not None)
    assert total / sum(found.weights) == pytest.approx((3 + 5 + 6) / 7)


def test_a_model_that_cannot_tell() -> None:
    assert reference_losses(RuleModel(str), PROMPTS, REFERENCES, None) is None


def test_nothing_to_measure(tmp_path: Path) -> None:
    with AnswerStore(tmp_path / "s") as store:
        assert reference_losses(LossModel(), [], [], store) == MeasureColumn((), ())


@pytest.mark.parametrize("kept", [False, True])
def test_what_is_no_number_is_left_out(tmp_path: Path, kept: bool) -> None:
    model = FixedModel([(math.nan, 2), (math.inf, 3), (0.0, 0)])
    with AnswerStore(tmp_path / "s") as store:
        for _ in range(2):
            found = reference_losses(model, PROMPTS, REFERENCES, store if kept else None)
            assert found == MeasureColumn((None, None, None), (0.0, 0.0, 0.0))


def test_known_losses_are_not_computed_again(tmp_path: Path) -> None:
    model = LossModel()
    with AnswerStore(tmp_path / "s") as store:
        first = reference_losses(model, PROMPTS, REFERENCES, store)
    with AnswerStore(tmp_path / "s") as store:
        again = LossModel()
        assert reference_losses(again, PROMPTS, REFERENCES, store) == first
        assert again.measured == []
    assert reference_losses(LossModel(), PROMPTS, REFERENCES, None) == first
    assert b"three words" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=4))
def test_losses_do_not_depend_on_what_was_known(
    tmp_path_factory: pytest.TempPathFactory, before: list[list[int]]
) -> None:
    fresh = reference_losses(LossModel(), PROMPTS, REFERENCES, None)
    with AnswerStore(tmp_path_factory.mktemp("store") / "s") as store:
        for some in before:
            reference_losses(LossModel(), [PROMPTS[i] for i in some], [REFERENCES[i] for i in some], store)
        for _ in range(2):
            assert reference_losses(LossModel(), PROMPTS, REFERENCES, store) == fresh


@pytest.mark.parametrize("change", ["model", "prompt", "reference", "order"])
def test_what_determines_a_loss_tells_it_apart(tmp_path: Path, change: str) -> None:
    prompts, references = list(PROMPTS), list(REFERENCES)
    model = LossModel("other" if change == "model" else "loss")
    if change == "prompt":
        prompts[0] = Prompt.ask("p0", "Be brief.")
    elif change == "reference":
        references[0] = "another"
    elif change == "order":
        prompts, references = prompts[::-1], references[::-1]
    with AnswerStore(tmp_path / "s") as store:
        reference_losses(LossModel(), PROMPTS, REFERENCES, store)
        reference_losses(model, prompts, references, store)
    assert model.measured == [references]


def test_a_reference_for_each_prompt() -> None:
    with pytest.raises(ValueError, match="zip"):
        reference_losses(LossModel(), PROMPTS, REFERENCES[:2], None)


def test_a_reference_that_was_cut_off_has_no_end(tmp_path: Path) -> None:
    with AnswerStore(tmp_path / "s") as store:
        for _ in range(2):
            whole = reference_losses(LossModel(), PROMPTS, REFERENCES, store)
            cut = reference_losses(LossModel(), PROMPTS, REFERENCES, store, frozenset({1}))
            assert whole is not None
            assert cut is not None
            assert [one == other for one, other in zip(whole.values, cut.values, strict=True)] == [True, False, True]
