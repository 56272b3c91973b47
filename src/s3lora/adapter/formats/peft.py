"""PEFT: `base_model.model.….q_proj.lora_A.weight`, and the variants of that key that real files have."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from s3lora.adapter.formats import experts
from s3lora.adapter.formats.base import (
    Format,
    Reading,
    Source,
    check_pair,
    matrix,
    missing_half,
    rank_warning,
)
from s3lora.adapter.formats.patterns import Pattern
from s3lora.adapter.model import LoraModule, Scaling, Tensor, natural_key, place
from s3lora.errors import AdapterFileError, UnsupportedAdapterError, printable

PREFIX = "base_model.model."
_KEY = re.compile(
    r"^(?P<path>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?:\.(?P<leaf>weight|bias))?$"
)
_EMBEDDING = {"lora_embedding_A": "lora_A", "lora_embedding_B": "lora_B"}


@dataclass(slots=True)
class Parts:
    """The tensors of one module, by part."""

    path: str
    key: str
    A: Tensor | None = None
    B: Tensor | None = None
    embedding: bool = False
    magnitude: Tensor | None = None
    extras: list[str] = field(default_factory=list)


def _recognises(source: Source) -> bool:
    if source.config is not None and "peft_type" in source.config:
        return True
    return any(_KEY.match(name) for name in source.tensors)


def _read(source: Source) -> Reading:
    config = source.config or {}
    refuse_other_types(config, source.label)
    parts, others = _collect(source)
    scaling = Scalings(source.config, source.label)
    modules: list[LoraModule] = []
    notes: list[str] = []
    configured: dict[str, int] = {}
    for part in parts.values():
        for factor, other in (("A", "B"), ("B", "A")):
            if getattr(part, factor) is None:
                raise missing_half(part.path, f"lora_{other}", f"lora_{factor}", source.label)
        found = experts.fused(part, parts, config, scaling, source.label)
        if found is None:
            found = [_module(part, scaling, source.label)]
            if (rank := scaling.rank(part.path)) is not None:
                configured[part.path] = rank
        modules.extend(found)
    ordered = tuple(sorted(modules, key=lambda module: natural_key(module.path)))
    _refuse_equal_paths(ordered, source.label)
    if source.config is None and ordered:
        notes.append("no adapter_config.json: the scaling is unknown and taken as 1, so magnitudes are relative")
    if any(module.dora for module in ordered):
        notes.append("DoRA: the spectra are of B·A alone; the magnitude vectors are carried along unread")
    notes.extend(rank_warning(ordered, configured))
    notes.extend(experts.notes(ordered))
    return Reading(ordered, others, tuple(notes))


def _collect(source: Source) -> tuple[dict[str, Parts], tuple[str, ...]]:
    parts: dict[str, Parts] = {}
    others: list[str] = []
    adapters: set[str] = set()
    for name, tensor in source.tensors.items():
        match = _KEY.match(name)
        if match is None:
            others.append(name)
            continue
        adapters.add(match["adapter"] or "default")
        key = match["path"]
        part = parts.setdefault(key, Parts(key.removeprefix(PREFIX), key))
        role = match["part"]
        if role == "lora_magnitude_vector":
            part.magnitude = tensor
            part.extras.append(name)
        elif match["leaf"] == "bias":
            part.extras.append(name)
        else:
            part.embedding = role in _EMBEDDING
            letter = _EMBEDDING.get(role, role)[-1]
            if getattr(part, letter) is not None:
                raise AdapterFileError(f"has two lora_{letter} tensors", file=source.label, module=part.path)
            setattr(part, letter, tensor)
    if len(adapters) > 1:
        names = ", ".join(sorted(printable(adapter, 40) for adapter in adapters))
        raise UnsupportedAdapterError(
            f"holds several adapters in one file ({names})", file=source.label, fix="save each adapter by itself"
        )
    return parts, tuple(others)


def _module(part: Parts, scaling: Scalings, label: str) -> LoraModule:
    assert part.A is not None and part.B is not None
    a, b = matrix(part.A, label), matrix(part.B, label)
    check_pair(part.path, a, b, label)
    layer, projection, expert = place(part.path)
    return LoraModule(
        path=part.path,
        A=a,
        B=b,
        scaling=scaling.of(part.path, a.shape[0]),
        layer=layer,
        projection=projection,
        expert=expert,
        kind="embedding" if part.embedding else "conv" if len(part.A.shape) > 2 else "linear",
        dora=part.magnitude is not None,
        extras=tuple(part.extras),
    )


def _refuse_equal_paths(modules: Iterable[LoraModule], label: str) -> None:
    seen: set[str] = set()
    for module in modules:
        if module.path in seen:
            raise AdapterFileError("appears twice under different keys", file=label, module=module.path)
        seen.add(module.path)


class Scalings:
    """The scaling of each module as PEFT computes it: alpha/r, or alpha/√r with `use_rslora`, patterns first.

    The rank in the quotient is that of the tensors: a configuration whose `r` contradicts them would not load.
    """

    def __init__(self, config: Mapping[str, Any] | None, label: str) -> None:
        """Check the numbers in `config` (None: no configuration)."""
        self._known = config is not None
        values = config or {}
        self._alpha = _number(values, "lora_alpha", 8.0, label)
        self._rank = _number(values, "r", 0.0, label)
        self._rslora = bool(values.get("use_rslora", False))
        self._alphas = Pattern(values.get("alpha_pattern"), "alpha_pattern", label)
        self._ranks = Pattern(values.get("rank_pattern"), "rank_pattern", label)

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


def _number(config: Mapping[str, Any], field: str, default: float, label: str) -> float:
    value = config.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
        raise AdapterFileError(f"`{field}` is {printable(value, 40)}, not a positive number", file=label)
    return float(value)


def refuse_other_types(config: Mapping[str, Any], label: str) -> None:
    """Raise UnsupportedAdapterError if the configuration is of a PEFT method other than LoRA."""
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise UnsupportedAdapterError(
            f"is a {printable(kind, 40)} adapter; s3lora reads LoRA only",
            file=label,
            fix="its update is no product of two low-rank factors in one file",
        )
    for field, method in (("use_qalora", "QALoRA"), ("use_bdlora", "BD-LoRA")):
        if config.get(field):
            raise UnsupportedAdapterError(f"is a {method} adapter, whose update is not B·A", file=label)


FORMAT = Format("peft", _recognises, _read)
