"""SPLoRA (Ao et al. 2025, arXiv 2506.18931) as published: pruning the modules that C of Safe LoRA moves furthest.

With d = ‖C·ΔW − ΔW‖_F, E-DIEM = (d − E d) / sd(d), where E d and sd(d) are those of other updates of the same size:
here of 50 with the singular values of ΔW and random directions, so that modules of different shapes and sizes can be
compared. The k modules of the highest E-DIEM are removed.

The released code does something else, which is not offered. Its 50 samples are copies of the module itself, so that
sd = 0 and E d = d: what is left of the score is rounding and a difference of quartiles. And where it chooses by number
it keeps k − 1 modules of N instead of removing k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from s3lora.adapter.model import LoraModule
from s3lora.evaluate.bench import Advance
from s3lora.repair.alignment import AlignmentChange, changes, seed_of
from s3lora.repair.canonical import Directions, canonical
from s3lora.repair.methods.method import Need, RepairSubject
from s3lora.repair.modules import repairable
from s3lora.rewrite.factors import NO_FACTORS, NewFactors, rounded
from s3lora.spectrum.tall import Float

SAMPLES = 50
#: Columns of samples in memory at a time.
COLUMNS = 512
#: Shares of the modules that are removed.
SHARES = (0.25, 0.5)
#: A spread below this share of E d is rounding: then C treats all directions alike, and no module stands out.
NO_SPREAD = 1e-9


@dataclass(frozen=True)
class SPLoraLearned:
    """The modules that are removed, the one of the highest score first."""

    modules: Sequence[LoraModule]
    notes: Sequence[str]
    gates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def at(self, strength: float) -> NewFactors:
        """Return (1 − t)·B beside the A of the file: nothing is left at strength 1, and nothing changes at 0."""
        if not strength:
            return NO_FACTORS
        rest = 1 - strength
        return NewFactors(
            {m.path: rounded(m, m.A.array(), rest * m.B.array().astype(np.float64), rest) for m in self.modules}
        )


@dataclass(frozen=True)
class SPLoraMethod:
    """SPLoRA; its settings are `share`, of the modules in (0, 1], or `count`, how many are removed."""

    name: str = "splora"
    about: str = "SPLoRA as published: removes the modules that V·Vᵀ/‖V‖ moves furthest (the released code does not)"
    needs: frozenset[Need] = frozenset(("unaligned",))
    settings: Sequence[Mapping[str, Any]] = tuple({"share": share} for share in SHARES)

    def learn(self, subject: RepairSubject, settings: Mapping[str, Any], advance: Advance) -> SPLoraLearned:
        """Choose the modules; raises what `changes` raises."""
        scores = []
        for module, change in changes(subject.base, subject.unaligned, repairable(subject.adapter), advance):
            directions = canonical(module)
            if directions.sigma.any():
                scores.append((e_diem(directions, change, seed_of(subject.seed, module.path)), module))
        scores.sort(key=lambda item: -item[0])
        count = settings.get("count", max(1, round(settings.get("share", SHARES[0]) * len(scores))))
        chosen = tuple(module for _, module in scores[:count])
        note = f"SPLoRA removes {len(chosen)} of {len(scores)} modules; each is compared with {SAMPLES} random updates"
        return SPLoraLearned(chosen, (note,))


def e_diem(directions: Directions, change: AlignmentChange, seed: Sequence[int], samples: int = SAMPLES) -> float:
    """Return (d − E d)/sd(d) of an update, 0 where the samples do not differ."""
    u, sigma, _ = directions
    rng = np.random.default_rng(list(seed))
    at_once = max(1, COLUMNS // len(sigma))
    own = _distances(change, [u * sigma])[0]
    others: list[float] = []
    while len(others) < samples:
        count = min(at_once, samples - len(others))
        drawn = [np.linalg.qr(rng.standard_normal(u.shape))[0] * sigma for _ in range(count)]
        others += _distances(change, drawn)
    mean, spread = float(np.mean(others)), float(np.std(others, ddof=1))
    return (own - mean) / spread if spread > NO_SPREAD * mean else 0.0


def _distances(change: AlignmentChange, updates: Sequence[Float]) -> list[float]:
    """Return ‖C·ΔW − ΔW‖ of updates given as U·Σ (m, q): the directions on the right do not matter."""
    together = np.hstack(updates)
    squares = np.sum((change.projected(together) - together) ** 2, axis=0)
    return [float(one) for one in np.sqrt(squares.reshape(len(updates), -1).sum(axis=1))]


SPLORA = SPLoraMethod()

__all__ = ["SPLORA", "SPLoraMethod", "e_diem"]
