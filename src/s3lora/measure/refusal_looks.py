"""One look at the refusals of a model that is being trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalLook:
    """What became of the base's refusals by one step.

    `loss` is their mean loss in nats a token over `prompts` refusals; `rise` is what it rose by since the start, and
    `error` the standard error of that over the prompts: all None where a loss is not finite. `over_refusal` is the
    share of `harmless` prompts that the base answers and the model now refuses, None where none were asked. `beyond`
    tells whether the rise counts by the rule.
    """

    step: int
    loss: float | None
    rise: float | None
    error: float | None
    prompts: int
    over_refusal: float | None
    harmless: int
    beyond: bool
