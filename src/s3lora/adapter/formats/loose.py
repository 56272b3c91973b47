"""Factors of home-made loops and of litGPT, under PEFT's names and in another layout; told by their shapes.

Without a configuration of PEFT nobody has said that A is (r, n). Where it is (n, r), B is (r, m): as `x @ A @ B` has
it. litGPT, and loralib's MergedLinear, hold the updates of q, k and v in one pair: A is (p·r, n), B has the rows of
all p one after the other and r columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from s3lora.adapter.factors import Factor
from s3lora.adapter.formats.base import check_pair, require_floating
from s3lora.adapter.formats.parts import Parts
from s3lora.adapter.model import LoraModule, Scaling, path_parts
from s3lora.adapter.tensor import Array

#: Names of projections that hold q, k and v in one.
_FUSED = ("attn", "qkv", "c_attn", "qkv_proj", "query_key_value", "wqkv", "in_proj", "to_qkv")
_QKV = ("q", "k", "v")
TURNED = "the factors lie as (n, r) and (r, m), as `x @ A @ B` has them, and are read so"
GROUPED = (
    "q, k and v are adapted in one pair, as litGPT stores it: each is read by itself, q having as many rows as its "
    "input has features"
)


def lie_turned(parts: Iterable[Parts], config: Mapping[str, Any]) -> bool:
    """Return whether all pairs are A (n, r) and B (r, m), at least one of which cannot be A (r, n) and B (m, r).

    The rank is the smallest of the sizes, so that what a sharded save has cut is not taken for it.
    """
    if "peft_type" in config:
        return False
    sure = False
    for part in parts:
        a, b = _shapes(part)
        if len(a) != 2 or len(b) != 2 or a[1] != b[0] or a[1] > min(a[0], b[1]):
            return False
        sure |= a[0] != b[1]
    return sure


def grouped(
    part: Parts, scaling: Callable[[int], Scaling], config: Mapping[str, Any], label: str
) -> list[LoraModule] | None:
    """Return a module for each projection in a pair that holds several, None where it is an ordinary pair.

    `scaling` gives that of a rank.
    """
    a, b = _shapes(part)
    name = part.path.rpartition(".")[2].lower()
    if part.A is None or part.B is None or "peft_type" in config or name not in _FUSED or (len(a), len(b)) != (2, 2):
        return None
    rank, inputs, rows = b[1], a[1], b[0]
    count = a[0] // rank if rank else 0
    sizes = _rows_of_each(count, rows, inputs)
    if count * rank != a[0] or sizes is None:
        return None
    for tensor in (part.A, part.B):
        require_floating(tensor, label)
    made, start = [], 0
    for number, size in enumerate(sizes):
        first = Factor(part.A, (rank, inputs), partial(_rows, start=number * rank, count=rank))
        second = Factor(part.B, (size, rank), partial(_rows, start=start, count=size))
        start += size
        inner = _QKV[number] if count == len(_QKV) else str(number)
        path = f"{part.path}.{inner}"
        check_pair(path, first, second, label)
        layer, projection, _ = path_parts(part.path)
        made.append(
            LoraModule(
                path, first, second, scaling(rank), layer, f"{projection}.{inner}",
                extras=tuple(part.extras), group=part.path,
            )
        )  # fmt: skip
    return made


def _rows_of_each(count: int, rows: int, inputs: int) -> tuple[int, ...] | None:
    """Return how many rows each of the projections has, None where no model has such.

    >>> _rows_of_each(3, 96, 64), _rows_of_each(2, 128, 64), _rows_of_each(2, 32, 64)
    ((64, 16, 16), (64, 64), (16, 16))
    """
    left = rows - inputs  # of k and v, where there is q
    if count == 3 and left > 0 and left % 2 == 0:
        return inputs, left // 2, left // 2
    if count == 2 and 0 < left <= inputs:
        return inputs, left
    return (rows // 2, rows // 2) if count == 2 and rows <= inputs and rows % 2 == 0 and rows else None


def _shapes(part: Parts) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (() if part.A is None else part.A.shape), (() if part.B is None else part.B.shape)


def _rows(stored: Array, *, start: int, count: int) -> Array:
    rows: Array = stored[start : start + count]
    return rows
