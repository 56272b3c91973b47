"""`--fail-on` rules: turn a scan into findings or none."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from s3lora.choose.rules import Outlier
from s3lora.choose.select import Filter, Plan, select
from s3lora.errors import SelectionError, UsageError, printable
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.spectrum.indices import INDICES

_RULE = re.compile(r"\s*([a-z_-]+)\s*(?:(>=|<=|>|<|==)\s*([-+]?[0-9.]+(?:e[-+]?[0-9]+)?))?\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}
#: Of every rule that compares an index, in reports for machines. What an id means never changes.
INDEX_ID = "S3L001"
#: What a rule can count → the id of such rules.
COUNTS = {"selected": "S3L002", "outliers": "S3L003", "nonfinite": "S3L004", "zero_updates": "S3L005"}
#: Modules named in one sentence.
NAMED = 3
_ALL = Filter()
_OUTLIER = Outlier()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule found: a module whose index meets it, or a count that does.

    `rule` is the rule as it is written; `module` the path, None for a count, which is of the modules `counted`;
    `value` is what was compared with `limit`; `message` tells all of it in a sentence.
    """

    rule: str
    rule_id: str
    module: str | None
    value: float
    limit: float
    message: str
    counted: tuple[str, ...] = ()

    def excess(self) -> float:
        """Return how far the value lies beyond the limit."""
        return abs(self.value - self.limit)

    @property
    def modules(self) -> tuple[str, ...]:
        """Return the paths of the modules that the finding rests on."""
        return self.counted if self.module is None else (self.module,)


@dataclass(frozen=True, slots=True)
class Gate:
    """One rule: an index that any module may meet (`ssi > 0.8`), or a count (`selected > 0`, `nonfinite`)."""

    metric: str
    comparison: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read a rule; a count alone means more than 0. Raise UsageError if it is none."""
        match = _RULE.fullmatch(text)
        metric = match[1].replace("-", "_") if match else ""
        fix = f"write for example 'ssi > 0.8'; metrics are {', '.join((*INDICES, *COUNTS))}"
        if match is None or metric not in (*INDICES, *COUNTS) or (match[2] is None and metric not in COUNTS):
            raise UsageError(f"no rule to fail on: {printable(text, 60)!r}", fix=fix)
        try:
            return cls(metric, match[2] or ">", float(match[3] or 0))
        except ValueError:
            raise UsageError(f"{printable(match[3], 40)!r} is no number", fix=fix) from None

    @property
    def id(self) -> str:
        """Return the id of rules of this kind."""
        return COUNTS.get(self.metric, INDEX_ID)

    @property
    def upwards(self) -> bool:
        """Return whether more modules, or a larger value, can only make the rule hold."""
        return self.comparison in (">", ">=")

    def findings(
        self, scan: Scan, plan: Plan | None, only: Filter = _ALL, outlier: Outlier = _OUTLIER
    ) -> tuple[Finding, ...]:
        """Return what the rule finds, what lies furthest beyond the limit first; nothing if it holds nowhere.

        Parameters:
            scan: the measured adapter.
            plan: what was chosen from it with the filter `only`; None where there was nothing to choose.
            only: which modules the rule is about.
            outlier: what counts as an outlier.

        Raises SelectionError if the scan did not measure what the rule asks for.
        """
        modules = [module for module in scan.modules if only.allows(module)]
        if self.metric in COUNTS:
            counted = self._counted(scan, modules, plan, only, outlier)
            return (self._of_count(counted),) if self.holds(len(counted)) else ()
        if all(self.metric not in module.indices for module in scan.modules):
            raise SelectionError(f"the scan has no {self.metric}", fix=f"scan with {self.metric} switched on")
        found = [
            self._of_module(module.path, value)
            for module in modules
            if (value := module.indices.get(self.metric)) is not None and self.holds(value)
        ]
        return tuple(sorted(found, key=Finding.excess, reverse=True))

    def holds(self, value: float) -> bool:
        """Return whether the rule holds for this value."""
        return _COMPARE[self.comparison](value, self.limit)

    def _of_module(self, path: str, value: float) -> Finding:
        message = f"{printable(path)}: {self.metric} is {self._told(value)}, rule {self}"
        return Finding(str(self), self.id, path, value, self.limit, message)

    def _of_count(self, counted: tuple[str, ...]) -> Finding:
        # Which modules are selected or outliers, the report shows; what has no number stands in no ranking.
        names = f" ({some(counted)})" if self.metric == "nonfinite" and counted else ""
        message = f"{self.metric} is {len(counted)}{names}, rule {self}"
        return Finding(str(self), self.id, None, float(len(counted)), self.limit, message, counted)

    def _told(self, value: float) -> str:
        """Return the value with as many digits as show that the rule holds."""
        short = (f"{value:.{digits}g}" for digits in (4, 6, 9, 12))
        return next((text for text in short if self.holds(float(text))), repr(value))

    def _counted(
        self, scan: Scan, modules: Sequence[ModuleScan], plan: Plan | None, only: Filter, outlier: Outlier
    ) -> tuple[str, ...]:
        """Return the paths of the modules that are counted."""
        if self.metric == "zero_updates":
            return tuple(module.path for module in modules if module.zero)
        if self.metric == "nonfinite":
            return tuple(module.path for module in modules if module.nonfinite)
        if plan is None:
            return ()
        if self.metric == "selected":
            return plan.paths
        index = plan.index if plan.index in INDICES else "ssi"
        return select(scan, outlier, index=index, only=only).paths

    def __str__(self) -> str:
        """Return the rule as it is written."""
        short = f"{self.limit:g}"
        return f"{self.metric} {self.comparison} {short if float(short) == self.limit else repr(self.limit)}"


def some(paths: Sequence[str], shown: int = NAMED) -> str:
    """Return the first names, and how many more there are."""
    more = f", and {len(paths) - shown} more" if len(paths) > shown else ""
    return ", ".join(printable(path, 120) for path in paths[:shown]) + more
