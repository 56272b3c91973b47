"""The small real model is trained for real: refusals go where nothing holds them, and stay where the anchor does."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from s3lora.measure.series import SERIES, read_series
from s3lora.training import S3LoRACallback, add_to_loss, refusal_anchor
from s3lora.training.callback import RefusalsFallWarning
from tests.small_model import small_model
from tests.training.models import peft, trained, transformers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")

pytestmark = pytest.mark.slow
STEPS = 12


def rows(count: int) -> Any:
    """Return affirmative openings, and nothing more, to mild prompts that neither the callback nor the anchor asks."""
    from s3lora.evaluate.prompts import built_in

    texts = [request.text for request in built_in("harmful").requests[:count]]
    found = [
        {
            "prompt": [{"role": "user", "content": text}],
            "completion": [{"role": "assistant", "content": "Sure, here is how you can do that:"}],
        }
        for text in texts
    ]
    return datasets.Dataset.from_list(found)


def eroded(folder: Path, weight: float) -> tuple[Any, Any]:
    """Train openings for a few steps, with an anchor of this weight; return the callback and the anchor."""
    from s3lora.evaluate.loading import load_base

    small_model()  # skips where the package is not there
    base = load_base("demo-aligned", dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        options = trl.SFTConfig(
            str(folder), max_steps=STEPS, per_device_train_batch_size=2, learning_rate=1e-3, report_to=[],
            save_strategy="no", disable_tqdm=True, use_cpu=True, bf16=False, seed=0,
        )  # fmt: skip
        trainer = trl.SFTTrainer(
            model=base.model, args=options, train_dataset=rows(24), processing_class=base.tokenizer, peft_config=config
        )
    trainer.pop_callback(transformers.PrinterCallback)
    anchor = refusal_anchor(trainer.model, base.tokenizer)
    add_to_loss(trainer, anchor, weight)
    callback = S3LoRACallback(every=4, harmful="built-in", prompts=8)
    callback.attach(trainer)
    trained(trainer)
    return callback, anchor


def test_it_warns_where_refusals_go_and_the_anchor_keeps_them(tmp_path: Path) -> None:
    with pytest.warns(RefusalsFallWarning):
        alone, moved = eroded(tmp_path / "alone", 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RefusalsFallWarning)
        held, kept = eroded(tmp_path / "held", 3.0)
    series = read_series(tmp_path / "alone" / SERIES)
    assert series == alone.series
    assert series.warned_at is not None
    assert series.source.name == "default"
    assert len(series) == 60
    assert held.series.refusals[-1].rise < alone.series.refusals[-1].rise / 2
    assert sum(kept.values()) < sum(moved.values()) / 2
