"""Every ranking of one adapter that a reader may want to see beside the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3lora.choose.ranking import Unit
from s3lora.choose.select import Filter
from s3lora.choose.units import Combine, UnitKind, flat_by, measured, ranked_units
from s3lora.measure.scan import Scan
from s3lora.spectrum.indices import INDICES


@dataclass(frozen=True, slots=True)
class Ranked:
    """All candidates in the order of one index, sharpest first; `flat` tells that it does not rank them."""

    index: str
    scan: Scan
    units: Sequence[Unit]
    flat: bool

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
    own = dict.fromkeys((*(one.name for one in INDICES.values() if one.offered), index))
    found = []
    for i, scan in enumerate(scans):
        left = measured((only or Filter()).allowed(scan.modules))
        # The others, by another method each, are ranked by their SSI alone.
        for name in own if i == 0 else ("ssi",):
            modules = [module for module in left if name in INDICES and module.indices.get(name) is not None]
            if modules:
                units = ranked_units(modules, name, unit, combine)
                found.append(Ranked(name, scan, units, flat_by(units, name)))
    return tuple(found)
