"""`--fail-on` rules: turn a scan into a finding or none."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from s3lora.errors import SelectionError, UsageError, printable
from s3lora.rules import Outlier
from s3lora.scan import ModuleScan, Scan
from s3lora.select import Filter, Plan, select
from s3lora.spectrum.indices import INDICES

_RULE = re.compile(r"\s*([a-z_-]+)\s*(?:(>=|<=|>|<|==)\s*([-+]?[0-9.]+(?:e[-+]?[0-9]+)?))?\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}
COUNTS = ("selected", "outliers", "zero_updates")
_ALL = Filter()
_OUTLIER = Outlier()


@dataclass(frozen=True, slots=True)
class Gate:
    """One rule: an index that any module may meet (`ssi > 0.8`), or a count (`selected > 0`, `outliers > 3`)."""

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

    def findings(
        self, scan: Scan, plan: Plan | None, only: Filter = _ALL, outlier: Outlier = _OUTLIER
    ) -> tuple[str, ...]:
        """Return a sentence for each finding, none if the rule holds nowhere.

        Parameters:
            scan: the measured adapter.
            plan: what was chosen from it with the filter `only`; None where all updates are zero.
            only: which modules the rule is about.
            outlier: what counts as an outlier.

        Raises SelectionError if the scan did not measure what the rule asks for.
        """
        holds = _COMPARE[self.comparison]
        modules = [module for module in scan.modules if only.allows(module)]
        if self.metric in COUNTS:
            count = self._count(scan, modules, plan, only, outlier)
            return (f"{self.metric} is {count}, rule {self}",) if holds(count, self.limit) else ()
        if all(self.metric not in module.indices for module in scan.modules):
            raise SelectionError(f"the scan has no {self.metric}", fix=f"scan with {self.metric} switched on")
        return tuple(
            f"{printable(module.path)}: {self.metric} is {value:.4g}, rule {self}"
            for module in modules
            if (value := module.indices.get(self.metric)) is not None and holds(value, self.limit)
        )

    def _count(
        self, scan: Scan, modules: Sequence[ModuleScan], plan: Plan | None, only: Filter, outlier: Outlier
    ) -> int:
        if self.metric == "zero_updates":
            return sum(module.zero for module in modules)
        if plan is None:
            return 0
        if self.metric == "selected":
            return len(plan.chosen)
        index = plan.index if plan.index in INDICES else "ssi"
        return len(select(scan, outlier, index=index, only=only).chosen)

    def __str__(self) -> str:
        """Return the rule as it is written."""
        return f"{self.metric} {self.comparison} {self.limit:g}"
