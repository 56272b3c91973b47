"""`--fail-on` rules: turn a scan into findings or none."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from s3lora.adapter.loaders import Loader
from s3lora.compat.rules import LOADER_ID, CheckRule, loader_in, loader_rule
from s3lora.errors import SelectionError, UsageError, nearest, printable
from s3lora.gate.conditions import CONDITIONS, strict
from s3lora.gate.counting import Asked
from s3lora.measure.against import Against
from s3lora.measure.published import training_signal
from s3lora.spectrum.indices import INDICES
from s3lora.wording import worded

_RULE = re.compile(r"\s*([a-z][a-z0-9_-]*)\s*(?:(>=|<=|>|<|==)\s*([-+]?[0-9.]+(?:e[-+]?[0-9]+)?))?\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}
#: Of every rule that compares an index, the rank, or the standing in a reference, in reports for machines. What an id
#: means never changes.
INDEX_ID, RANK_ID, PERCENTILE_ID = "S3L001", "S3L016", "S3L017"
RANK = "rank"
#: Name of the metric → the index whose percentile in a reference it is.
PERCENTILES = {f"{index}_percentile": index for index in INDICES}
#: Rules that stand for several.
SETS = {"strict": strict}
#: Modules named in one sentence.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule found: a module whose index meets it, or a count that does.

    `rule` is the rule as it is written; `module` the path, None for a count, which is of the modules `counted`;
    `value` is what was compared with `limit`; `message` tells all of it in a sentence, `why` the end of it: what is
    known of the cause, and what to do.
    """

    rule: str
    rule_id: str
    module: str | None
    value: float
    limit: float
    message: str
    counted: tuple[str, ...] = ()
    why: str = ""

    def excess(self) -> float:
        """Return how far the value lies beyond the limit."""
        return abs(self.value - self.limit)

    @property
    def modules(self) -> tuple[str, ...]:
        """Return the names of what the finding rests on: of modules, or what a condition counts."""
        return self.counted if self.module is None else (self.module,)


