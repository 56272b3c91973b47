"""What an evaluation, a sweep and a tuning return: plain data, no model, no torch.

A `MeasureColumn` holds one number an item (a prompt, a task) for one measure; a `Metric` is its mean with an interval,
and a `PairedComparison` the paired difference to another variant on the same items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from s3lora.adapter.digest import Source
from s3lora.choose.select import Share
from s3lora.evaluate.judges.measured import JudgeCounts
from s3lora.measure.scan import Tool

SCHEMA_VERSION = 1

#: (suite, measure).
Key = tuple[str, str]
Better = Literal["lower", "higher", "neither"]
#: What a comparison says of a variant beside its reference.
Difference = Literal["no difference", "lower", "higher", "unknown"]


@dataclass(frozen=True, slots=True)
class Measure:
    """What is measured: `rate` is a share of items (0 or 1 each), `mean` an average of real numbers.

    `about` says in a few words what it is and who judges; `utility` marks the one that stands for usefulness in its
    suite, `safety` the one that stands for safety. `errors` is how often the judge of a rate erred on models whose
    answers people labelled, where that was measured; `judged` is what the rate is a share of.
    """

    name: str
    kind: Literal["rate", "mean"]
    better: Better
    about: str
    unit: str = ""
    role: Literal["safety", "utility", "other"] = "other"
    errors: tuple[JudgeCounts, ...] = ()
    judged: Literal["", "answers", "refusals"] = ""


@dataclass(frozen=True, slots=True)
class MeasureColumn:
    """One number an item, None where the measure does not apply (an unparsable verdict); weights default to 1.

    `unknown` of the items without a number are so because nobody knows the answer: see `chat.Generation`.
    `clusters` names what each item belongs to, such as the behaviour of which it is a case, where items share one.
    """

    values: tuple[float | None, ...]
    weights: tuple[float, ...] | None = None
    clusters: tuple[str, ...] | None = None
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Data:
    """The prompts or tasks of a suite: name, licence and number, and a digest of them."""

    name: str
    n: int
    sha256: str
    built_in: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class SuiteOutcome:
    """What a suite found for one variant: a column a measure, counts beside them, and a record an item, no texts."""

    columns: Mapping[str, MeasureColumn]
    counts: Mapping[str, int] = field(default_factory=dict)
    records: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Metric:
    """A mean or rate with its 95 % interval; `n` items counted, `missing` items without a number.

    `unknown` of the missing items are answers that nobody knows, such as those cut off inside their reasoning. A rate
    would be `least` if all of them counted 0, and `most` if all counted 1; None where nothing is unknown.
    `clusters` is their number where items share one. A mean of fewer than ten has no interval, but all its `values`
    (of clusters: their means). The true rate lies between `judge_low` and `judge_high` if the judge errs here as on any
    of the models it was measured on, the interval included; None where that was not measured.
    """

    suite: str
    measure: str
    value: float | None
    n: int
    missing: int
    low: float | None
    high: float | None
    interval: Literal["wilson", "bootstrap", "none"]
    clusters: int | None = None
    values: tuple[float, ...] = ()
    unknown: int = 0
    least: float | None = None
    most: float | None = None
    judge_low: float | None = None
    judge_high: float | None = None


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """The paired difference variant − reference of one measure on the items both have.

    `verdict` is `no difference` where the interval holds 0, else `lower` or `higher`; `sentence` says it in words.
    Where the same is asked of several variants, `p_holm` is p corrected for their number, and the verdict is
    `no difference` too where it is not below 0.05.
    """

    suite: str
    measure: str
    variant: str
    reference: str
    n: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    test: Literal["mcnemar", "mcnemar mid-p", "paired bootstrap", "none"]
    verdict: Difference
    sentence: str
    clusters: int | None = None
    p_holm: float | None = None


@dataclass(frozen=True, slots=True)
class LearnedShare:
    """How much of what the adapter had learned a variant has lost by one measure, as a share: 1 is the base.

    (variant − adapter) / (base − adapter) on the `n` items that all three have, with its 95 % interval. Where there is
    none, `reason` says why: a measure by which base and adapter cannot be told apart does not see the adapter.
    """

    suite: str
    measure: str
    variant: str
    adapter: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds a sample and tokens a second, and the ratio to the unpruned adapter from interleaved pairs of runs."""

    mode: Literal["unmerged", "merged"]
    samples: int
    repeats: int
    seconds_per_sample: float
    tokens_per_second: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is left of the adapter in the loaded model, counted there: LoRA modules, parameters, FLOPs for a token."""

    modules: int
    parameters: int
    flops_per_token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One model that was measured: the base, an adapter, a pruned adapter (`pruned` are its modules that left), one
    with new factors, or several adapters active together (`adapters`)."""

    name: str
    kind: Literal["base", "adapter", "pruned", "served", "together", "repaired"]
    adapter: Source | None = None
    adapters: tuple[Source, ...] = ()
    rule: str = ""
    ranking: str = ""
    pruned: tuple[str, ...] = ()
    share: Share | None = None
    loaded: Loaded | None = None
    metrics: tuple[Metric, ...] = ()
    costs: tuple[Cost, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    shares: tuple[LearnedShare, ...] = ()

    def metric(self, suite: str, measure: str) -> Metric | None:
        """Return one metric, None where it was not measured."""
        return next((m for m in self.metrics if (m.suite, m.measure) == (suite, measure)), None)

    def learned(self, suite: str, measure: str) -> LearnedShare | None:
        """Return what was lost of what was learned by one measure, None where that was not asked."""
        return next((s for s in self.shares if (s.suite, s.measure) == (suite, measure)), None)


@dataclass(frozen=True, slots=True)
class SuiteInfo:
    """A suite as it was run: its measures, its data, its judge, and what a reader must know."""

    name: str
    measures: tuple[Measure, ...]
    data: tuple[Data, ...]
    judge: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChatFacts:
    """What was put around every prompt: a system prompt, so many examples, arguments of the chat template as JSON.

    `date` is the day that the template was told, YYYY-MM-DD; empty where it asks for none.
    """

    system: str = ""
    few_shot: int = 0
    few_shot_sha256: str = ""
    template_args: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """How the model was run."""

    base: str
    base_digest: str
    backend: str
    device: str
    dtype: str
    seed: int
    limit: int | None
    chat: ChatFacts = field(default_factory=ChatFacts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `s3lora eval` found: each variant's metrics, and paired comparisons with the unpruned adapter."""

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    setup: Setup
    suites: tuple[SuiteInfo, ...]
    variants: tuple[Variant, ...]
    comparisons: tuple[PairedComparison, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """One setting of a sweep: `ranking` orders the modules, the first `top` of them were pruned.

    `control` marks rankings that carry no information; several seeds of one control share `ranking` and `top`.
    `collapse` tells that more than a tenth of what was learned is lost by a measure of utility. At a repair `ranking`
    is its method, with a `strength` in (0, 1], and `top` that share of the modules, though none was pruned.
    """

    ranking: str
    method: str | None
    index: str
    control: bool
    seed: int | None
    top: int
    modules_total: int
    frobenius_energy: float
    parameters: float
    compute: float
    metrics: tuple[Metric, ...]
    comparisons: tuple[PairedComparison, ...]
    collapse: bool = False
    shares: tuple[LearnedShare, ...] = ()
    strength: float | None = None

    def metric(self, suite: str, measure: str) -> Metric | None:
        """Return one metric, None where it was not measured."""
        return next((m for m in self.metrics if (m.suite, m.measure) == (suite, measure)), None)

    def learned(self, suite: str, measure: str) -> LearnedShare | None:
        """Return what was lost of what was learned by one measure, None where that was not asked."""
        return next((s for s in self.shares if (s.suite, s.measure) == (suite, measure)), None)


@dataclass(frozen=True, slots=True)
class ControlSpread:
    """A control over its seeds at one `top`: mean, least and greatest value of one measure."""

    ranking: str
    top: int
    suite: str
    measure: str
    seeds: int
    mean: float
    least: float
    greatest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What `s3lora sweep` found: a point a ranking and number of modules, and which of them nothing else beats.

    `safety` and `utility` name the (suite, measure) of the curve's axes; `pareto` holds indices into `points`, and
    `pareto_variants` names the base and the unpruned adapter where they lie on the same front; `correlations` maps
    "ranking a | ranking b" to Spearman's rank correlation over the modules.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    setup: Setup
    adapter: Source
    suites: tuple[SuiteInfo, ...]
    safety: tuple[str, str]
    utility: tuple[str, str] | None
    base: Variant
    unpruned: Variant
    points: tuple[SweepPoint, ...]
    spreads: tuple[ControlSpread, ...]
    pareto: tuple[int, ...]
    correlations: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    pareto_variants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What `s3lora tune` found: the number of modules to prune, on which evidence, and what a held-out half says.

    `outcome` is `confirmed` where a number was chosen on the tuning half and both of its claims hold on the other,
    `not confirmed` where at least one does not, `nothing` where the data rule out that anything is worth pruning, and
    `cannot tell` where they are too few for that. `top` is 0 in the last two. `tried` are the points on the tuning
    half, none where nothing could have been told; `confirmed` is the chosen point on the half held out. `forecast` is
    what was said beforehand, and `sentence` the outcome in words.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    setup: Setup
    adapter: Source
    suites: tuple[SuiteInfo, ...]
    safety: tuple[str, str]
    utility: tuple[str, str]
    floor: float
    ranking: str
    top: int
    modules_total: int
    tried: tuple[SweepPoint, ...]
    tuning_unpruned: Variant
    held_out_unpruned: Variant
    confirmed: SweepPoint | None
    sentence: str
    warnings: tuple[str, ...] = ()
    tuning_base: Variant | None = None
    held_out_base: Variant | None = None
    outcome: Literal["", "confirmed", "not confirmed", "nothing", "cannot tell"] = ""
    forecast: str = ""
