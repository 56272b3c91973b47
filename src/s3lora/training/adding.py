"""A term added to the loss of a trainer of transformers or TRL, once a step of the optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from s3lora.errors import UsageError


def add_to_loss(trainer: Any, term: Callable[[], Any], weight: float = 1.0) -> None:
    """Add `weight · term()` to the loss that a trainer learns from.

    The term is computed once for each step of the optimiser, with the last of its micro-batches, and counts the same
    whatever `gradient_accumulation_steps` is. Evaluation has none of it; the loss that is logged in training has it.
    Several terms add up.

    Examples:
        >>> from s3lora.training import add_to_loss, spectral_penalty
        >>> add_to_loss(trainer, lambda: spectral_penalty(trainer.model), weight=0.1)  # doctest: +SKIP

    Parameters:
        trainer: a `Trainer` of transformers, or TRL's `SFTTrainer` or `DPOTrainer`.
        term: returns a scalar that gradients pass through, such as what `refusal_anchor` returns.
        weight: its weight, not below 0.

    Raises UsageError for what has no loss, and for a negative weight.
    """
    inner = getattr(trainer, "compute_loss", None)
    if not callable(inner) or not hasattr(trainer, "accelerator"):
        raise UsageError(
            f"a {type(trainer).__name__} has no loss to add to", fix="give a trainer of transformers or TRL"
        )
    if not weight >= 0:
        raise UsageError(f"the weight must be 0 or more, not {weight}")

    def compute_loss(model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        found = inner(model, inputs, *args, **more)
        if not (model.training and trainer.accelerator.sync_gradients and weight):
            return found
        loss, rest = (found[0], found[1:]) if isinstance(found, tuple) else (found, None)
        items = more.get("num_items_in_batch", args[1] if len(args) > 1 else None)
        times = 1 if _whole(trainer, items) else trainer.current_gradient_accumulation_steps
        loss = loss + (weight * times) * term().to(loss.device, loss.dtype)
        return loss if rest is None else (loss, *rest)

    trainer.compute_loss = compute_loss


def _whole(trainer: Any, items: Any) -> bool:
    """Return whether the trainer leaves the loss of a micro-batch as it is; else it divides it by their number."""
    told = getattr(trainer, "loss_is_scaled_for_ga", None)
    if told is not None:
        return bool(told)
    return (trainer.model_accepts_loss_kwargs and items is not None) or trainer.compute_loss_func is not None
