"""What a repair found and did, as plain data: what `s3lora repair --format json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from s3lora.adapter.digest import Source
from s3lora.errors import printable
from s3lora.evaluate.results import Data, Key, LearnedShare, Metric, PairedComparison, Setup, SuiteInfo, Variant
from s3lora.measure.scan import SCHEMA_VERSION, Tool

#: What the part of the data that nothing was chosen on says of one constraint.
ConstraintVerdict = Literal["confirmed", "not refuted", "refuted"]
ConstraintName = Literal["refusals", "usefulness", "over-refusal", "degenerate"]
CardQuestion = Literal[
    "paired uncertainty", "fresh content", "more than shrinking", "transfer to a second task", "over-refusal"
]
#: `repaired`: a repair was found, and no constraint is refuted. `refuted`: one was found, and the test part refutes a
#: constraint. `nothing`: no method and strength kept to the constraints, or gained anything.
RepairOutcome = Literal["repaired", "refuted", "nothing"]
PartName = Literal["learning", "tuning", "test"]


@dataclass(frozen=True, slots=True)
class RepairLimits:
    """What a repair may cost.

    `utility_loss`: the largest share of what was learned, in (0, 1). `over_refusal`: how far the rate of refused
    harmless prompts may rise above the base's. `degenerate`: how far that of degenerate answers may rise above the
    adapter's.
    """

    utility_loss: float = 0.10
    over_refusal: float = 0.05
    degenerate: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairTrial:
    """One method at one strength, measured on the tuning part.

    `kept` tells whether the point estimates keep to all limits; `reason` says which one they break. Where the loss
    of usefulness alone broke a limit, the answers were not asked for, and `asr` is None.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    strength: float
    asr: float | None
    over_refusal: float | None
    degenerate: float | None
    utility_loss: float | None
    n: int
    kept: bool
    reason: str = ""
    #: Over the norm of the update as it was: ‖ΔW′‖ / ‖ΔW‖, and cos(ΔW′, ΔW), over all modules together.
    norm_ratio: float | None = None
    cosine: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What the test part says of one constraint.

    `value` is the estimate with its 95 % interval `low`–`high`, in the unit of `limit`: a difference to the base or the
    adapter, or a share of what was learned. `needed` is how many items would confirm it if the estimate were the truth;
    None where it would not.
    """

    name: ConstraintName
    limit: float
    value: float | None
    low: float | None
    high: float | None
    n: int
    verdict: ConstraintVerdict
    needed: int | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleAttribution:
    """What one module, and each of its singular directions, has to do with what was lost and what was learned.

    `lost` and `learned` are shares of the whole adapter's; they may be negative, and sum to 1 over all modules. The
    lists have a value a direction, by descending singular value. `gates` are what the repair multiplies each singular
    value by, empty where the method has none.
    """

    path: str
    layer: int | None
    projection: str
    lost: float
    learned: float
    lost_by_direction: tuple[float, ...] = ()
    learned_by_direction: tuple[float, ...] = ()
    gates: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """How well attributions add up to what they explain, along the path from the base to the adapter.

    `difference` is L(adapter) − L(base) in nats a token, `attributed` the sum of the attributions, `points` how many
    points of the path they are a weighted mean of. `error` is |attributed − difference| / max(|difference|, 0.05).
    """

    of: Literal["lost", "learned"]
    difference: float
    attributed: float
    points: int
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Which modules and directions carry what was lost and what was learned (path integral of the gradient)."""

    modules: tuple[ModuleAttribution, ...]
    completeness: tuple[Completeness, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardAnswer:
    """One question of the acceptance card, and what was measured; `asked` is False where nothing was."""

    question: CardQuestion
    asked: bool
    passed: bool | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPartInfo:
    """The data of one part: what was learned from, tuned on, or tested on."""

    part: PartName
    data: tuple[Data, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Repair:
    """What `s3lora repair` found: the method and strength that were chosen, what they did, and what they cost.

    `base`, `adapter` and `repaired` are measured on the test part. Where nothing was chosen, `repaired` is None, and
    the others are `measured_on` the tuning part. `shrunk` is the adapter times a factor that costs as much.
    `tuning_asr` is the ASR of `base` and `adapter` on the tuning part, where trials were measured.
    `constraints` are verdicts of the test part. `best` is the best trade that was seen where nothing qualified.
    `written` tells whether a folder was written.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    setup: Setup
    source: Source
    outcome: RepairOutcome
    sentence: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    strength: float
    limits: RepairLimits
    safety: Key
    utility: Key | None
    suites: tuple[SuiteInfo, ...]
    parts: tuple[RepairPartInfo, ...]
    trials: tuple[RepairTrial, ...]
    best: RepairTrial | None = None
    tuning_asr: Mapping[str, float] = field(default_factory=dict)
    base: Variant
    adapter: Variant
    repaired: Variant | None
    shrunk: Variant | None = None
    measured_on: PartName = "test"
    comparisons: tuple[PairedComparison, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    attribution: Attribution | None = None
    card: tuple[CardAnswer, ...] = ()
    rank_before: int = 0
    rank_after: int = 0
    lost_energy: float | None = None
    written: bool = False
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return how it ended, and by which method at which strength."""
        name = printable(self.source.name, 60)
        return f"<Repair of {name}: {self.outcome}, {self.method} at strength {self.strength:g}>"


__all__ = [
    "Attribution",
    "CardAnswer",
    "CardQuestion",
    "Completeness",
    "Constraint",
    "ConstraintName",
    "ConstraintVerdict",
    "LearnedShare",
    "Metric",
    "ModuleAttribution",
    "Repair",
    "RepairLimits",
    "RepairOutcome",
    "RepairPartInfo",
    "RepairTrial",
]
