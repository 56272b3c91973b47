"""Damping what leaves the subspace of alignment, and the control that does the same with a random subspace.

After CSULoRA (arXiv 2605.30640): the nearest update under a penalty on what leaves the subspace. P (m, k) and Q (n, k)
are the leading left and right directions of V = W_aligned − W_unaligned. They cut an update into orthogonal parts

    inside   PPᵀ·ΔW·QQᵀ
    half     PPᵀ·ΔW·(1 − QQᵀ) + (1 − PPᵀ)·ΔW·QQᵀ
    outside  (1 − PPᵀ)·ΔW·(1 − QQᵀ)

with energies e_c = ‖part c‖² / ‖ΔW‖² that add up to 1. Minimising ‖X − ΔW‖² + κ·Σ_c e_c·‖X_c‖², with c half and
outside, gives

    ΔW′ = inside + half / (1 + κ·e_half) + outside / (1 + κ·e_outside)

so what lies inside stays as it is. With k = m = n all is inside and ΔW′ = ΔW, whatever κ is; with κ = 0 it is ΔW in any
subspace. At strength t, 1 − t·(1 − 1 / (1 + κ·e_c)) stands for 1 / (1 + κ·e_c), so ΔW(t) = ΔW − t·(ΔW − ΔW′).
The rank is at most 2r, for U splits into two parts and V into two: it is for the writer to say what becomes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from s3lora.adapter.model import LoraModule
from s3lora.evaluate.bench import Advance
from s3lora.repair.alignment import AlignmentChange, Leading, changes, seed_of
from s3lora.repair.canonical import Directions, canonical, directions_of, factors_of
from s3lora.repair.methods.method import Need, RepairSubject
from s3lora.repair.modules import repairable
from s3lora.rewrite.factors import NO_FACTORS, NewFactor, NewFactors, rounded
from s3lora.spectrum.tall import Float

#: κ: a part that holds all of an update is damped to a tenth, one with a tenth of it to a half. A finer choice is left
#: to the strength.
KAPPA = 9.0
#: The subspace holds this share of ‖V‖². V has no gap in its spectrum that would tell where alignment ends, so half of
#: it is a convention, which does at least not depend on the size of a model.
ENERGY = 0.5
#: The most directions of a subspace that is chosen by energy, and how many are tried first.
MOST, FIRST = 256, 32
#: Singular values below this share of the largest are rounding.
ROUNDING = 1e-12


class SubspaceEnergies(NamedTuple):
    """Shares of ‖ΔW‖² inside, half inside and outside of a subspace, in [0, 1]; they add up to 1."""

    inside: float
    half: float
    outside: float


@dataclass(frozen=True)
class SubspaceParts:
    """One module's update beside the subspace: U = U_in + U_out and V = V_in + V_out, the `in` parts within it."""

    module: LoraModule
    directions: Directions
    left: Float  # U_in (m, q)
    right: Float  # V_inᵀ (q, n)
    energies: SubspaceEnergies

    def at(self, half: float, outside: float) -> NewFactor:
        """Return inside + half·(the half inside) + outside·(the outside)."""
        u, sigma, vt = self.directions
        root = np.sqrt(sigma)
        beside = vt - self.right
        b = np.hstack([self.left * root, (u - self.left) * root])  # (m, 2q)
        a = np.vstack(
            [root[:, None] * (self.right + half * beside), root[:, None] * (half * self.right + outside * beside)]
        )
        found = directions_of(a, b, 1.0)
        rank = int(np.sum(found.sigma > ROUNDING * sigma[0]))
        kept = Directions(found.U[:, :rank], found.sigma[:rank], found.Vt[:rank])
        return rounded(self.module, *factors_of(kept, self.module.scaling.value, rank=max(rank, self.module.rank)))


@dataclass(frozen=True)
class SubspaceLearned:
    """The parts of each module, and what is done to them."""

    parts: Sequence[SubspaceParts]
    kappa: float
    notes: Sequence[str]
    gates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def at(self, strength: float) -> NewFactors:
        """Return the new factors, of rank 2r at most; none at strength 0."""
        if not strength:
            return NO_FACTORS

        def left(energy: float) -> float:
            return 1 - strength * (1 - 1 / (1 + self.kappa * energy))

        return NewFactors(
            {one.module.path: one.at(left(one.energies.half), left(one.energies.outside)) for one in self.parts}
        )


