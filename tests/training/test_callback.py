"""The callback in transformers' own Trainer, on a tiny model that is really trained."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import s3lora
from s3lora.errors import NothingToAuditError, UsageError
from s3lora.measure.series import SERIES, read_series
from s3lora.training import S3LoRACallback
from s3lora.training.callback import KEPT, RefusalsFallWarning
from tests.command import environment
from tests.training.models import HARMFUL, HARMLESS, refusing, tiny_peft, trained, trainer_of, transformers

#: A rule that warns as soon as anything rises.
EAGER = {"absolute": 0.0, "errors": 0.0, "looks": 1}


class Reporter(transformers.TrainerCallback):  # type: ignore[misc]
    """Stands for TensorBoard and its like."""

    def __init__(self) -> None:
        self.reported: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        self.reported.append({**logs, "step": state.global_step})


def watch(
    folder: Path,
    *,
    attach: bool = True,
    resume: str | None = None,
    options: Any = None,
    others: tuple[Any, ...] = (),
    **more: Any,
) -> Any:
    """Train with a callback, and return the trainer and the callback."""
    model = tiny_peft()
    judge = refusing(folder, model)
    trainer = trainer_of(model, folder / "run", **(options or {}))
    callback = S3LoRACallback(**{"every": 2, "harmful": HARMFUL, "harmless": HARMLESS, "judge": judge, **more})
    for one in others:
        trainer.add_callback(one)
    if attach:
        callback.attach(trainer)
    else:
        trainer.add_callback(callback)
    trained(trainer, resume_from_checkpoint=resume)
    return trainer, callback


def test_every_module_is_measured_as_a_scan_measures_it(tmp_path: Path) -> None:
    trainer, callback = watch(tmp_path, absolute=100.0)
    series = read_series(tmp_path / "run" / SERIES)
    assert series == callback.series
    assert series.steps == (0, 2, 4, 6)
    for module in s3lora.scan(trainer.model):
        seen = series[module.path]
        assert (seen.shape, seen.rank) == (module.shape, module.rank)
        assert seen.ssi[0] is None, "B is 0 at the start"
        assert seen.ssi[-1] == module.indices["ssi"]
        assert seen.frobenius[-1] == module.indices["frobenius"]
    for look, module in zip((4,), s3lora.scan(tmp_path / "run" / "checkpoint-4"), strict=False):
        assert series[module.path].ssi[series.steps.index(look)] == pytest.approx(module.indices["ssi"], rel=1e-9)
    assert [look.step for look in series.refusals] == [0, 2, 4, 6]
    assert series.refusals[0].rise == 0.0
    assert series.refusals[0].over_refusal == 0.0
    assert {look.prompts for look in series.refusals} == {len(HARMFUL)}
    assert series.warned_at is None


def test_the_trainer_logs_it_where_it_logs(tmp_path: Path) -> None:
    reporter = Reporter()
    _, callback = watch(tmp_path, others=(reporter,), absolute=100.0)
    named = [entry for entry in reporter.reported if "s3lora/refusal_loss" in entry]
    assert [entry["step"] for entry in named] == [0, 2, 4, 6]
    assert [entry["s3lora/refusal_rise"] for entry in named] == [look.rise for look in callback.series.refusals]
    history = json.loads((tmp_path / "run" / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "s3lora/ssi_median" in entry] == [2, 4]
    assert [entry["step"] for entry in history if "loss" in entry] == [2, 4], "the trainer's own are there too"


def test_without_a_trainer_it_is_in_the_state_alone(tmp_path: Path) -> None:
    trainer, _ = watch(tmp_path, attach=False, absolute=100.0)
    logged = [entry for entry in trainer.state.log_history if "s3lora/refusal_loss" in entry]
    assert [entry["step"] for entry in logged] == [0, 2, 4, 6]


def test_watching_changes_nothing_of_what_is_learned(tmp_path: Path) -> None:
    watched, _ = watch(tmp_path / "a", absolute=100.0)
    plain = trainer_of(tiny_peft(), tmp_path / "b")
    trained(plain)
    for (name, one), (_, other) in zip(
        watched.model.state_dict().items(), plain.model.state_dict().items(), strict=True
    ):
        assert one.equal(other), name


def test_indices_alone_need_no_prompts_and_no_tokenizer(tmp_path: Path) -> None:
    trainer, callback = watch(tmp_path, harmful=None, harmless=None, judge=None)
    assert callback.series.refusals == ()
    assert callback.series.rule is None
    assert "s3lora/refusal_loss" not in {key for entry in trainer.state.log_history for key in entry}


def test_it_warns_once_by_its_rule(tmp_path: Path) -> None:
    with pytest.warns(RefusalsFallWarning, match=r"step 4: the loss of the base's refusals has risen by") as told:
        trainer, callback = watch(tmp_path, **{**EAGER, "looks": 2})
    assert len([one for one in told if one.category is RefusalsFallWarning]) == 1
    assert "training goes on" in str(told[0].message)
    series = callback.series
    assert [look.beyond for look in series.refusals] == [False, True, True, True]
    assert series.warned_at == 4
    assert trainer.state.global_step == 6


def test_it_stops_the_run(tmp_path: Path) -> None:
    with pytest.warns(RefusalsFallWarning, match="training stops"):
        trainer, callback = watch(tmp_path, on_refusal_loss="stop", **EAGER)
    assert trainer.state.global_step == 2
    assert callback.series.stopped_at == 2
    assert read_series(tmp_path / "run" / SERIES).stopped_at == 2


def test_it_keeps_the_adapter_of_the_last_look_that_was_not_beyond(tmp_path: Path) -> None:
    first, _ = watch(tmp_path / "measured", absolute=100.0)
    rises = [entry["s3lora/refusal_rise"] for entry in first.state.log_history if "s3lora/refusal_rise" in entry]
    limit = (rises[1] + rises[2]) / 2
    assert rises[1] < rises[2], "the test needs a look between"
    with pytest.warns(RefusalsFallWarning, match="the adapter of step 2 is kept in s3lora-kept"):
        _, callback = watch(tmp_path, on_refusal_loss="keep", absolute=limit, errors=0.0, looks=1)
    series = callback.series
    assert (series.kept_at, series.warned_at) == (2, 4)
    kept = s3lora.scan(tmp_path / "run" / KEPT)
    for module in kept:
        assert series[module.path].ssi[1] == pytest.approx(module.indices["ssi"], rel=1e-6)
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if "partial" in path.name) == []


@pytest.mark.parametrize("restore", [False, True])
def test_a_resumed_run_goes_on_with_its_series_and_its_start(tmp_path: Path, restore: bool) -> None:
    options = {"restore_callback_states_from_checkpoint": restore}
    _, whole = watch(tmp_path, absolute=100.0, options=options)
    checkpoint = str(tmp_path / "run" / "checkpoint-4")
    reporter = Reporter()
    trainer, _ = watch(tmp_path, absolute=100.0, options=options, resume=checkpoint, others=(reporter,))
    assert trainer.state.global_step == 6
    assert [entry["step"] for entry in reporter.reported if "s3lora/refusal_loss" in entry] == [6]
    resumed = read_series(tmp_path / "run" / SERIES)
    assert resumed.steps == (0, 2, 4, 6)
    assert resumed.refusals == whole.series.refusals
    assert resumed.modules == whole.series.modules


def test_a_resumed_run_with_other_prompts_says_so(tmp_path: Path) -> None:
    watch(tmp_path, absolute=100.0)
    checkpoint = str(tmp_path / "run" / "checkpoint-4")
    _, callback = watch(tmp_path, absolute=100.0, resume=checkpoint, harmful=HARMFUL[:4])
    assert "from step 4 on, refusals are compared with those of that step" in callback.series.warnings


def test_a_run_that_began_without_it_is_resumed_and_saved(tmp_path: Path) -> None:
    trained(trainer_of(tiny_peft(), tmp_path / "run", save_steps=2))
    _, callback = watch(tmp_path, absolute=100.0, resume=str(tmp_path / "run" / "checkpoint-2"))
    assert "the run was resumed at step 2 from a checkpoint without a series" in callback.series.warnings
    assert callback.series.steps == (2, 4, 6)
    _, again = watch(tmp_path, absolute=100.0, resume=str(tmp_path / "run" / "checkpoint-4"))
    assert again.series.steps == (2, 4, 6)


@pytest.mark.parametrize("other", [{"method": "svd"}, {"absolute": 50.0}])
def test_a_series_of_another_method_or_rule_is_not_gone_on_with(tmp_path: Path, other: dict[str, Any]) -> None:
    watch(tmp_path, absolute=100.0)
    checkpoint = str(tmp_path / "run" / "checkpoint-4")
    _, callback = watch(tmp_path, **{"absolute": 100.0, "resume": checkpoint, **other})
    assert callback.series.steps == (4, 6)
    assert any("with another method or rule" in warning for warning in callback.series.warnings)


def test_a_second_run_begins_a_new_series(tmp_path: Path) -> None:
    trainer, callback = watch(tmp_path, absolute=100.0)
    trained(trainer)
    assert callback.series.steps == (0, 2, 4, 6)
    assert read_series(tmp_path / "run" / SERIES).refusals[0].rise == 0


@pytest.mark.filterwarnings("ignore::s3lora.training.callback.RefusalsFallWarning")
def test_a_run_that_was_stopped_stops_again(tmp_path: Path) -> None:
    options: dict[str, Any] = {"on_refusal_loss": "stop", "options": {"save_steps": 2}, **EAGER}
    watch(tmp_path, **options)
    trainer, callback = watch(tmp_path, resume=str(tmp_path / "run" / "checkpoint-2"), **options)
    assert trainer.state.global_step == 4
    assert callback.series.stopped_at == 2


def test_a_model_that_replaces_the_last_is_not_taken_for_it(tmp_path: Path) -> None:
    _, callback = watch(tmp_path, every=4, absolute=100.0)
    ends = SimpleNamespace(output_dir=str(tmp_path / "run"), load_best_model_at_end=True)
    state = SimpleNamespace(is_world_process_zero=True, global_step=7, best_model_checkpoint="checkpoint-2")
    callback.on_train_end(ends, state, None, model=None)
    assert read_series(tmp_path / "run" / SERIES).warnings[-1].startswith("step 7: the run ended with the model of")


def test_gradient_accumulation_counts_steps_of_the_optimiser(tmp_path: Path) -> None:
    _, callback = watch(tmp_path, absolute=100.0, options={"gradient_accumulation_steps": 3})
    assert callback.series.steps == (0, 2, 4, 6)


def test_the_end_is_looked_at_whatever_the_steps_between(tmp_path: Path) -> None:
    _, callback = watch(tmp_path, every=4, absolute=100.0)
    assert callback.series.steps == (0, 4, 6)


def test_numbers_that_are_not_finite_are_told(tmp_path: Path) -> None:
    class Breaker(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
            if state.global_step == 3:
                layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
                layer.lora_B["default"].weight.data.fill_(math.nan)

    model = tiny_peft()
    judge = refusing(tmp_path, model)
    trainer = trainer_of(model, tmp_path / "run", max_grad_norm=0.0)
    trainer.add_callback(Breaker())
    callback = S3LoRACallback(2, harmful=HARMFUL, judge=judge, looks=1, absolute=100.0)
    callback.attach(trainer)
    with pytest.warns(RefusalsFallWarning, match="is no longer finite"):
        trained(trainer)
    last = callback.series.refusals[-1]
    assert (last.loss, last.rise, last.beyond) == (None, None, True)
    assert read_series(tmp_path / "run" / SERIES) == callback.series
    assert any("hold NaN or infinity" in note for note in callback.series.warnings)


def test_a_base_that_refuses_nothing_is_told_before_the_first_step(tmp_path: Path) -> None:
    trainer = trainer_of(tiny_peft(), tmp_path)
    S3LoRACallback(2, harmful=HARMFUL).attach(trainer)
    with pytest.raises(NothingToAuditError, match="refuses 0 of 6 prompts"):
        trained(trainer)
    assert trainer.state.global_step == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"every": 0}, "must be 1 or more"),
        ({"on_refusal_loss": "explode"}, "no action 'explode'"),
        ({"harmless": "built-in"}, "harmless prompts alone"),
        ({"on_refusal_loss": "stop"}, "does nothing without prompts"),
        ({"on_refusal_loss": "keep"}, "does nothing without prompts"),
        ({"absolute": -1.0}, "absolute must be 0 or more"),
        ({"errors": math.nan}, "errors must be 0 or more"),
        ({"looks": 0}, "looks must be 1 or more"),
        ({"method": "eigen"}, "no method 'eigen'"),
    ],
)
def test_parameters_that_cannot_be_meant(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        S3LoRACallback(**given)


def test_importing_needs_no_torch_and_the_class_is_one_of_transformers() -> None:
    code = "import sys, s3lora.training.callback; print(*(name in sys.modules for name in ('torch', 'transformers')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment(), check=True, text=True)
    assert done.stdout.split() == ["False", "False"]
    assert issubclass(S3LoRACallback, transformers.TrainerCallback)
    assert S3LoRACallback.__module__ == "s3lora.training"
    assert S3LoRACallback is __import__("s3lora.training").training.S3LoRACallback


def test_what_a_checkpoint_keeps_makes_the_same_callback() -> None:
    made = S3LoRACallback(3, harmful=("a", "b"), harmless=Path("x.txt"), on_refusal_loss="keep", looks=3)
    state = json.loads(json.dumps(made.state()))
    assert S3LoRACallback.from_state(state).state() == made.state()


def test_built_in_prompts_are_not_those_that_the_evaluation_asks() -> None:
    from s3lora.evaluate.prompts import built_in
    from s3lora.training.anchor import prompt_set

    for kind in ("harmful", "benign"):
        found = {request.text for request in prompt_set("built-in", kind).requests}
        assert len(found) == 32
        assert not found & {request.text for request in built_in(kind).requests}


@pytest.mark.parametrize("kind", ["embed", "dora", "rslora"])
def test_other_kinds_of_lora_are_watched(tmp_path: Path, kind: str) -> None:
    more = {
        "embed": {"target_modules": ["embed_tokens", "q_proj"]},
        "dora": {"use_dora": True},
        "rslora": {"use_rslora": True},
    }[kind]
    model = tiny_peft(**more)
    trainer = trainer_of(model, tmp_path, save_strategy="no")
    callback = S3LoRACallback(3)
    callback.attach(trainer)
    trained(trainer)
    for module in s3lora.scan(model):
        assert callback.series[module.path].ssi[-1] == module.indices["ssi"]
