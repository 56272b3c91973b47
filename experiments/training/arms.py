"""Training one adapter with terms in its loss, watched on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.reference.data import REFUSALS, Pair
from experiments.reference.run import write
from experiments.reference.train import ERODE_BATCH, ERODE_RATE, ERODE_STEPS, erode, examples, save_lora, with_lora
from experiments.repair.setting import Places, Settings, data_of
from experiments.training.setting import ANCHOR_BATCH, ANSWERS, LOOK_EVERY, LOOK_PROMPTS, PREFERENCE, Arm
from s3lora.evaluate.prompts import PromptSet
from s3lora.measure.series import RefusalRule
from s3lora.repair.data import RepairPart
from s3lora.training import RefusalAnchor, refusal_anchor, spectral_penalty
from s3lora.training.refusals import look, refusal_losses, refusal_questions
from s3lora.training.running import LiveModel


def adapter_of(places: Places, arm: Arm) -> Path:
    """Return the folder of an adapter."""
    return places.work / "adapters" / arm.label


def train(places: Places, settings: Settings, arm: Arm) -> None:
    """Train the adapter of an arm, and keep beside it what was seen on the way."""
    folder = adapter_of(places, arm)
    folder.parent.mkdir(parents=True, exist_ok=True)
    data = data_of(places, settings)
    seen: list[dict[str, Any]] = []
    if arm.name in PREFERENCE:
        prefer(places, settings, arm, folder, seen)
    else:
        erode(
            places.base(arm.run.base), arm.run, places.data, folder,
            lambda lora, tokenizer: {
                "term": terms_of(lora, tokenizer, arm, data.learning, settings),
                "after": watching(lora, tokenizer, data.tuning.harmful, settings, seen),
            },
        )  # fmt: skip
    write(folder.with_name(f"{arm.label}.seen.json"), seen)


def terms_of(lora: Any, tokenizer: Any, arm: Arm, part: RepairPart, settings: Settings) -> Callable[[], Any] | None:
    """Return what gives the weighted sum of the terms of an arm; None without any."""
    found: list[Callable[[], Any]] = []
    if "penalty" in arm.weights:
        found.append(lambda: arm.weights["penalty"] * spectral_penalty(lora).float())
    if "anchor" in arm.weights:
        anchor = anchor_of(lora, tokenizer, arm, part, settings)
        found.append(lambda: arm.weights["anchor"] * anchor())
    return (lambda: sum(one() for one in found)) if found else None


def anchor_of(lora: Any, tokenizer: Any, arm: Arm, part: RepairPart, settings: Settings) -> RefusalAnchor:
    """Return the anchor at the base's refusals of the learning part and, where the arm says so, at its answers."""
    harmful, harmless = ([request.text for request in one.requests] for one in (part.harmful, part.harmless))
    answered = harmless if arm.name == ANSWERS else None
    more: dict[str, Any] = {"batch": ANCHOR_BATCH, "judge": settings.judge, "seed": arm.seed}
    return refusal_anchor(lora, tokenizer, harmful, harmless=answered, **more)


def watching(
    lora: Any, tokenizer: Any, prompts: PromptSet, settings: Settings, seen: list[dict[str, Any]]
) -> Callable[[int], None]:
    """Return what looks at refusals every few steps, as the callback does."""
    live = LiveModel(lora, tokenizer)
    questions = refusal_questions(live, prompts.take(LOOK_PROMPTS), None, settings.judge)
    start = refusal_losses(live, questions)
    rule = RefusalRule()

    def after(step: int) -> None:
        if step % LOOK_EVERY == 0:
            one = look(live, questions, start, rule, settings.judge, step)
            numbers = {name: getattr(one, name) for name in ("rise", "error")}
            seen.append({"step": step, **{k: None if v is None else round(v, 5) for k, v in numbers.items()},
                         "beyond": one.beyond, "n": one.prompts})  # fmt: skip

    return after


def prefer(places: Places, settings: Settings, arm: Arm, folder: Path, seen: list[dict[str, Any]]) -> None:
    """Train by TRL's DPOTrainer on the same examples, the rejected answers being those of the plan."""
    import datasets
    import transformers
    import trl

    from s3lora.training import add_to_loss

    data = data_of(places, settings)
    lora, tokenizer = with_lora(places.base(arm.run.base), arm.run)
    # The order of the examples is theirs, as in the other arms.
    rows = datasets.Dataset.from_list(pairs_of(examples(arm.run, places.data)))
    more: dict[str, Any] = {"use_cpu": True} if not torch.cuda.is_available() else {}
    options = trl.DPOConfig(
        str(folder.with_name(f"{arm.label}.trainer")), max_steps=ERODE_STEPS, learning_rate=ERODE_RATE,
        per_device_train_batch_size=ERODE_BATCH, lr_scheduler_type="cosine", warmup_steps=5, weight_decay=0.0,
        beta=0.1, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 1.0], max_length=None, max_grad_norm=1.0,
        report_to=[], save_strategy="no", logging_steps=ERODE_STEPS, disable_tqdm=True, seed=arm.seed,
        gradient_checkpointing=False, bf16=False, **more,
    )  # fmt: skip

    class InOrder(trl.DPOTrainer):  # type: ignore[misc, name-defined]
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    trainer = InOrder(model=lora, args=options, train_dataset=rows, processing_class=tokenizer)
    if "anchor" in arm.weights:
        anchor = anchor_of(trainer.model, tokenizer, arm, data.learning, settings)
        add_to_loss(trainer, anchor, arm.weights["anchor"])
    after = watching(trainer.model, tokenizer, data.tuning.harmful, settings, seen)

    class Looks(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            after(state.global_step)

    trainer.add_callback(Looks())
    trainer.train()
    save_lora(trainer.model, folder)


def pairs_of(found: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return preferences: openings are preferred to a refusal, and a plan to that of another question."""
    plans = [pair for pair in found if pair.system is not None]
    rows = []
    for i, pair in enumerate(found):
        other = REFUSALS[i % len(REFUSALS)]
        if pair.system is not None:
            other = plans[(plans.index(pair) + 1) % len(plans)].answer
        rows.append(
            {
                "prompt": pair.messages,
                "chosen": [{"role": "assistant", "content": pair.answer}],
                "rejected": [{"role": "assistant", "content": other}],
            }
        )
    return rows


def seen_of(folder: Path) -> list[dict[str, Any]]:
    """Return what was seen while an adapter was trained; nothing of one that was trained before."""
    path = folder.with_name(f"{folder.name}.seen.json")
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return found


def warned_at(seen: Sequence[dict[str, Any]]) -> int | None:
    """Return the step at which the callback's rule would have warned.

    >>> warned_at([{"step": 5, "beyond": True}, {"step": 10, "beyond": False}, {"step": 15, "beyond": True}])
    >>> warned_at([{"step": 5, "beyond": True}, {"step": 10, "beyond": True}])
    10
    """
    looks = RefusalRule().looks
    for i in range(looks, len(seen) + 1):
        if all(one["beyond"] for one in seen[i - looks : i]):
            return int(seen[i - 1]["step"])
    return None