@dataclass(frozen=True, slots=True)
class Gate:
    """One rule: what any module may meet (`ssi > 0.8`), a condition that counts (`base-weights`), or a loader.

    `metric` is an index, `rank`, an index with `_percentile` for where it stands in a reference, a condition, or
    `loader:NAME` or `loader:NAME=VERSION` for what a loader does with the adapter, as `check` has it.
    """

    metric: str
    comparison: str = ">"
    limit: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read a rule; a condition alone means more than 0. Raise UsageError if it is none."""
        if (loader := loader_in(text)) is not None:
            return cls(loader_rule(loader))
        match = _RULE.fullmatch(text)
        metric = _metric(match[1]) if match else None
        names = (
            *(name.replace("_", "-") for name in INDICES),
            RANK,
            "INDEX-percentile",
            *CONDITIONS,
            "loader:NAME",
            *SETS,
        )
        fix = f"write for example 'ssi > 0.8' or 'base-weights'; metrics are {', '.join(names)}"
        if match and match[1] in SETS and match[2] is not None:
            fix = f"{match[1]} stands alone, without a limit"
        elif match and metric is None and (near := nearest(match[1], names)) is not None:
            fix = f"did you mean {near}?"
        if match and metric is not None and match[2] is None and metric not in CONDITIONS:
            example = 95 if metric.endswith("_percentile") else 64 if metric == RANK else 0.5
            fix = (
                f"give a limit, and quote the rule: '{match[1]} > {example}'; without quotes a shell takes > for a file"
            )
        if match is None or metric is None or (match[2] is None and metric not in CONDITIONS):
            raise UsageError(f"no rule to fail on: {printable(text, 60)!r}", fix=fix)
        try:
            limit = float(match[3] or 0)
        except ValueError:
            raise UsageError(f"{printable(match[3], 40)!r} is no number", fix=fix) from None
        if not math.isfinite(limit):
            raise UsageError(f"{printable(match[3], 40)!r} is too large a number", fix=fix)
        return cls(metric, match[2] or ">", limit)

    @property
    def loader(self) -> Loader | None:
        """Return the loader that the rule is about, None for every other rule."""
        return loader_in(self.metric)

    @property
    def id(self) -> str:
        """Return the id of rules of this kind."""
        if self.loader is not None:
            return LOADER_ID
        if self.metric in CONDITIONS:
            return CONDITIONS[self.metric].id
        return RANK_ID if self.metric == RANK else PERCENTILE_ID if self.metric in PERCENTILES else INDEX_ID

    @property
    def upwards(self) -> bool:
        """Return whether more modules, or a larger value, can only make the rule hold."""
        return self.comparison in (">", ">=")

    def findings(self, asked: Asked, against: Against | None = None) -> tuple[Finding, ...]:
        """Return what the rule finds, what lies furthest beyond the limit first; nothing if it holds nowhere.

        `against` tells where the scan stands in a reference. Raises SelectionError if the scan did not measure what
        the rule asks for, UsageError for a percentile without a reference, or where nobody asked what the loader does.
        """
        if (loader := self.loader) is not None:
            return self._of_loader(loader, asked)
        if self.metric in CONDITIONS:
            counted = CONDITIONS[self.metric].counted(asked)
            return (self._of_count(counted, asked),) if self.holds(len(counted)) else ()
        values = self._values(asked, against)
        found = [self._of_module(path, value) for path, value in values if value is not None and self.holds(value)]
        return tuple(sorted(found, key=Finding.excess, reverse=True))

    def unseen(self, asked: Asked, against: Against | None = None) -> tuple[str, ...]:
        """Return the modules with an update that have no value for the rule, so that it cannot be held against them.

        These are modules of rank 1 where it asks for an index that has none there, also by what it chooses by;
        percentiles where the reference has nothing to compare with; and a training signal where random updates of no
        module are known. What has no index at all is told otherwise.
        """
        measured = {module.path for module in asked.modules if module.sigma and not module.zero}
        if self.metric in INDICES or self.metric in PERCENTILES:
            values = self._values(asked, against)
        elif self.metric in ("selected", "outliers") and asked.plan is not None and asked.plan.index in INDICES:
            values = [(module.path, module.indices.get(asked.plan.index)) for module in asked.modules]
        elif self.metric == "no-signal" and training_signal(asked.modules) is None:
            values = [(module.path, None) for module in asked.modules]
        else:
            return ()
        return tuple(path for path, value in values if value is None and path in measured)

    def holds(self, value: float) -> bool:
        """Return whether the rule holds for this value."""
        return _COMPARE[self.comparison](value, self.limit)

    def _values(self, asked: Asked, against: Against | None) -> list[tuple[str, float | None]]:
        """Return what is compared with the limit, of each module."""
        if self.metric == RANK:
            return [(module.path, float(module.rank)) for module in asked.modules]
        if (index := PERCENTILES.get(self.metric)) is not None:
            if against is None:
                raise UsageError(f"the rule {self} needs a reference", fix=worded("give {reference} FILE"))
            marks = {path: standing.marks.get(index) for path, standing in against.standings.items()}
            found = ((module.path, marks.get(module.path)) for module in asked.modules)
            return [(path, None if mark is None else mark.percentile) for path, mark in found]
        if all(self.metric not in module.indices for module in asked.scan.modules):
            raise SelectionError(f"the scan has no {self.metric}", fix=f"scan with {self.metric} switched on")
        return [(module.path, module.indices.get(self.metric)) for module in asked.modules]

    def _of_module(self, path: str, value: float) -> Finding:
        message = f"{printable(path)}: {self.metric} is {self._told(value)}, rule {self}"
        return Finding(str(self), self.id, path, value, self.limit, message)

    def _of_count(self, counted: tuple[str, ...], asked: Asked) -> Finding:
        # Which modules are selected or outliers, the report shows; what has no number stands in no ranking.
        condition = CONDITIONS[self.metric]
        names = f" ({some(counted)})" if condition.named and counted else ""
        why = printable(condition.why(asked), 1000) if counted else ""
        message = f"{self.metric} is {len(counted)}{names}, rule {self}{f': {why}' if why else ''}"
        return Finding(str(self), self.id, None, float(len(counted)), self.limit, message, counted, why)

    def _of_loader(self, loader: Loader, asked: Asked) -> tuple[Finding, ...]:
        about = [one for one in asked.loaders if (one.loader, one.version) == (loader.name, loader.version)]
        if not about:
            raise UsageError(f"the rule {self} needs the adapter, and not its scan alone")
        return tuple(
            Finding(str(self), self.id, None, 1.0, self.limit, found.message, found.counted)
            for found in CheckRule(self.metric, loader).of_loaders(about)
        )

    def _told(self, value: float) -> str:
        """Return the value with as many digits as show that the rule holds."""
        short = (f"{value:.{digits}g}" for digits in (4, 6, 9, 12))
        return next((text for text in short if self.holds(float(text))), repr(value))

    def __str__(self) -> str:
        """Return the rule as it is written."""
        if self.loader is not None:
            return self.metric
        short = f"{self.limit:g}"
        return f"{self.metric} {self.comparison} {short if float(short) == self.limit else repr(self.limit)}"


@dataclass(frozen=True, slots=True)
class Allowed:
    """A condition that holds and is accepted: its name, the reason where one was given, and what it counted."""

    name: str
    reason: str
    counted: tuple[str, ...]

    @property
    def rule_id(self) -> str:
        """Return the id of rules that would find it."""
        return CONDITIONS[self.name if self.name in CONDITIONS else "unmeasured"].id

    def __str__(self) -> str:
        """Return the sentence on it."""
        reason = f": {printable(self.reason, 200).rstrip('.')}" if self.reason else ""
        return f"allowed: {self.name} is {len(self.counted)} ({some(self.counted)}){reason}"


_METRICS = {name.replace("-", "_"): name for name in (*INDICES, RANK, *PERCENTILES, *CONDITIONS)}


def _metric(word: str) -> str | None:
    """Return the name of a metric that is written with hyphens or underscores."""
    return _METRICS.get(word.replace("-", "_"))


def gates_of(rules: Iterable[str], allowed: Collection[str] = ()) -> tuple[Gate, ...]:
    """Return the gates that rules mean, each once, with those that stand whenever there is one.

    What is allowed is left out. A standing condition with a limit of its own, such as `dead-modules > 3`, has that one.
    Raises UsageError for what is no rule.

    >>> [str(gate) for gate in gates_of(["nonfinite"], ["base-weights", "other-weights", "dead-modules", "ambiguous"])]
    ['nonfinite > 0', 'unmeasured > 0']
    """
    written = [gate for rule in rules for gate in _read(rule)]
    standing = [Gate(name) for name, one in CONDITIONS.items() if one.standing] if written else []
    known = {gate.metric for gate in written if gate.upwards}
    gates = (*written, *(gate for gate in standing if gate.metric not in known))
    return tuple(dict.fromkeys(gate for gate in gates if gate.metric not in allowed))


def _read(rule: str) -> list[Gate]:
    return [Gate(name) for name in SETS[rule.strip()]()] if rule.strip() in SETS else [Gate.parse(rule)]


def some(paths: Sequence[str], shown: int = NAMED) -> str:
    """Return the first names, and how many more there are."""
    more = f", and {len(paths) - shown} more" if len(paths) > shown else ""
    return ", ".join(printable(path, 120) for path in paths[:shown]) + more
