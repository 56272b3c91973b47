"""Measurement + adapter → what was measured of this very adapter, beside what it is to be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3lora.adapter.digest import Source
from s3lora.choose.rules import RULES
from s3lora.errors import UsageError, printable
from s3lora.evaluate.reading import Measurement
from s3lora.evaluate.results import (
    Evaluation,
    Metric,
    PairedComparison,
    Setup,
    SuiteInfo,
    Sweep,
    SweepPoint,
    Tuning,
    Variant,
)
from s3lora.rewrite.provenance import Recorded
from s3lora.rewrite.repair_record import RepairProvenance
from s3lora.spectrum.indices import INDICES

BASE, BEFORE, REPAIRED, THIS = "base alone", "before pruning", "before the repair", "this adapter"
COLLAPSED = "utility collapse: more than a tenth of what the adapter learned is lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFigures:
    """The numbers of one adapter.

    `columns` are (label, metrics), the last of them this adapter's; `comparisons` are paired differences between it
    and what came before, or the base; `sentence` is what a tuning concluded, else empty; `held_out` tells that the
    numbers are from the half of the data that nothing was chosen on.
    """

    setup: Setup
    suites: tuple[SuiteInfo, ...]
    columns: tuple[tuple[str, tuple[Metric, ...]], ...]
    comparisons: tuple[PairedComparison, ...] = ()
    sentence: str = ""
    held_out: bool = False
    warnings: tuple[str, ...] = ()


def figures_of(measurement: Measurement, source: Source, record: Recorded | None, label: object) -> AdapterFigures:
    """Return what `measurement` says of the adapter with the files of `source`.

    A pruned or repaired adapter, for which there is a `record`, may have been measured itself; or the original of a
    pruned one was, and there just those modules were taken out that are missing here. `label` names the measurement in
    errors.

    Raises UsageError if it is of other adapters.
    """
    if isinstance(measurement, Evaluation):
        found = _of_evaluation(measurement, source, record)
        names = [variant.adapter.name for variant in measurement.variants if variant.adapter is not None]
    elif isinstance(measurement, Sweep):
        found, names = _of_sweep(measurement, source, record), [measurement.adapter.name]
    else:
        found, names = _of_tuning(measurement, source, record), [measurement.adapter.name]
    if found is not None:
        return found
    what = f"of {', '.join(printable(name, 40) for name in dict.fromkeys(names[:4]))}" if names else "of no adapter"
    raise UsageError(
        f"has no figures of this adapter, as the SHA-256 of its files tell: it is {what}",
        file=label,
        fix="measure this adapter, or give the result that has it",
    )


def _of_evaluation(evaluation: Evaluation, source: Source, record: Recorded | None) -> AdapterFigures | None:
    mine = next((variant for variant in evaluation.variants if _is_measured(variant, source, record)), None)
    if mine is None:
        return None
    comparisons = tuple(c for c in evaluation.comparisons if c.variant == mine.name)
    references = {comparison.reference for comparison in comparisons}
    columns = [(BASE, variant.metrics) for variant in evaluation.variants if variant.kind == "base"]
    before = REPAIRED if isinstance(record, RepairProvenance) else BEFORE
    columns += [(before, v.metrics) for v in evaluation.variants if v.name in references and v.kind == "adapter"]
    return AdapterFigures(
        setup=evaluation.setup,
        suites=evaluation.suites,
        columns=(*columns, (THIS, mine.metrics)),
        comparisons=comparisons,
        warnings=evaluation.warnings,
    )


def _is_measured(variant: Variant, source: Source, record: Recorded | None) -> bool:
    if record is None:
        return variant.kind == "adapter" and _same(variant.adapter, source)
    gone = _gone(record)
    if _same(variant.adapter, source):
        return variant.kind == "adapter" or set(variant.pruned) == gone
    of_original = variant.kind == "pruned" and _same(variant.adapter, record.source)
    return of_original and bool(gone) and set(variant.pruned) == gone


def _of_sweep(sweep: Sweep, source: Source, record: Recorded | None) -> AdapterFigures | None:
    columns = [(BASE, sweep.base.metrics)]
    if _same(sweep.adapter, source):
        columns.append((THIS, sweep.unpruned.metrics))
        return AdapterFigures(setup=sweep.setup, suites=sweep.suites, columns=tuple(columns))
    point = _point(sweep.points, record) if record is not None and _same(sweep.adapter, record.source) else None
    if point is None:
        return None
    columns += [(BEFORE, sweep.unpruned.metrics), (THIS, point.metrics)]
    return AdapterFigures(
        setup=sweep.setup,
        suites=sweep.suites,
        columns=tuple(columns),
        comparisons=point.comparisons,
        warnings=(COLLAPSED,) if point.collapse else (),
    )


def _of_tuning(tuning: Tuning, source: Source, record: Recorded | None) -> AdapterFigures | None:
    before, alone = tuning.held_out_unpruned, tuning.held_out_base
    columns = [(BASE, alone.metrics)] if alone is not None else []
    comparisons: tuple[PairedComparison, ...] = ()
    if _same(tuning.adapter, source):
        columns.append((THIS, before.metrics))
    else:
        mine = record is not None and _same(tuning.adapter, record.source)
        point = _point((tuning.confirmed,), record) if mine and record and tuning.confirmed else None
        if point is None:
            return None
        columns += [(BEFORE, before.metrics), (THIS, point.metrics)]
        comparisons = point.comparisons
    return AdapterFigures(
        setup=tuning.setup,
        suites=tuning.suites,
        columns=tuple(columns),
        comparisons=comparisons,
        sentence=tuning.sentence,
        held_out=True,
        warnings=tuning.warnings,
    )


def _point(points: Sequence[SweepPoint], record: Recorded) -> SweepPoint | None:
    """Return the point at which just the modules of `record` are pruned, None where that cannot be told.

    Points do not list their modules: the same number from the top of the same ranking are the same modules.
    """
    gone = _gone(record)
    if isinstance(record, RepairProvenance):
        return None
    configuration, plan = record.configuration, record.plan
    simple = not plan.only and plan.unit == "module" and configuration.rank is None and configuration.fit == "l2"
    rule = RULES.get(plan.rule.partition(" ")[0])
    if not simple or not gone or rule is None or not rule.leading:
        return None
    for point in points:
        index = INDICES.get(point.index)  # a file may name any
        plain = index is not None and index.plain
        same = point.index == plan.index and (plain or point.method == configuration.method)
        if same and not point.control and point.top == len(gone):
            return point
    return None


def _gone(record: Recorded) -> frozenset[str]:
    """Return the modules without any update; none where others were changed, which no measurement of a plan covers."""
    if any(module.action not in ("removed", "zeroed") for module in record.modules):
        return frozenset()
    return frozenset(module.path for module in record.modules)


def _same(found: Source | None, source: Source) -> bool:
    """Return whether both are one adapter: weights and configuration, byte for byte."""
    if found is None or not found.files or not source.files:
        return False
    return sorted(found.identity) == sorted(source.identity)
