"""Two adapters of one base model, or two checkpoints of one run: what changed, module by module."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from threadpoolctl import threadpool_limits

from s3lora.adapter.digest import Source
from s3lora.adapter.model import LoraModule
from s3lora.adapter.open import open_adapter
from s3lora.errors import NothingToAuditError, printable
from s3lora.measure.scan import SCHEMA_VERSION, Configuration, ModuleScan, Tool, scan
from s3lora.spectrum.difference import inner_product

#: (distance, cosine) of two updates, each None where it is undefined.
Relation = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleChange:
    """One module in both adapters.

    `distance` is ‖ΔW_b − ΔW_a‖_F / ‖ΔW_a‖_F, None where ΔW_a is zero; `cosine` is ⟨ΔW_a, ΔW_b⟩ over the product of
    the norms, in [−1, 1], None where either is zero.
    """

    path: str
    layer: int | None
    projection: str
    ssi: tuple[float | None, float | None]
    frobenius: tuple[float, float]
    distance: float | None
    cosine: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs between adapter a and adapter b; `reshaped` modules have different shapes and are not compared."""

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    configuration: Configuration
    sources: tuple[Source, Source]
    modules: tuple[ModuleChange, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    reshaped: tuple[str, ...]
    warnings: tuple[str, ...]


def compare(a: str | os.PathLike[str], b: str | os.PathLike[str], method: str = "mas-svd") -> Comparison:
    """Compare two adapters module by module.

    Raises NothingToAuditError if they have no module path in common, and whatever `open_adapter` and `scan` raise.
    """
    with open_adapter(a) as first, open_adapter(b) as second:
        scans = scan(first, method), scan(second, method)
        modules_a = {module.path: module for module in first.modules}
        modules_b = {module.path: module for module in second.modules}
        common = [path for path in modules_a if path in modules_b]
        if not common:
            raise NothingToAuditError(f"{first.name} and {second.name} have no module in common")
        same = {path for path in common if _shape(modules_a[path]) == _shape(modules_b[path])}
        before, after = ({record.path: record for record in measured.modules} for measured in scans)
        with threadpool_limits(limits=1, user_api="blas"):
            changes = tuple(
                _change(modules_a[path], modules_b[path], before[path], after[path]) for path in common if path in same
            )
    ranks = sum(modules_a[path].rank != modules_b[path].rank for path in common)
    notes = {
        note: [side for side, measured in zip("ab", scans, strict=True) if note in measured.warnings]
        for measured in scans
        for note in measured.warnings
    }
    return Comparison(
        configuration=scans[0].configuration,
        sources=(scans[0].source, scans[1].source),
        modules=changes,
        only_a=tuple(path for path in modules_a if path not in modules_b),
        only_b=tuple(path for path in modules_b if path not in modules_a),
        reshaped=tuple(path for path in common if path not in same),
        warnings=(
            *(f"{' and '.join(sides)}: {note}" for note, sides in notes.items()),
            *([other_ranks(ranks, len(common))] if ranks else []),
            *other_bases([measured.source for measured in scans]),
        ),
    )


def _shape(module: LoraModule) -> tuple[int, int]:
    return module.m, module.n


def _change(a: LoraModule, b: LoraModule, before: ModuleScan, after: ModuleScan) -> ModuleChange:
    norm_a, norm_b = before.indices["frobenius"] or 0.0, after.indices["frobenius"] or 0.0
    distance, cosine = related(a, b, norm_a, norm_b)
    return ModuleChange(
        path=a.path,
        layer=a.layer,
        projection=a.projection,
        ssi=(before.indices["ssi"], after.indices["ssi"]),
        frobenius=(norm_a, norm_b),
        distance=distance,
        cosine=cosine,
    )


def other_ranks(count: int, total: int) -> str:
    """Return what to bear in mind where modules are of another rank than before."""
    return f"{count} of {total} modules change their rank: an SSI is at least 1/rank, so the raw values do not compare"


def other_bases(sources: Sequence[Source], so: str = "what changes from one to another means little then") -> list[str]:
    """Return what to bear in mind where adapters name different base models; a path counts by its last part."""
    names = dict.fromkeys(re.split(r"[/\\]", one.base_model.rstrip("/\\"))[-1] for one in sources if one.base_model)
    if len({name.casefold() for name in names}) < 2:
        return []
    shown = ", ".join(printable(name, 60) for name in [*names][:3]) + (", …" if len(names) > 3 else "")
    return [f"the adapters name different base models ({shown}): {so}"]


def related(a: LoraModule, b: LoraModule, norm_a: float, norm_b: float) -> Relation:
    """Return the distance of b from a relative to ‖ΔW_a‖_F, and the cosine between them; the norms are known.

    Both modules are of one shape; their pages are handed back afterwards.
    """
    try:
        return _relation(a, b, norm_a, norm_b)
    finally:
        for module in (a, b):
            module.release()


def _relation(a: LoraModule, b: LoraModule, norm_a: float, norm_b: float) -> Relation:
    if norm_a == 0.0:
        return None, None
    if norm_b == 0.0:
        return 1.0, None
    first = a.A.array(), a.B.array()
    second = b.A.array(), b.B.array()
    if all(np.array_equal(x, y) for x, y in zip(first, second, strict=True)) and a.scaling.value == b.scaling.value:
        return 0.0, 1.0
    # Each factor by itself: the product of the norms could underflow.
    unit_a, unit_b = a.scaling.value / norm_a, b.scaling.value / norm_b
    inner = inner_product(first, second) * unit_a * unit_b
    # ‖b − a‖² = ‖a‖² + ‖b‖² − 2⟨a, b⟩, relative to ‖a‖². All three by one computation, whose rounding cancels where the
    # updates are nearly the same; good to some 1e-8, far below what matters here.
    own_a = inner_product(first, first) * unit_a * unit_a
    own_b = inner_product(second, second) * unit_b * unit_b
    ratio = norm_b / norm_a
    distance = math.sqrt(max(0.0, own_a + ratio**2 * own_b - 2 * ratio * inner))
    return distance, max(-1.0, min(1.0, inner))
