"""The pieces of a PEFT module as its file and its configuration give them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from s3lora.adapter.formats.base import positive
from s3lora.adapter.formats.patterns import Pattern
from s3lora.adapter.model import Scaling
from s3lora.adapter.tensor import Tensor


@dataclass(slots=True)
class Parts:
    """The tensors of one module, by part."""

    path: str
    key: str
    A: Tensor | None = None
    B: Tensor | None = None
    embedding: bool = False
    magnitude: Tensor | None = None
    alpha: Tensor | None = None
    # Of AdaLoRA: the diagonal between A and B, and the rank that it began with.
    values: Tensor | None = None
    began: Tensor | None = None
    extras: list[str] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all of its tensors."""
        return (*(tensor.name for tensor in (self.A, self.B, self.values) if tensor is not None), *self.extras)


class Scalings:
    """The scaling of each module as PEFT computes it: alpha/r, or alpha/√r with `use_rslora`, patterns first.

    The rank in the quotient is that of the tensors: a configuration whose `r` contradicts them would not load.
    """

    def __init__(self, config: Mapping[str, Any] | None, label: str) -> None:
        """Check the numbers in `config` (None: no configuration); `label` is the name of its file."""
        self._known = config is not None
        values = config or {}
        self._alpha = positive(values, "lora_alpha", label) or 8.0  # PEFT's default
        self._rank = positive(values, "r", label)
        self._rslora = bool(values.get("use_rslora", False))
        self._alphas = Pattern(values.get("alpha_pattern"), "alpha_pattern", label)
        # AdaLoRA keeps in it which directions are left, and not ranks.
        ranks = None if values.get("peft_type") == "ADALORA" else values.get("rank_pattern")
        self._ranks = Pattern(ranks, "rank_pattern", label)

    def rank(self, path: str) -> int | None:
        """Return the configured rank of a module, None where nothing is configured."""
        value = self._ranks.find(path) or self._rank
        return int(value) if value else None

    def of(self, path: str, rank: int) -> Scaling:
        """Return the scaling of the module at `path` whose tensors have rank `rank`."""
        if not self._known:
            return Scaling(1.0, "unknown")
        pattern = self._alphas.find(path)
        alpha = self._alpha if pattern is None else pattern
        value = alpha / math.sqrt(rank) if self._rslora else alpha / rank
        if pattern is not None:
            return Scaling(value, "alpha_pattern")
        return Scaling(value, "alpha/sqrt(r)" if self._rslora else "alpha/r")
