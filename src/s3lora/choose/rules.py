"""Selection rules: how many, or which, of the ranked units are chosen.

A rule is a frozen dataclass with `choose`, which gets the units sharpest first and returns the positions that it takes.
To add one, write a class and `add` its `RuleKind`: every command, policy and page then has it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from s3lora.arguments import check_fields
from s3lora.choose.null import null_sharpness
from s3lora.choose.ranking import Context, RuleVerdict, Unit
from s3lora.choose.rule import RuleKind, Setting
from s3lora.choose.ties import rounded
from s3lora.errors import SelectionError, UsageError
from s3lora.measure.cost import Estimate, afford, null_cost
from s3lora.spectrum.indices import INDICES


@dataclass(frozen=True, slots=True)
class Top:
    """The `count` sharpest units (τ of arXiv 2508.15068, there 10), but at most `share` of all candidates."""

    count: int = 10
    share: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_fields(self)
        if self.count < 0:
            raise UsageError(f"top {self.count} cannot be meant", fix="give 0 or more")
        if not 0 < self.share <= 1:
            raise UsageError(f"a share of {self.share:g} cannot be meant", fix="give more than 0 and at most 1")

    def choose(self, ranked: Sequence[Unit], context: Context) -> RuleVerdict:
        """Take the leading `count`, capped."""
        cap = len(ranked) if self.share == 1 else max(1, int(self.share * len(ranked)))
        count = min(self.count, cap)
        notes: tuple[str, ...] = ()
        if count < self.count:
            of = "all" if self.share == 1 else f"{self.share:.0%} of"
            notes = (f"top {self.count} is capped at {count}, {of} the {len(ranked)} candidates",)
        return RuleVerdict(tuple(range(count)), f"among the {count} sharpest", notes)

    def __str__(self) -> str:
        """Return e.g. `top 10`."""
        return f"top {self.count}"


#: The paper's setting; on small adapters it stops at half, since pruning everything repairs nothing.
DEFAULT_RULE = Top(10, share=0.5)


@dataclass(frozen=True, slots=True)
class Fraction:
    """The sharpest share of the candidates, rounded to the nearest whole unit; 0 ≤ share ≤ 1."""

    share: float

    def __post_init__(self) -> None:
        """Check the range."""
        check_fields(self)
        if not 0 <= self.share <= 1:
            raise UsageError(f"fraction {self.share} cannot be meant", fix="give a number from 0 to 1")

    def choose(self, ranked: Sequence[Unit], context: Context) -> RuleVerdict:
        """Take the leading share."""
        count = math.floor(self.share * len(ranked) + 0.5)
        return RuleVerdict(tuple(range(count)), f"among the sharpest {self.share:.0%}")

    def __str__(self) -> str:
        """Return e.g. `fraction 0.25`."""
        return f"fraction {self.share:g}"


@dataclass(frozen=True, slots=True)
class Threshold:
    """All units whose index is at least as sharp as `value`."""

    value: float

    def __post_init__(self) -> None:
        """Check that it is a number."""
        check_fields(self)
        if not math.isfinite(self.value):
            raise UsageError("the threshold must be a finite number")

    def choose(self, ranked: Sequence[Unit], context: Context) -> RuleVerdict:
        """Take the units on the sharp side of the threshold."""
        low = context.index is not None and context.index.sharp == "low"
        limit = -self.value if low else self.value
        if context.index is not None:  # rounded, as all that it is compared with
            limit = rounded(limit, scale_free=context.index.scale_free)
        chosen = tuple(i for i, unit in enumerate(ranked) if unit.sharpness >= limit)
        return RuleVerdict(chosen, f"{'at most' if low else 'at least'} {self.value:g}")

    def __str__(self) -> str:
        """Return e.g. `threshold 0.8`."""
        return f"threshold {self.value:g}"


@dataclass(frozen=True, slots=True)
class Outlier:
    """Units whose robust z-score 0.6745·(x − median)/MAD within their kind exceeds `z` on the sharp side."""

    z: float = 3.5
    #: Fewer units of a kind than this have no meaningful spread.
    least: int = 5

    def __post_init__(self) -> None:
        """Check the range."""
        check_fields(self)
        if not (math.isfinite(self.z) and self.z > 0):
            raise UsageError("the z-score of the outlier rule must be above 0")

    def choose(self, ranked: Sequence[Unit], context: Context) -> RuleVerdict:
        """Take the outliers of each kind."""
        kinds: dict[str, list[int]] = defaultdict(list)
        for i, unit in enumerate(ranked):
            kinds[unit.kind].append(i)
        chosen: list[int] = []
        skipped = []
        for kind, members in kinds.items():
            values = np.array([ranked[i].sharpness for i in members])
            deviations = np.abs(values - np.median(values))
            mad = float(np.median(deviations))
            if len(members) < self.least or mad == 0.0:
                skipped.append(kind)
                continue
            scores = 0.6745 * (values - np.median(values)) / mad
            chosen.extend(i for i, score in zip(members, scores, strict=True) if score > self.z)
        notes = (f"too few or too equal to have outliers: {', '.join(skipped)}",) if skipped else ()
        return RuleVerdict(tuple(sorted(chosen)), f"robust z-score above {self.z:g} in its projection", notes)

    def __str__(self) -> str:
        """Return e.g. `outlier 3.5`."""
        return f"outlier {self.z:g}"


@dataclass(frozen=True, slots=True)
class Gap:
    """Everything before the largest drop in the sorted index, looked for in its sharper half."""

    def choose(self, ranked: Sequence[Unit], context: Context) -> RuleVerdict:
        """Take what lies before the largest drop."""
        half = len(ranked) // 2
        if half < 1:
            return RuleVerdict((), "before the largest drop", ("one candidate has no gap",))
        values = [unit.sharpness for unit in ranked]
        drops = [values[i] - values[i + 1] for i in range(half)]
        cut = int(np.argmax(drops)) + 1
        if drops[cut - 1] == 0.0:
            return RuleVerdict((), "before the largest drop", ("the sharper half is all equal, so it has no gap",))
        return RuleVerdict(tuple(range(cut)), f"before the largest drop, {drops[cut - 1]:.3g} wide")

    def __str__(self) -> str:
        """Return `gap`."""
        return "gap"


@dataclass(frozen=True, slots=True)
class Null:
    """Units beyond the q-quantile of the index of random Gaussian updates of the same shapes and rank."""

    q: float = 0.99
    draws: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_fields(self)
        if not 0 < self.q < 1 or not 20 <= self.draws <= 100_000 or self.seed < 0:
            raise UsageError("the null rule needs 0 < q < 1, 20 to 100,000 draws and a seed of 0 or more")
        if (1 - self.q) * self.draws < 1:
            raise UsageError(f"{self.draws} draws cannot show the {self.q:g} quantile", fix="ask for more draws")

    def choose(self, ranked: Sequence[Unit], context: Context) -> RuleVerdict:
        """Simulate each shape once and take the units beyond it."""
        if context.index is None or not context.index.scale_free or context.index.costly:
            judged = [name for name, index in INDICES.items() if index.scale_free and not index.costly]
            name = "a random ranking" if context.index is None else context.index.name
            raise SelectionError(
                f"the null rule cannot judge {name}: random updates have no magnitude to compare with",
                fix=f"use {' or '.join(', '.join(judged).rsplit(', ', 1))}",
            )
        shapes = sorted({shape for unit in ranked for shape in unit.shapes})
        afford(self.cost(shapes), context.max_cost, f"simulating {len(shapes):,} shapes by the null rule")
        limits = {}
        for shape in shapes:
            limits[shape] = null_sharpness(shape, context, self.q, self.draws, self.seed)
            if context.progress is not None:
                context.progress(len(limits), len(shapes))
        # A whole layer is compared with the limits of its modules, combined as its index is.
        combine = np.max if context.combine == "max" else np.mean
        chosen = tuple(
            i
            for i, unit in enumerate(ranked)
            if unit.sharpness > rounded(float(combine([limits[shape] for shape in unit.shapes])), scale_free=True)
        )
        return RuleVerdict(chosen, f"beyond the {self.q:g} quantile of {self.draws} random updates of its shape")

    def cost(self, shapes: Collection[tuple[int, int, int]]) -> Estimate:
        """Return what it costs to simulate these shapes (m, n, rank)."""
        return null_cost(shapes, self.draws)

    def __str__(self) -> str:
        """Return e.g. `null 0.99`."""
        return f"null {self.q:g}"


#: The first word of a rule as text → its kind, in the order in which they are shown.
RULES: dict[str, RuleKind] = {}


def add(kind: RuleKind) -> None:
    """Put a kind of rule into `RULES`; raise ValueError if its name, or that of a setting, is taken."""
    taken = {*RULES, *(setting.name for one in RULES.values() for setting in one.settings)}
    for name in {kind.name, *(setting.name for setting in kind.settings)}:
        if name in taken:
            raise ValueError(f"{name} is taken by a rule already")
    RULES[kind.name] = kind


add(
    RuleKind(
        name="top",
        make=lambda top: Top(top),
        settings=(
            Setting(
                name="top", type=int, metavar="N", least=0, help="Choose the N sharpest  [default: 10, at most half]."
            ),
        ),
        asked_by_option=True,
        leading=True,
        page="the τ sharpest",
    )
)
add(
    RuleKind(
        name="fraction",
        make=lambda fraction: Fraction(fraction),
        settings=(
            Setting(
                name="fraction", type=float, metavar="F", least=0, most=1, help="Choose this share of the modules."
            ),
        ),
        asked_by_option=True,
        leading=True,
        page="a share of all",
    )
)
add(
    RuleKind(
        name="threshold",
        make=lambda threshold: Threshold(threshold),
        settings=(Setting(name="threshold", type=float, metavar="X", help="Choose modules at least as sharp as X."),),
        asked_by_option=True,
        leading=True,
        page="at least as sharp as",
    )
)
add(
    RuleKind(
        name="outlier",
        make=lambda z: Outlier(z),
        settings=(
            Setting(
                name="z",
                type=float,
                metavar="Z",
                default=3.5,
                help="Robust z-score of --rule outlier, and of --fail-on outliers.",
            ),
        ),
        page="outliers of their projection",
    )
)
add(RuleKind(name="gap", make=Gap, leading=True, page="before the largest drop"))
add(
    RuleKind(
        name="null",
        make=lambda quantile, draws, seed: Null(quantile, draws, seed),
        settings=(
            Setting(name="quantile", type=float, metavar="Q", default=0.99, help="Quantile of --rule null."),
            Setting(name="draws", type=int, metavar="N", default=200, help="Random updates of --rule null."),
        ),
        shared=("seed",),
    )
)
