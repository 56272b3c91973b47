"""Which modules and singular directions carry what was lost and what was learned: a path integral of the gradient.

With a gate g_k on every direction, ΔW(g) = Σ_k g_k·σ_k·u_k·v_kᵀ, and along the straight path from the base (all 0) to
the adapter (all 1) the attributions a_k = ∫ ∂L/∂g_k dt add up to L(adapter) − L(base) (integrated gradients,
Sundararajan et al. 2017, arXiv 1703.01365). The integral is a sum over the points of Gauss
and Legendre; how well it adds up is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from s3lora.adapter.model import LoraModule
from s3lora.evaluate.bench import Advance
from s3lora.repair.live import LiveAdapter
from s3lora.repair.losses import Term, gradients, values_of
from s3lora.repair.results import Attribution, Completeness, ModuleAttribution

#: Points of the path to begin with, and the most of them.
POINTS, MOST_POINTS = 2, 48
#: The error that is good enough, as a share of the difference, which counts for at least `LEAST` nats.
ENOUGH, LEAST = 0.2, 0.05


@dataclass(frozen=True)
class PathIntegral:
    """What each direction contributes to the difference of a loss, by the path of its module, in nats a token."""

    parts: Mapping[str, NDArray[np.float64]]
    completeness: Completeness


def integrate(
    live: LiveAdapter,
    term: Term,
    of: Literal["lost", "learned"],
    *,
    points: int = POINTS,
    most: int = MOST_POINTS,
    advance: Advance | None = None,
) -> PathIntegral:
    """Return the attributions of a loss; points double until they add up, or there are `most` of them."""
    ends = []
    for value in (1.0, 0.0):
        live.set_gates(value)
        ends += values_of(live.model, [term])
    difference = ends[0] - ends[1]
    leaves = list(live.gates.values())
    while True:
        sums = [np.zeros(len(leaf)) for leaf in leaves]
        for i, (place, weight) in enumerate(zip(*np.polynomial.legendre.leggauss(points), strict=True)):
            live.set_gates((1 + place) / 2)  # the rule is for the interval from -1 to 1
            found = gradients(live.model, [term], leaves)[1]
            sums = [known + new.cpu().numpy() * weight / 2 for known, new in zip(sums, found, strict=True)]
            if advance is not None:
                advance((i + 1) / points, f"attributing what was {of}, {points} points")
        total = float(sum(one.sum() for one in sums))
        error = abs(total - difference) / max(abs(difference), LEAST)
        if error < ENOUGH or 2 * points > most:
            break
        points *= 2
    live.set_gates(1.0)
    told = Completeness(of=of, difference=difference, attributed=total, points=points, error=error)
    return PathIntegral(dict(zip(live.gates, sums, strict=True)), told)


def attribution_of(
    modules: Sequence[LoraModule],
    lost: PathIntegral,
    learned: PathIntegral,
    gates: Mapping[str, Sequence[float]] | None = None,
) -> Attribution:
    """Return both as shares of the whole, with the gates that a repair has put there."""
    shares = {path: _share(lost, path) for path in lost.parts}, {path: _share(learned, path) for path in learned.parts}
    found = tuple(
        ModuleAttribution(
            path=module.path,
            layer=module.layer,
            projection=module.projection,
            lost=float(shares[0][module.path].sum()),
            learned=float(shares[1][module.path].sum()),
            lost_by_direction=tuple(map(float, shares[0][module.path])),
            learned_by_direction=tuple(map(float, shares[1][module.path])),
            gates=tuple((gates or {}).get(module.path, ())),
        )
        for module in modules
    )
    return Attribution(modules=found, completeness=(lost.completeness, learned.completeness))


def _share(integral: PathIntegral, path: str) -> NDArray[np.float64]:
    whole = integral.completeness.attributed
    return integral.parts[path] / whole if whole else np.zeros_like(integral.parts[path])
