"""What is not LoRA in several adapters, as the reports on a comparison show it."""

from __future__ import annotations

from collections.abc import Sequence

from s3lora.measure.others import TensorComparison
from s3lora.report.glance import shape, some
from s3lora.report.names import tail
from s3lora.report.values import count

#: Columns that a name gets, and adapters that are named.
NAME, PLACES = 56, 8


def outcome(tensor: TensorComparison, called: Sequence[str]) -> str:
    """Return what became of a tensor; `called` is what the sentence calls the adapters.

    >>> known = dict(name="score.weight", role="head", shape=((2, 4),) * 2, dtype=("float32",) * 2, largest=(1.0, 2.0))
    >>> outcome(TensorComparison(**known, sha256=("00", "01")), ["A", "B"])
    'changed'
    """
    held = [name for name, sizes in zip(called, tensor.shape, strict=True) if sizes is not None]
    if not tensor.everywhere:
        among = zip(tensor.shape, tensor.dtype, tensor.sha256, strict=True)
        changed = len({one for one in among if one[0] is not None}) > 1
        return f"only in {_places(held)}" + (", and changed" if changed else "")
    if not tensor.changes:
        return "the same in both" if len(called) == 2 else "the same in all"
    return "changed" if len(called) == 2 else f"changed at {_places([called[i] for i in tensor.changes])}"


def others(tensors: Sequence[TensorComparison], called: Sequence[str]) -> list[tuple[str, str]]:
    """Return a line for each kind of tensor and what became of it; what changed comes first."""
    groups: dict[tuple[bool, str, str], list[TensorComparison]] = {}
    for tensor in tensors:
        key = not tensor.changes, "dora" if tensor.role == "extra" else tensor.role, outcome(tensor, called)
        groups.setdefault(key, []).append(tensor)
    return [
        (role, f"{count(len(found))} tensor{'' if len(found) == 1 else 's'} {became}: {some(found, _named)}")
        for (_, role, became), found in sorted(groups.items(), key=lambda group: group[0])
    ]


def ends(tensor: TensorComparison) -> tuple[str, tuple[float | None, float | None]]:
    """Return the shape, or both where they differ, and the largest magnitudes in the first adapter and in the last."""
    known = dict.fromkeys(shape(sizes) for sizes in tensor.shape if sizes is not None)
    return " → ".join(known), (tensor.largest[0], tensor.largest[-1])


def _named(tensor: TensorComparison) -> str:
    return f"{tail(tensor.name, NAME)} {ends(tensor)[0]}"


def _places(names: Sequence[str]) -> str:
    return ", ".join(names[:PLACES]) + (f" and {len(names) - PLACES} more" if len(names) > PLACES else "")
