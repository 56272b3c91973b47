"""PEFT: `base_model.model.….q_proj.lora_A.weight`, and the variants of that key that real files have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from s3lora.adapter.formats import experts
from s3lora.adapter.formats.base import (
    Format,
    Reading,
    Source,
    alpha_scaling,
    check_pair,
    matrix,
    missing_half,
    rank_warning,
)
from s3lora.adapter.formats.parts import Parts, Scalings
from s3lora.adapter.model import LoraModule, natural_key, place
from s3lora.errors import AdapterFileError, UnsupportedAdapterError, printable

PREFIX = "base_model.model."
_KEY = re.compile(
    r"^(?P<path>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?:\.(?P<leaf>weight|bias))?$"
)
_EMBEDDING = {"lora_embedding_A": "lora_A", "lora_embedding_B": "lora_B"}


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
    if any(module.scaling.origin == "unknown" for module in ordered):
        notes.append("no adapter_config.json: the scaling is unknown and taken as 1, so magnitudes are relative")
    if any(module.dora for module in ordered):
        notes.append("DoRA: the spectra are of B·A alone; the magnitude vectors are carried along unread")
    notes.extend(rank_warning(ordered, configured))
    notes.extend(experts.notes(ordered))
    return Reading(ordered, others, tuple(notes))


def _collect(source: Source) -> tuple[dict[str, Parts], tuple[str, ...]]:
    parts: dict[str, Parts] = {}
    others: list[str] = []
    matches = {name: _KEY.match(name) for name in source.tensors}
    _refuse_several({match["adapter"] or "default" for match in matches.values() if match}, source.label)
    for name, match in matches.items():
        if match is None:
            others.append(name)
            continue
        tensor = source.tensors[name]
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
    others = [name for name in others if not _take_alpha(name, parts, source)]
    return parts, tuple(others)


def _refuse_several(adapters: set[str], label: str) -> None:
    if len(adapters) > 1:
        names = printable(", ".join(sorted(adapters)[:8]))
        raise UnsupportedAdapterError(
            f"holds several adapters in one file ({names})", file=label, fix="save each adapter by itself"
        )


def _take_alpha(name: str, parts: Mapping[str, Parts], source: Source) -> bool:
    """Give `PATH.alpha` to its module: diffusers writes it where no configuration holds the scaling."""
    part = parts.get(name.removesuffix(".alpha")) if name.endswith(".alpha") else None
    if part is None or source.config is not None:
        return False
    part.alpha = source.tensors[name]
    part.extras.append(name)
    return True


def _module(part: Parts, scaling: Scalings, label: str) -> LoraModule:
    assert part.A is not None
    assert part.B is not None
    a, b = matrix(part.A, label), matrix(part.B, label)
    check_pair(part.path, a, b, label)
    layer, projection, expert = place(part.path)
    return LoraModule(
        path=part.path,
        A=a,
        B=b,
        scaling=alpha_scaling(part.alpha, a.shape[0], label) if part.alpha else scaling.of(part.path, a.shape[0]),
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


def refuse_other_types(config: Mapping[str, Any], label: str) -> None:
    """Raise UnsupportedAdapterError if the configuration is of a PEFT method other than LoRA."""
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise UnsupportedAdapterError(
            f"is a {printable(kind, 40)} adapter; s3lora reads LoRA only",
            file=label,
            fix="its update is no product of two low-rank factors in one file",
        )
    for switch, method in (("use_qalora", "QALoRA"), ("use_bdlora", "BD-LoRA"), ("kasa_config", "KaSA")):
        if config.get(switch):
            raise UnsupportedAdapterError(f"is a {method} adapter, whose update is not B·A", file=label)


FORMAT = Format("peft", _recognises, _read)
