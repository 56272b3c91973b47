from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from experiments.comparing import ComparingModel
from s3lora.evaluate.chat import Decoding
from s3lora.evaluate.planning.measures import score
from s3lora.evaluate.planning.questions import built_in
from s3lora.evaluate.planning.suite import PlanningSuite
from s3lora.evaluate.planning.tasks import PlanningTask, TaskSet
from s3lora.evaluate.results import SuiteOutcome
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suite import Suite
from tests.evaluate.planning.planners import Measuring, Planner
from tests.evaluate.planning.test_plan import TEXTS

TASKS = built_in()
#: The same questions, answered by the model from plan and evidence.
SOLVED = replace(TASKS, built_in=False)


def means(outcome: SuiteOutcome) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, column in outcome.columns.items():
        known = [value for value in column.values if value is not None]
        found[name] = sum(known) / len(known) if known else None
    return found


def roles(suite: PlanningSuite) -> dict[str, str]:
    return {measure.name: measure.role for measure in suite.info.measures}


def test_it_is_a_suite_and_says_what_it_is() -> None:
    suite: Suite = PlanningSuite(TASKS)
    info = suite.info
    assert info.name == "planning"
    assert [(data.n, data.built_in, data.sha256) for data in info.data] == [(50, True, TASKS.sha256)]
    assert info.data[0].note == "generated; few"
    assert PlanningSuite(built_in(100)).info.data[0].note == "generated"
    assert any("50 tasks are few" in note for note in info.notes)
    assert not any("few" in note for note in PlanningSuite(built_in(100)).info.notes)
    assert any("three templates" in note for note in info.notes)
    assert any("the model itself" in note for note in info.notes)


@pytest.mark.parametrize("tasks", [TASKS, SOLVED])
def test_a_perfect_planner(tasks: TaskSet) -> None:
    suite = PlanningSuite(tasks)
    outcome = suite.run(Measuring(TASKS), None)
    found = means(outcome)
    assert (found["well_formed"], found["exact_match"], found["token_f1"]) == (1, 1, 1)
    assert (outcome.counts["failed_steps"], outcome.counts["unfinished"]) == (0, 0)
    assert outcome.columns["steps"].values == tuple(float(len(task.plan.splitlines())) for task in TASKS.tasks)
    assert outcome.columns["tokens"].values == tuple(float(len(task.plan.split())) for task in TASKS.tasks)
    assert found["loss"] == 0.5
    assert suite.warnings(outcome) == ()
    assert list(outcome.columns) == [measure.name for measure in suite.info.measures]


@pytest.mark.parametrize(
    ("rule", "well_formed", "problem"),
    [
        (lambda plan: "", 0, "no step"),
        (lambda plan: "I would look it up.", 0, "no step"),
        (lambda plan: plan.replace("Lookup", "Dance"), 0, "unknown tool"),
        (lambda plan: plan[: plan.rindex("[") + 1], 0, "unclosed input"),
        (lambda plan: plan.replace(" of ", " from "), 1, None),
        (lambda plan: "\n".join(reversed(plan.splitlines())), 0, "evidence used before it is defined"),
    ],
)
def test_a_broken_planner(rule: Callable[[str], str], well_formed: int, problem: str | None) -> None:
    outcome = PlanningSuite(TASKS).run(Planner(TASKS, rule), None)
    found = means(outcome)
    # What an early step found may happen to be the answer to a comparison.
    assert found["exact_match"] is not None
    assert found["exact_match"] <= (0.1 if problem in ("unclosed input", "evidence used before it is defined") else 0)
    assert found["well_formed"] == well_formed
    if problem:
        assert outcome.counts[problem] == 50


def test_wrong_plans_are_well_formed_and_wrong() -> None:
    swapped = dict(
        zip([task.plan for task in TASKS.tasks], [task.plan for task in TASKS.tasks[1:]] + [""], strict=True)
    )
    outcome = PlanningSuite(TASKS.subset(range(49))).run(Planner(TASKS, swapped.__getitem__), None)
    assert means(outcome)["well_formed"] == 1
    assert (means(outcome)["exact_match"] or 0) < 0.1


def test_a_model_without_losses_has_no_loss() -> None:
    outcome = PlanningSuite(TASKS).run(Planner(TASKS), None)
    assert "loss" not in outcome.columns


def test_tasks_without_a_plan_have_no_loss() -> None:
    some = replace(TASKS, tasks=(TASKS.tasks[0], replace(TASKS.tasks[1], plan="")))
    column = PlanningSuite(some).run(Measuring(TASKS), None).columns["loss"]
    assert column.values == (0.5, None)
    assert column.weights is None or column.weights[1] == 0
    none = replace(some, tasks=some.tasks[1:])
    assert "loss" not in roles(PlanningSuite(none))
    assert "loss" not in PlanningSuite(none).run(Measuring(TASKS), None).columns


