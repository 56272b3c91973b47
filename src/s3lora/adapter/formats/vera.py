"""VeRA: ΔW = diag(λ_b)·B·diag(λ_d)·A, where A and B are random, and one pair for all layers.

    base_model.vera_A                       (r, N)   rows of all layers: a layer of n inputs takes the first n columns
    base_model.vera_B                       (M, r)   and one of m outputs the first m rows
    base_model.model.PATH.vera_lambda_d     (r)
    base_model.model.PATH.vera_lambda_b     (m)

The scaling is 1. How many inputs a layer has is not stored: N, unless layers differ in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import numpy as np

from s3lora.adapter.factors import DerivedFactor, Factor
from s3lora.adapter.formats.base import Reading, StoredAdapter, check_pair, column, matrix
from s3lora.adapter.formats.forms import form_notes
from s3lora.adapter.formats.wrappers import unwrapped
from s3lora.adapter.model import LoraModule, Scaling, natural_key, path_parts
from s3lora.adapter.tensor import Array, Tensor
from s3lora.errors import AdapterFileError, UnsupportedAdapterError

KEY = re.compile(r"^(?P<path>.+)\.vera_lambda_(?P<part>[bd])(?:\.(?P<adapter>[^.]+))?$")
_PROJECTION = re.compile(r"^(?:(?P<path>.+)\.)?vera_(?P<part>[AB])(?:\.(?P<adapter>[^.]+))?$")
#: Where the projections of all layers lie.
_MODEL = ("base_model", "base_model.model", None)
#: Layers that read the hidden states, and so have one number of inputs.
_OF_HIDDEN = {
    *("q_proj", "k_proj", "v_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj", "query_key_value", "c_attn"),
    *("query", "key", "value", "q_lin", "k_lin", "v_lin", "to_q"),
}


def is_vera(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether any of these is a key of VeRA."""
    return any(KEY.match(name) for name in tensors if "vera_lambda_" in name)


def read(source: StoredAdapter) -> Reading:
    """Return the modules; raise UnsupportedAdapterError where the projections are not stored."""
    scales: dict[str, dict[str, Tensor]] = {}
    projections: dict[tuple[str | None, str], Tensor] = {}
    others = []
    for name, tensor in source.tensors.items():
        if (match := KEY.match(name)) is not None:
            if match["part"] in scales.setdefault(match["path"], {}):
                fix = "save each adapter by itself"
                raise UnsupportedAdapterError("holds several adapters in one file", file=source.label, fix=fix)
            scales[match["path"]][match["part"]] = tensor
        elif (match := _PROJECTION.match(name)) is not None:
            projections[match["path"], match["part"]] = tensor
        else:
            others.append(name)
    modules = tuple(
        _module(key, parts, projections, source.label)
        for key, parts in sorted(scales.items(), key=lambda item: natural_key(unwrapped(item[0])[0]))
    )
    return Reading(modules, tuple(others), (*form_notes(modules), *_notes(modules)))


def _module(
    key: str, parts: Mapping[str, Tensor], projections: Mapping[tuple[str | None, str], Tensor], label: str
) -> LoraModule:
    path = unwrapped(key)[0]
    for part in "bd":
        if part not in parts:
            what = f"has no vera_lambda_{part}"
            raise AdapterFileError(what, file=label, module=path, fix="the file is incomplete")
    stored = {}
    for part in "AB":
        found = (projections.get((where, part)) for where in (key, *_MODEL))
        tensor = next((one for one in found if one is not None), None)
        if tensor is None:
            raise UnsupportedAdapterError(
                f"is VeRA, and its projection vera_{part}, without which no update is known, is not stored "
                "(`save_projection` is false)",
                file=label,
                module=path,
                fix="load it with PEFT, set `save_projection` to true in its configuration, and save it again",
            )
        stored[part] = matrix(tensor, label)
    scale_b, scale_d = column(parts["b"], label), column(parts["d"], label)
    m, rank = scale_b.shape[0], stored["B"].shape[1]
    if m > stored["B"].shape[0] or scale_d.shape[0] != stored["A"].shape[0]:
        raise AdapterFileError(
            f"its scales do not fit the projections: vera_lambda_b has {m} numbers and vera_lambda_d "
            f"{scale_d.shape[0]}",
            file=label,
            module=path,
            shape=(*stored["B"].shape, *stored["A"].shape),
        )
    shared_a = Factor(stored["A"].tensor, stored["A"].shape, shared=True)
    shared_b = Factor(stored["B"].tensor, (m, rank), partial(_first, count=m), shared=True)
    a = DerivedFactor((scale_d, shared_a), shared_a.shape, np.multiply, None)
    b = DerivedFactor((scale_b, shared_b), shared_b.shape, np.multiply, None)
    check_pair(path, a, b, label)
    layer, projection, expert = path_parts(path)
    return LoraModule(path, a, b, Scaling(1.0, "always 1"), layer, projection, expert, form="VeRA")


def _first(stored: Array, *, count: int) -> Array:
    rows: Array = stored[:count]
    return rows


def _notes(modules: tuple[LoraModule, ...]) -> tuple[str, ...]:
    kinds = {module.projection for module in modules}
    if len(kinds) < 2 or kinds <= _OF_HIDDEN:
        return ()
    return (
        f"VeRA does not store how many inputs a layer has: {modules[0].n} are taken, as the projection has; where a "
        "layer has fewer, its norms are too large",
    )
