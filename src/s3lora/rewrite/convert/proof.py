"""Whether a written adapter holds the same updates: the largest relative difference, from factors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.tensor import Tensor
from s3lora.base.updates import magnitudes_of
from s3lora.errors import OutputError
from s3lora.measure.measuring import nonfinite_error
from s3lora.spectrum.nearest import distance

#: Rounding A and B once each changes an update by some two units of its dtype, relative to ‖B‖·‖A‖; an update that
#: is smaller than the product of its factors' norms, by cancellation, changes by more. Beyond this, a layout is wrong.
MOST = 0.2


@dataclass(frozen=True, slots=True)
class UpdateDifference:
    """The largest ‖ΔW′ − ΔW‖_F / ‖ΔW‖_F over modules, and which module has it; None where all are equal."""

    value: float = 0.0
    module: str | None = None


def difference_of(module: LoraModule, written: LoraModule) -> float:
    """Return ‖ΔW′ − ΔW‖_F / ‖ΔW‖_F of one module, and ‖ΔW′‖_F where ΔW is zero.

    By the difference itself, so that nothing cancels but what is equal.
    """
    a, b = module.A.array(), module.B.array()
    c, d = written.A.array(), written.B.array()
    r = module.rank
    same = module.scaling.value == written.scaling.value and np.array_equal(a, c[:r]) and np.array_equal(b, d[:, :r])
    if same and not (c[r:].any() and d[:, r:].any()):  # what was added to the rank is zero
        return 0.0
    before = a, module.scaling.value * b.astype(np.float64)  # (r, n), (m, r)
    after = c, written.scaling.value * d.astype(np.float64)  # (r′, n), (m, r′)
    size, change = distance(before, (a[:0], b[:, :0])), distance(before, after)
    return change / size if size else change


def proven(adapter: Adapter, written: Adapter, paths: Mapping[str, str]) -> UpdateDifference:
    """Return the largest difference of all updates, read from both files.

    Raises OutputError where a module is missing, is another shape, or differs by more than any rounding, and
    NonFiniteError where the source holds NaN or infinity, of which nothing can be proved.
    """
    found = {module.path: module for module in written.modules}
    for extra in sorted(found.keys() - set(paths.values())):
        if found[extra].B.array().any():  # zeros stand for experts without an update
            raise OutputError("did not verify: it holds a module that it should not", module=extra)
    worst = UpdateDifference()
    before, after = magnitudes_of(adapter), magnitudes_of(written)
    for module in adapter.modules:
        path = paths[module.path]
        if path not in found:
            raise OutputError("did not verify: the module is not found in what was written", module=path)
        other = found[path]
        if (module.m, module.n) != (other.m, other.n):
            raise OutputError("did not verify: its shape changed", module=path, shape=(other.m, other.n))
        if not all(np.isfinite(part.array()).all() for part in module.parts):
            raise nonfinite_error(module, adapter.name)
        difference = max(_difference(module, other), _of_lengths(before.get(module.path), after.get(path)))
        if not difference <= MOST:
            raise OutputError(f"did not verify: its update differs by {difference:.2g}", module=path)
        if difference > worst.value:
            worst = UpdateDifference(difference, module.path)
    return worst


def _of_lengths(one: Tensor | None, two: Tensor | None) -> float:
    """Return the relative difference of the magnitudes of DoRA, infinity where only one of both has them."""
    if one is None or two is None:
        return 0.0 if one is two else math.inf
    first, second = (tensor.array().astype(np.float64).ravel() for tensor in (one, two))
    if first.shape != second.shape:
        return math.inf
    size, change = float(np.linalg.norm(first)), float(np.linalg.norm(first - second))
    return change / size if size else change


def _difference(module: LoraModule, other: LoraModule) -> float:
    if module.form == "LoRA" and other.form == "LoRA":
        return difference_of(module, other)
    if module.form in ("AdaLoRA", "QALoRA"):
        return difference_of(module, other)
    parts = [part.array() for part in module.parts], [part.array() for part in other.parts]
    same = all(np.array_equal(one, two) for one, two in zip(*parts, strict=True))
    before, after = module.scaling.value, other.scaling.value
    return abs(after - before) / abs(before) if same else math.inf