@dataclass(frozen=True)
class SubspaceMethod:
    """Damps what leaves the subspace of alignment or, as a control, a random subspace of the same size.

    Its settings are `kappa`, κ ≥ 0, and `size`, k ≥ 1, or else `energy` in (0, 1], the share of ‖V‖² that the subspace
    holds, with at most `MOST` directions.
    """

    random: bool = False

    @property
    def name(self) -> str:
        """Return the name that users give."""
        return "random-subspace" if self.random else "subspace"

    @property
    def about(self) -> str:
        """Return in one line what it does."""
        what = "a random subspace, the control of subspace" if self.random else "the subspace of alignment (CSULoRA)"
        return f"damps what of each update leaves {what}; raises the rank up to twofold"

    @property
    def needs(self) -> frozenset[Need]:
        """Return what it needs besides the adapter."""
        return frozenset(("unaligned",))

    @property
    def settings(self) -> Sequence[Mapping[str, Any]]:
        """Return the settings that a search tries."""
        return ({"kappa": KAPPA, "energy": ENERGY},)

    def learn(self, subject: RepairSubject, settings: Mapping[str, Any], advance: Advance) -> SubspaceLearned:
        """Cut each update by its subspace; raises what `changes` raises. Settings that are not given are the first."""
        parts, short, sizes = [], 0, []
        for module, change in changes(subject.base, subject.unaligned, repairable(subject.adapter), advance):
            directions = canonical(module)
            if not directions.sigma.any():
                continue
            seed = seed_of(subject.seed, module.path)
            subspace = _subspace(change, settings, seed)
            size = len(subspace.tau)
            short += "size" not in settings and not _holds(subspace, change, settings)
            sizes.append(size)
            if self.random:
                rng = np.random.default_rng([*seed, 1])
                p, q = (np.linalg.qr(rng.standard_normal((side, size)))[0] for side in change.shape)
                subspace = Leading(p, q, subspace.tau)
            parts.append(cut(module, directions, subspace))
        notes = (
            []
            if not parts
            else [_energies(parts, sizes, "random subspaces" if self.random else "the subspace of alignment")]
        )
        if short:
            share = settings.get("energy", ENERGY)
            notes.append(f"in {short} modules {MOST} directions hold less than {share:.0%} of what alignment changed")
        return SubspaceLearned(tuple(parts), float(settings.get("kappa", KAPPA)), tuple(notes))


def cut(module: LoraModule, directions: Directions, subspace: Leading) -> SubspaceParts:
    """Return the parts of an update, which must not be zero, and their energies."""
    u, sigma, vt = directions
    left, right = subspace.P.T @ u, vt @ subspace.Q  # (k, q), (q, k)
    squares = sigma**2
    whole = float(squares.sum())
    # In units of ‖ΔW‖²: what is inside on the left, on the right, and on both sides.
    on_left = float((left**2 @ squares).sum()) / whole
    on_right = float((squares @ right**2).sum()) / whole
    inside = float(np.sum(((left * sigma) @ right) ** 2)) / whole
    half = max(0.0, on_left + on_right - 2 * inside)
    energies = SubspaceEnergies(inside, half, max(0.0, 1 - on_left - on_right + inside))
    return SubspaceParts(module, directions, subspace.P @ left, right @ subspace.Q.T, energies)


def _subspace(change: AlignmentChange, settings: Mapping[str, Any], seed: Sequence[int]) -> Leading:
    if "size" in settings:
        return change.leading(int(settings["size"]), seed)
    size, most = FIRST, min(MOST, *change.shape)
    while True:
        found = change.leading(min(size, most), seed)
        if _holds(found, change, settings) or size >= most:
            share = np.cumsum(found.tau**2) / change.norm**2
            k = 1 + int(np.searchsorted(share, settings.get("energy", ENERGY) - ROUNDING))
            return Leading(found.P[:, :k], found.Q[:, :k], found.tau[:k])
        size *= 2


def _holds(subspace: Leading, change: AlignmentChange, settings: Mapping[str, Any]) -> bool:
    share = float(np.sum(subspace.tau**2)) / change.norm**2
    return share >= float(settings.get("energy", ENERGY)) - ROUNDING


def _energies(parts: Sequence[SubspaceParts], sizes: Sequence[int], what: str) -> str:
    inside, half, outside = np.median([one.energies for one in parts], axis=0)
    return (
        f"of an update {inside:.1%} lies inside, {half:.1%} half inside and {outside:.1%} outside of {what} of "
        f"{int(np.median(sizes))} directions (medians over {len(parts)} modules)"
    )


#: The method and its control, which is to stand beside it in every table.
SUBSPACE, RANDOM_SUBSPACE = SubspaceMethod(), SubspaceMethod(random=True)

__all__ = ["RANDOM_SUBSPACE", "SUBSPACE", "SubspaceEnergies", "SubspaceMethod", "cut"]
