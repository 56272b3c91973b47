"""TRL's trainers with the callback and the terms, on a tiny model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from s3lora.evaluate.judges.refusing import refusal_judge
from s3lora.measure.series import SERIES, read_series
from s3lora.training import S3LoRACallback, add_to_loss, refusal_anchor, spectral_penalty
from tests.tiny_model import tiny_tokenizer
from tests.training.models import HARMFUL, refusing, tiny_peft, trained, trainer_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of libraries about each other
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")


def sft(folder: Path, model: Any, **more: Any) -> Any:
    rows = datasets.Dataset.from_list([{"prompt": f"Add {i}", "completion": f" {i + 1}"} for i in range(32)])
    return trainer_of(model, folder, kind=trl.SFTTrainer, arguments=trl.SFTConfig, data=rows, max_length=64, **more)


def dpo(folder: Path, model: Any, **more: Any) -> Any:
    pairs = [{"prompt": f"Add {i}", "chosen": f" {i + 1}", "rejected": " no"} for i in range(32)]
    rows = datasets.Dataset.from_list(pairs)
    return trainer_of(model, folder, kind=trl.DPOTrainer, arguments=trl.DPOConfig, data=rows, max_length=64, **more)


KINDS = {"sft": sft, "dpo": dpo}


@pytest.mark.parametrize("kind", KINDS)
def test_the_callback_and_both_terms_work_in_it(tmp_path: Path, kind: str) -> None:
    model = tiny_peft()
    judge = refusing(tmp_path, model)
    trainer = KINDS[kind](tmp_path / "run", model, gradient_accumulation_steps=2)
    calls: list[str] = []
    anchor = refusal_anchor(trainer.model, tiny_tokenizer(), HARMFUL, judge=refusal_judge(judge))

    def held() -> Any:
        calls.append("anchor")
        return anchor()

    def flat() -> Any:
        calls.append("penalty")
        return spectral_penalty(trainer.model)

    add_to_loss(trainer, held, 0.5)
    add_to_loss(trainer, flat, 0.1)
    callback = S3LoRACallback(2, harmful=HARMFUL, judge=judge, absolute=100.0)
    callback.attach(trainer)
    trained(trainer)
    assert calls.count("anchor") == calls.count("penalty") == 6, "once a step of the optimiser"
    series = read_series(tmp_path / "run" / SERIES)
    assert series.steps == (0, 2, 4, 6)
    assert series.refusals[-1].rise != 0.0
    history = trainer.state.log_history
    assert [entry["step"] for entry in history if "s3lora/refusal_loss" in entry] == [0, 2, 4, 6]
    own = [set(entry) for entry in history if "loss" in entry]
    assert len(own) == 3, "the trainer's own logs are where they were"
    assert own[0] == own[1] == own[2], "and have all of its metrics"
    assert any("mean_token_accuracy" in keys or "rewards/chosen" in keys for keys in own)


@pytest.mark.parametrize("kind", KINDS)
def test_the_anchor_holds_on_in_it(tmp_path: Path, kind: str) -> None:
    moved = []
    for weight in (0.0, 50.0):
        model = tiny_peft()
        judge = refusal_judge(refusing(tmp_path, model))
        trainer = KINDS[kind](tmp_path / str(weight), model, save_strategy="no")
        anchor = refusal_anchor(trainer.model, tiny_tokenizer(), HARMFUL, judge=judge)
        add_to_loss(trainer, anchor, weight)
        trained(trainer)
        moved.append(sum(anchor.values()))
    assert moved[1] < moved[0] / 2
