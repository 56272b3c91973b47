"""What alignment changed, V = W_aligned − W_unaligned of one module: as an operator, and its leading directions.

V is never formed: both weights stay in the dtype that they are stored in, and are subtracted in float64 a block of rows
at a time.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from s3lora.adapter.model import LoraModule
from s3lora.base.weights import BaseWeights
from s3lora.errors import NonFiniteError, UsageError
from s3lora.evaluate.bench import Advance
from s3lora.spectrum.tall import Float
from s3lora.wording import worded

#: Numbers of V in memory at a time: 16 MB in float64.
NUMBERS = 1 << 21
#: Bytes of the two stored weights of a module that are kept while it is looked at; longer ones are read again.
KEPT = 512 * 1024 * 1024
#: More columns than are wanted in a random sketch, and how often it is brought closer to the leading directions.
OVERSAMPLING, POWER = 10, 3


class Leading(NamedTuple):
    """The k leading directions of V: P (m, k) and Q (n, k), orthonormal, and singular values τ (k,), descending."""

    P: Float
    Q: Float
    tau: Float


@dataclass(frozen=True)
class AlignmentChange:
    """V of one module, from the two weights (m, n) in any dtype, whose rows are read when they are asked for.

    >>> v = AlignmentChange(np.diag([3.0, 0.0]), np.diag([0.0, 4.0]))
    >>> v.norm, v.times(np.ones((2, 1))).ravel().tolist()
    (5.0, [3.0, -4.0])
    """

    aligned: Any
    unaligned: Any
    norm: float = field(init=False)

    def __post_init__(self) -> None:
        """Take ‖V‖_F."""
        with np.errstate(invalid="ignore", over="ignore"):
            squares = sum(float(np.vdot(block, block)) for _, block in self.blocks())
        object.__setattr__(self, "norm", squares**0.5)

    @property
    def shape(self) -> tuple[int, int]:
        """Return (m, n)."""
        return int(self.aligned.shape[0]), int(self.aligned.shape[1])

    def blocks(self) -> Iterator[tuple[slice, Float]]:
        """Yield which rows, and V there."""
        m, n = self.shape
        step = max(1, NUMBERS // max(1, n))
        for start in range(0, m, step):
            rows = slice(start, min(start + step, m))
            with np.errstate(invalid="ignore"):  # a signalling NaN, which the norm tells
                yield rows, self.aligned[rows].astype(np.float64) - self.unaligned[rows].astype(np.float64)

    def times(self, right: Float) -> Float:
        """Return V·X for X (n, k): (m, k)."""
        made = np.empty((self.shape[0], right.shape[1]))
        for rows, block in self.blocks():
            made[rows] = block @ right
        return made

    def transposed_times(self, left: Float) -> Float:
        """Return Vᵀ·Y for Y (m, k): (n, k)."""
        made = np.zeros((self.shape[1], left.shape[1]))
        for rows, block in self.blocks():
            made += block.T @ left[rows]
        return made

    def projected(self, left: Float) -> Float:
        """Return C·Y for Y (m, k), with C = V·Vᵀ/‖V‖_F of Safe LoRA (arXiv 2405.16833, equation 1): no projector."""
        return self.times(self.transposed_times(left)) / self.norm

    def leading(self, size: int, seed: Sequence[int]) -> Leading:
        """Return the leading directions by a random sketch (Halko et al. 2011, arXiv 0909.4061, algorithm 4.4).

        Parameters:
            size: k; of more than V has, all. Of half of what V has or more, they are exact.
            seed: of the sketch.
        """
        m, n = self.shape
        columns = size + OVERSAMPLING
        if 2 * columns > min(m, n):  # then the whole costs hardly more than a sketch of it
            columns = min(m, n)
        sketch = np.random.default_rng(list(seed)).standard_normal((n, columns))
        basis = np.linalg.qr(self.times(sketch))[0]  # (m, columns)
        for _ in range(POWER):
            basis = np.linalg.qr(self.times(np.linalg.qr(self.transposed_times(basis))[0]))[0]
        right, tau, left = np.linalg.svd(self.transposed_times(basis), full_matrices=False)
        return Leading((basis @ left.T)[:, :size], right[:, :size], tau[:size])


def changes(
    base: str | None, unaligned: str | None, modules: Sequence[LoraModule], advance: Advance
) -> Iterator[tuple[LoraModule, AlignmentChange]]:
    """Yield what alignment changed in each module, one at a time, but for modules in which it changed nothing.

    Parameters:
        base: the model folder of the aligned base.
        unaligned: that of the weights before alignment.
        modules: whose weights are read.
        advance: is told how far it is.

    Raises UsageError where one of them was not given or alignment changed no module, ModelError,
    UnsupportedAdapterError and AdapterFileError as `BaseWeights` does, NonFiniteError for weights that are not finite.
    """
    if not base or not unaligned:
        fix = worded("give the folder of the base and, by {unaligned}, that of the weights before alignment")
        raise UsageError("this method compares the base with its weights before alignment", fix=fix)
    any_change = False
    with BaseWeights(base) as after, BaseWeights(unaligned) as before:
        for i, module in enumerate(modules):
            advance(i / len(modules), "comparing weights")
            change = AlignmentChange(*_held(after.matrix(module), before.matrix(module)))
            if not np.isfinite(change.norm):
                shape = change.shape
                raise NonFiniteError("its weights hold NaN or infinity", file=base, module=module.path, shape=shape)
            if change.norm > 0:
                any_change = True
                yield module, change
    if not any_change:
        raise UsageError(
            f"{base} and {unaligned} have the same weights in all modules of the adapter",
            fix="give the weights before alignment, as the pretrained model that the base was made from",
        )


def _held(*weights: Any) -> tuple[Any, ...]:
    """Return the weights in memory, unless they are too long for that."""
    if sum(weight.dtype.itemsize * weight.shape[0] * weight.shape[1] for weight in weights) > KEPT:
        return weights
    return tuple(np.asarray(weight) for weight in weights)


def seed_of(seed: int, path: str) -> tuple[int, int]:
    """Return a seed of one module, which does not depend on what other modules there are."""
    return seed, zlib.crc32(path.encode("utf-8", "surrogatepass"))


__all__ = ["AlignmentChange", "Leading", "changes", "seed_of"]
