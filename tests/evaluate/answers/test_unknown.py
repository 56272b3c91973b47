"""Suites of usefulness: an answer that nobody knows is neither right nor wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from s3lora.evaluate.aggregate import metrics
from s3lora.evaluate.chat import Decoding, Generation, Prompt
from s3lora.evaluate.maths.problems import built_in_problems
from s3lora.evaluate.maths.suite import MathsSuite
from s3lora.evaluate.planning.questions import built_in as built_in_tasks
from s3lora.evaluate.planning.suite import PlanningSuite
from s3lora.evaluate.references import built_in_references
from s3lora.evaluate.suite import Suite
from s3lora.evaluate.summarisation import SummarisationSuite

CUT = Generation("", 8, False, True, "reasoning")


class Cut:
    """Answers every prompt but the first two, of which it only thought."""

    identity = "cut"

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        return [list(range(len(prompts)))]

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Generation]]:
        for i in range(len(prompts)):
            yield i, CUT if i < 2 else Generation("It is 4.", 3, True)


def summarisation() -> Suite:
    for package in ("rouge_score", "nltk"):
        pytest.importorskip(package)
    return SummarisationSuite(built_in_references().subset(range(6)))


@pytest.mark.parametrize(
    ("make", "measure"),
    [
        (lambda: MathsSuite(built_in_problems(6)), "exact_match"),
        (lambda: PlanningSuite(built_in_tasks(6)), "well_formed"),
        (lambda: PlanningSuite(built_in_tasks(6)), "exact_match"),
        (summarisation, "exact_match"),
    ],
    ids=["maths", "plans", "planning", "summarisation"],
)
def test_an_answer_that_nobody_knows_is_not_wrong(make: Callable[[], Suite], measure: str) -> None:
    suite = make()
    outcome = suite.run(Cut(), None)
    [found] = [metric for metric in metrics(suite.info, outcome, 0) if metric.measure == measure]
    assert (found.n, found.unknown, found.missing) == (4, 2, 2)
    assert (found.least, found.most) == (found.value * 4 / 6, (found.value * 4 + 2) / 6)  # type: ignore[operator]
    assert outcome.columns[measure].values[:2] == (None, None)
    assert outcome.counts["unknown_reasoning"] == 2
    assert [record["unknown"] for record in outcome.records[:3]] == ["reasoning", "reasoning", ""]
    [note] = [text for text in suite.warnings(outcome) if "unknown" in text]
    assert "2 were cut off inside their reasoning" in note
    assert "unfinished" not in outcome.counts or outcome.counts["unfinished"] == 0
