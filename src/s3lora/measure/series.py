"""What became of every module and of refusals while an adapter was trained: the document of the training callback."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

import msgspec

from s3lora.adapter.digest import Source
from s3lora.errors import AdapterFileError, UsageError, printable
from s3lora.files import read_whole
from s3lora.measure.comparison import Comparison, ModuleComparison
from s3lora.measure.configuration import Configuration
from s3lora.measure.modules import ByModule
from s3lora.measure.refusal_looks import RefusalLook
from s3lora.measure.scan import SCHEMA_VERSION, Tool

#: How the file is called that the callback writes into the folder of a run, and how large one may be to be read.
SERIES = "s3lora-series.json"
MAX_SERIES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class RefusalRule:
    """When a rise of the refusal loss counts: above `absolute` and above `errors` standard errors, `looks` times.

    At each look the loss of every refusal, in nats a token, is compared with what it was at the start. The rise is the
    mean of these differences and its error their standard deviation over √n. A look is *beyond* where the rise is
    greater than both `absolute` and `errors` times that error. The rule warns at the first look that ends a row of
    `looks` looks beyond.

    Raises UsageError for a parameter that cannot be meant.

    >>> rule = RefusalRule(absolute=0.05, errors=2.0, looks=2)
    >>> rule.beyond([0.1, 0.2, 0.15]), rule.beyond([0.0, 0.0, 0.3]), rule.beyond([0.04, 0.04, 0.04])
    (True, False, False)
    """

    absolute: float = 0.05
    errors: float = 2.0
    looks: int = 2

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name, least in (("absolute", 0), ("errors", 0), ("looks", 1)):
            if not math.isfinite(getattr(self, name)) or getattr(self, name) < least:
                raise UsageError(f"{name} must be {least} or more, not {getattr(self, name)}")

    def beyond(self, differences: Sequence[float]) -> bool:
        """Tell whether the mean of these rises counts at one look; a rise that is not finite does."""
        rise, error = rise_of(differences)
        return not math.isfinite(rise) or rise > max(self.absolute, self.errors * error)

    def warns(self, looks: Sequence[RefusalLook]) -> bool:
        """Tell whether the last looks, as many as the rule wants, are all beyond."""
        return len(looks) >= self.looks and all(look.beyond for look in looks[-self.looks :])


def rise_of(differences: Sequence[float]) -> tuple[float, float]:
    """Return the mean of differences, and its standard error, which is infinite of a single one.

    >>> rise_of([1.0, 3.0])
    (2.0, 1.0)
    """
    if not all(map(math.isfinite, differences)):
        return math.nan, math.nan
    n = len(differences)
    return mean(differences), stdev(differences) / math.sqrt(n) if n > 1 else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesModule:
    """One module at every look: tuples with a value for each, None for a zero update or what is not finite.

    `shape` is [m, n] of ΔW. `frobenius` is 0 for a zero update.
    """

    path: str
    layer: int | None
    projection: str
    expert: int | None
    shape: tuple[int, int]
    rank: int
    ssi: tuple[float | None, ...]
    normalised_ssi: tuple[float | None, ...]
    frobenius: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrainingSeries(ByModule[SeriesModule]):
    """What the callback saw: every module at each of `steps`, and refusals at some of them.

    `warned_at` is the step at which the rule warned first, `stopped_at` the one at which it ended the run, and
    `kept_at` the one of the adapter that was kept; None where that did not happen. `source` names base and adapter.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    configuration: Configuration
    source: Source
    steps: tuple[int, ...]
    modules: tuple[SeriesModule, ...]
    rule: RefusalRule | None = None
    refusals: tuple[RefusalLook, ...] = ()
    warned_at: int | None = None
    stopped_at: int | None = None
    kept_at: int | None = None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return how much was looked at."""
        return f"<TrainingSeries of {len(self)} modules at {len(self.steps)} steps>"


def series_json(series: TrainingSeries) -> bytes:
    """Return a series as it is written; equal series give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(series), indent=1) + b"\n"


def read_series(path: str | Path) -> TrainingSeries:
    """Return the series that the callback of `s3lora.training` wrote.

    Examples:
        >>> import s3lora
        >>> series = s3lora.read_series("run/s3lora-series.json")
        >>> series, series.warned_at
        (<TrainingSeries of 4 modules at 3 steps>, 20)

    Raises AdapterFileError where the file cannot be read or is no such series.
    """
    path = Path(path)
    raw = read_whole(path, MAX_SERIES, AdapterFileError)
    try:
        version = msgspec.json.decode(raw, type=_SeriesVersion).schema_version
        if version != SCHEMA_VERSION:
            what = f"is of schema version {version}, and this s3lora knows {SCHEMA_VERSION}"
            raise AdapterFileError(what, file=path, fix="update s3lora" if version > SCHEMA_VERSION else None)
        series = msgspec.json.decode(raw, type=TrainingSeries)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, UsageError) as error:
        raise AdapterFileError(f"is no series of a training: {printable(error)}", file=path) from None
    check_series(series, path)
    return series


def check_series(series: TrainingSeries, path: Path) -> None:
    """Raise AdapterFileError, which names the file, unless steps grow and every module has a value for each."""
    count = len(series.steps)
    if list(series.steps) != sorted(set(series.steps)) or not series.modules:
        raise AdapterFileError("is no series of a training: its steps do not grow, or it has no modules", file=path)
    for module in series.modules:
        if {len(module.ssi), len(module.normalised_ssi), len(module.frobenius)} != {count}:
            what = f"has not a value for each of its {count} steps"
            raise AdapterFileError(what, file=path, module=printable(module.path, 240))


@dataclass(frozen=True, slots=True)
class _SeriesVersion:
    schema_version: int


def as_comparison(series: TrainingSeries) -> Comparison:
    """Return a series as what `compare` shows of checkpoints; distances are not known.

    Raises UsageError for fewer than two looks.
    """
    if len(series.steps) < 2:
        raise UsageError("the series has one look only, so there is nothing to compare", fix="train for more steps")
    count = len(series.steps)
    apart: tuple[None, ...] = (None,) * (count - 1)
    return Comparison(
        configuration=series.configuration,
        sources=tuple(Source(f"step {step}", "memory", None, (), series.source.base_model) for step in series.steps),
        steps=series.steps,
        modules=tuple(
            ModuleComparison(
                path=module.path,
                layer=module.layer,
                projection=module.projection,
                expert=module.expert,
                shape=(module.shape,) * count,
                rank=(module.rank,) * count,
                ssi=module.ssi,
                normalised_ssi=module.normalised_ssi,
                frobenius=module.frobenius,
                distance=apart,
                cosine=apart,
                net_distance=None,
                net_cosine=None,
            )
            for module in series.modules
        ),
        refusals=series.refusals,
        warnings=(*series.warnings, "a series of a training holds no distances and no cosines"),
    )
