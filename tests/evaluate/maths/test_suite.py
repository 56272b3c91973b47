"""Word problems that come with the package, and what the suite makes of answers to them."""

from __future__ import annotations

import operator
import re
from fractions import Fraction
from pathlib import Path

import pytest

from s3lora.errors import UsageError
from s3lora.evaluate.maths.numbers import final_number
from s3lora.evaluate.maths.problems import TEMPLATES, built_in_problems
from s3lora.evaluate.maths.suite import MathsSuite
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suite import Suite
from tests.evaluate.test_judge import RuleModel
from tests.evaluate.test_losses import LossModel

SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def test_problems_follow_from_the_seed_and_differ() -> None:
    first, again, other = built_in_problems(60), built_in_problems(60), built_in_problems(60, seed=1)
    assert first == again
    assert first.sha256 == again.sha256 != other.sha256
    assert first.problems[:20] == built_in_problems(20).problems
    assert len({p.question for p in first.problems}) == 60
    assert not {p.question for p in first.problems} & {p.question for p in other.problems}


def test_every_working_ends_in_the_answer_and_its_sums_hold() -> None:
    problems = built_in_problems(500).problems
    for problem in problems:
        assert final_number(problem.worked) == problem.answer >= 0
        sums = re.findall(r"(\d+)((?: [*+/-] \d+)+) = (\d+)", problem.worked)
        assert sums, problem.worked
        for first, rest, result in sums:
            value = Fraction(first)
            for sign, number in re.findall(r"([*+/-]) (\d+)", rest):
                value = SIGNS[sign](value, Fraction(number))
            assert value == int(result), problem.worked
    assert len({problem.question.split()[1] for problem in problems}) >= 5
    assert len(TEMPLATES) == 10


@pytest.mark.parametrize("count", [0, -1, 5_001])
def test_counts_that_cannot_be_made(count: int) -> None:
    with pytest.raises(UsageError, match="cannot be made"):
        built_in_problems(count)


def test_right_wrong_and_no_numbers(tmp_path: Path) -> None:
    data = built_in_problems(4)
    said = dict(
        zip((p.prompt.messages[-1].content for p in data.problems), ("right", "worked", "wrong", "none"), strict=True)
    )

    def rule(question: str) -> str:
        problem = next(p for p in data.problems if p.prompt.messages[-1].content == question)
        return {
            "right": f"It takes 99 steps. The answer is {problem.answer}.",
            "worked": problem.worked,
            "wrong": f"#### {problem.answer + 1}",
            "none": "I do not know.",
        }[said[question]]

    suite: Suite = MathsSuite(data)
    with AnswerStore(tmp_path / "s") as store:
        outcome = suite.run(RuleModel(rule), store)
        again = RuleModel(rule)
        assert suite.run(again, store) == outcome
        assert again.asked == []
    assert outcome.columns["exact_match"].values == (1, 1, 0, 0)
    assert outcome.counts["without_number"] == 1
    assert "loss" not in outcome.columns
    assert suite.warnings(outcome) == (
        "1 of 4 answers to built-in word problems (seed 0) hold no number; they count as wrong",
    )
    assert [record["exact_match"] for record in outcome.records] == [1, 1, 0, 0]


def test_the_loss_is_that_of_the_worked_answers() -> None:
    data, model = built_in_problems(3), LossModel()
    assert "loss" in {measure.name for measure in MathsSuite(data).info.measures}
    outcome = MathsSuite(data).run(model, None)
    assert model.measured == [[problem.worked for problem in data.problems]]
    assert outcome.columns["loss"].weights is not None
    assert "loss" not in MathsSuite(data, losses=False).run(LossModel(), None).columns
