"""Every ranking of one adapter that a reader may want to see beside the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3lora.choose.rules import Fraction
from s3lora.choose.select import Combine, Filter, Plan, UnitKind, select
from s3lora.errors import NothingToAuditError
from s3lora.measure.scan import Scan
from s3lora.spectrum.indices import INDICES


@dataclass(frozen=True, slots=True)
class Ranked:
    """All candidates in the order of one index: `plan` chooses every one, sharpest first."""

    index: str
    scan: Scan
    plan: Plan

    @property
    def method(self) -> str:
        """Return the spectral method of the scan."""
        return self.scan.configuration.method


def survey(
    scans: Sequence[Scan],
    *,
    index: str = "ssi",
    only: Filter | None = None,
    unit: UnitKind = "module",
    combine: Combine = "mean",
) -> tuple[Ranked, ...]:
    """Rank the candidates of one adapter by every usual index.

    Parameters:
        scans: of the same adapter, the first by the method that is asked for, the others by other methods.
        index: ranked as well, if it is none of the usual ones.
        only, unit, combine: as for `select`.

    An index that is undefined for all candidates is left out, so the result may be empty.
    """
    # The others, by another method each, are ranked by their SSI alone.
    own = dict.fromkeys((*(one.name for one in INDICES.values() if one.offered), index))
    wanted = [(scan, name) for i, scan in enumerate(scans) for name in (own if i == 0 else ("ssi",))]
    found = []
    for scan, name in wanted:
        if name not in INDICES or all(name not in module.indices for module in scan.modules):
            continue
        try:
            plan = select(scan, Fraction(1.0), index=name, only=only, unit=unit, combine=combine)
        except NothingToAuditError:
            continue
        found.append(Ranked(name, scan, plan))
    return tuple(found)
