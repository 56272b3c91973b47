from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from s3lora.errors import UsageError
from s3lora.evaluate.aggregate import metrics
from s3lora.evaluate.likelihood import plan_losses
from s3lora.evaluate.planning.questions import built_in
from s3lora.evaluate.planning.tasks import PlanningTask, TaskSet
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suite import Suite
from tests.evaluate.test_judge import RuleModel
from tests.evaluate.test_losses import FixedModel, LossModel

TASKS = TaskSet(
    "own",
    (
        PlanningTask("q0", "Plan: a #E1 = LLM[b]", ("x",)),
        PlanningTask("q1", "", ("y",)),
        PlanningTask("q2", "Plan: c d #E1 = LLM[e]", ("z",)),
    ),
)


def test_the_loss_of_every_plan() -> None:
    model = LossModel()
    outcome = plan_losses(TASKS).run(model, None)
    plans = [task.plan for task in TASKS.tasks if task.plan]
    assert model.measured == [plans]
    assert model.asked == []
    assert outcome.columns["loss"].values == pytest.approx([len(p) / len(p.split()) for p in plans], abs=1e-8)
    assert outcome.columns["loss"].weights == tuple(len(p.split()) for p in plans)


def test_the_metric_is_a_token() -> None:
    suite: Suite = plan_losses(TASKS)
    (found,) = metrics(suite.info, suite.run(FixedModel([(3.0, 1), (5.0, 3)]), None), 0)
    assert found.values == pytest.approx((3, 5 / 3))
    assert found.value == pytest.approx(8 / 4)
    assert (found.suite, found.measure, found.n, found.interval) == ("planning-loss", "loss", 2, "none")


def test_a_loss_that_is_no_number_is_missing() -> None:
    suite = plan_losses(TASKS)
    outcome = suite.run(FixedModel([(float("inf"), 1), (5.0, 4)]), None)
    (found,) = metrics(suite.info, outcome, 0)
    assert (found.value, found.n, found.missing) == (1.25, 1, 1)
    assert suite.warnings(outcome) == ("1 of 2 reference plans of own have no finite loss and are left out",)


def test_what_is_told_of_it() -> None:
    info = plan_losses(TASKS).info
    (measure,) = info.measures
    assert (measure.name, measure.better, measure.role, measure.kind) == ("loss", "lower", "utility", "mean")
    (data,) = info.data
    assert (data.name, data.n, data.sha256, data.built_in) == ("own", 3, TASKS.sha256, False)
    assert plan_losses(built_in(3)).info.data[0].built_in
    assert plan_losses(TASKS).warnings(plan_losses(TASKS).run(LossModel(), None)) == ()


def test_progress_and_store(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with AnswerStore(tmp_path / "s") as store:
        first = plan_losses(TASKS).run(LossModel(), store, lambda done, total: told.append((done, total)))
        again = LossModel()
        assert plan_losses(TASKS).run(again, store) == first
    assert again.measured == []
    assert told[-1][0] == told[-1][1] > 0


def test_a_model_that_cannot_tell() -> None:
    with pytest.raises(UsageError, match="planning-loss cannot be measured: a server does not tell"):
        plan_losses(TASKS).run(RuleModel(str), None)


@pytest.mark.parametrize("tasks", [TASKS.tasks[1:2], ()])
def test_tasks_without_plans(tasks: tuple[PlanningTask, ...]) -> None:
    with pytest.raises(UsageError, match="planning-loss cannot be measured: there are no reference plans"):
        plan_losses(replace(TASKS, tasks=tasks)).run(LossModel(), None)