def test_what_stands_for_usefulness() -> None:
    assert roles(PlanningSuite(TASKS))["exact_match"] == "utility"
    assert roles(PlanningSuite(SOLVED))["token_f1"] == "utility"
    unanswered = replace(TASKS, tasks=tuple(replace(task, answers=()) for task in TASKS.tasks))
    assert roles(PlanningSuite(unanswered)) == {
        "well_formed": "utility", "steps": "other", "tokens": "other", "loss": "other"
    }  # fmt: skip
    outcome = PlanningSuite(unanswered).run(Planner(TASKS), None)
    assert "exact_match" not in outcome.columns
    assert outcome.records[0]["exact_match"] is None


def test_a_helper_answers_in_place_of_the_model() -> None:
    class PlansOnly(Planner):
        def answer(self, prompt: object) -> str:
            return self.plans[prompt]  # type: ignore[index]

    suite = PlanningSuite(TASKS, helper=ComparingModel())
    assert means(suite.run(PlansOnly(TASKS), None))["exact_match"] == 1
    assert any("a rule" in note for note in suite.info.notes)


@pytest.mark.parametrize("tasks", [TASKS, SOLVED])
def test_a_repeated_run_asks_nothing(tmp_path: Path, tasks: TaskSet) -> None:
    suite = PlanningSuite(tasks)
    done: list[tuple[int, int]] = []
    with AnswerStore(tmp_path / "s") as store:
        first = suite.run(Planner(TASKS), store, lambda *both: done.append(both))
        model = Planner(TASKS)
        assert suite.run(model, store) == first
    assert model.asked == []
    assert first == suite.run(Planner(TASKS), None)
    total = 100 if tasks is SOLVED else 50
    assert done == sorted(done)
    assert done[-1] == (total, total)


def test_records_hold_no_texts_and_are_plain() -> None:
    outcome = PlanningSuite(TASKS).run(Planner(TASKS), None)
    text = json.dumps([dict(record) for record in outcome.records])
    assert len(outcome.records) == 50
    assert "Lookup" not in text
    assert TASKS.tasks[0].question not in text
    assert outcome.records[0]["prompt"] == TASKS.tasks[0].prompt.digest


def test_what_a_reader_is_told() -> None:
    class Cut(Planner):
        def generate(self, *arguments: object, **keywords: object):  # type: ignore[no-untyped-def, override]
            for i, answer in super().generate(*arguments, **keywords):  # type: ignore[arg-type]
                yield i, replace(answer, finished=False)

    suite = PlanningSuite(TASKS, Decoding(max_new_tokens=9))
    outcome = suite.run(Cut(TASKS, lambda plan: plan.replace(" of ", " zzz")), None)
    warnings = suite.warnings(outcome)
    assert warnings[0] == "50 of 50 plans were cut off at 9 tokens"
    assert " steps of the plans gave no result" in warnings[1]
    bare = PlanningSuite(TaskSet("own", (PlanningTask("q", answers=("a",)),)))
    assert any("without documents" in note for note in bare.info.notes)
    assert any("1 tasks are few" in note for note in bare.info.notes)


@pytest.mark.parametrize(
    ("answer", "exact"),
    [("Paris.", 1), ("the paris", 1), ("City of Light", 1), ("London", 0), ("", 0), (" ", 0), ("in Paris", 0)],
)
def test_scores(answer: str, exact: float) -> None:
    assert score(answer, PlanningTask("q", answers=("Paris", "city of light")))[0] == exact


@pytest.mark.parametrize(("answer", "exact"), [("-12", 1), ("−12", 1), ("12", 0), ("- 12", 0)])
def test_signs_count(answer: str, exact: float) -> None:
    assert score(answer, PlanningTask("q", answers=("-12",)))[0] == exact


def test_an_article_is_no_answer() -> None:
    assert score("", PlanningTask("q", answers=("the",))) == (0, 0)
    assert score("x", PlanningTask("q")) == (None, None)


@settings(max_examples=30)
@given(TEXTS)
def test_no_answer_of_a_model_raises(text: str) -> None:
    class Says(Planner):
        def answer(self, prompt: object) -> str:
            return text

    for some in (TASKS.subset(range(2)), SOLVED.subset(range(2))):
        outcome = PlanningSuite(some).run(Says(some), None)
        assert all(value is not None and 0 <= value <= 1 for value in outcome.columns["token_f1"].values)
