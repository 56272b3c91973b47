"""The CSV of measurements: one row a variant or point, suite and measure, or one a trial."""

from __future__ import annotations

import json
from collections.abc import Sequence

from s3lora.adapter.digest import Source
from s3lora.evaluate.results import (
    Evaluation,
    LearnedShare,
    Metric,
    PairedComparison,
    Sweep,
    SweepPoint,
    Tuning,
    Variant,
)
from s3lora.repair.results import Repair
from s3lora.report.documents import to_csv
from s3lora.report.repair_view import in_order, is_chosen
from s3lora.report.sweep_view import comparison

_ADAPTER = ("adapter", "sha256")
_VARIANT = ("variant", "kind", "rule", "ranking")
_POINT = ("kind", "ranking", "method", "index", "control", "seed", "top", "modules_total", "strength")
_SHARES = ("frobenius_energy", "parameters", "compute", "pareto", "collapse")
_METRIC = (
    "suite",
    "measure",
    "value",
    "low",
    "high",
    "interval",
    "n",
    "missing",
    "unknown",
    "least",
    "most",
    "clusters",
    "judge_low",
    "judge_high",
)
_COMPARISON = ("reference", "difference", "difference_low", "difference_high", "p", "p_holm", "test", "verdict")
_TRIAL = (
    "method",
    "settings",
    "strength",
    "asr",
    "over_refusal",
    "degenerate",
    "learned_lost",
    "n",
    "norm_ratio",
    "cosine",
    "kept",
    "chosen",
    "reason",
)
_LEARNED = ("learned_lost", "learned_lost_low", "learned_lost_high", "learned_lost_reason")


def evaluation_csv(evaluation: Evaluation) -> str:
    """Return one row a variant, suite and measure: the metric, and the difference to the unpruned adapter."""
    rows: list[Sequence[object]] = [(*_ADAPTER, *_VARIANT, *_METRIC, *_COMPARISON, *_LEARNED)]
    found = {(c.variant, c.suite, c.measure): c for c in evaluation.comparisons}
    for variant in evaluation.variants:
        about = (*_source(variant.adapter), variant.name, variant.kind, variant.rule, variant.ranking)
        for metric in variant.metrics:
            compared = found.get((variant.name, metric.suite, metric.measure))
            lost = variant.learned(metric.suite, metric.measure)
            rows.append((*about, *_metric(metric), *_compared(compared), *_learned(lost)))
    return to_csv(rows)


def sweep_csv(sweep: Sweep) -> str:
    """Return one row a point, suite and measure, after those of the base and of the unpruned adapter."""
    rows: list[Sequence[object]] = [(*_ADAPTER, *_POINT, *_SHARES, *_METRIC, *_COMPARISON, *_LEARNED)]
    adapter = _source(sweep.adapter)
    for kind, variant in (("base", sweep.base), ("unpruned", sweep.unpruned)):
        rows += _variant_rows(adapter, kind, variant, pareto=kind in sweep.pareto_variants)
    chosen = set(sweep.pareto)
    for i, point in enumerate(sweep.points):
        rows += _point_rows(adapter, "pruned" if point.strength is None else "repaired", point, pareto=i in chosen)
    return to_csv(rows)


def tuning_csv(tuning: Tuning) -> str:
    """Return one row a point, suite and measure; `kind` tells the half and whether the adapter was pruned."""
    rows: list[Sequence[object]] = [(*_ADAPTER, *_POINT, *_SHARES, *_METRIC, *_COMPARISON, *_LEARNED)]
    adapter = _source(tuning.adapter)
    rows += _variant_rows(adapter, "tuning base", tuning.tuning_base)
    rows += _variant_rows(adapter, "tuning unpruned", tuning.tuning_unpruned)
    for point in tuning.tried:
        rows += _point_rows(adapter, "tuning", point)
    rows += _variant_rows(adapter, "held-out base", tuning.held_out_base)
    rows += _variant_rows(adapter, "held-out unpruned", tuning.held_out_unpruned)
    if tuning.confirmed is not None:
        rows += _point_rows(adapter, "held-out", tuning.confirmed)
    return to_csv(rows)


def _source(source: Source | None) -> tuple[object, ...]:
    return (None, None) if source is None else (source.name, source.sha256)


def _variant_rows(
    adapter: Sequence[object], kind: str, variant: Variant | None, pareto: bool | None = None
) -> list[Sequence[object]]:
    shares = [pareto if name == "pareto" else None for name in _SHARES]
    about = (*adapter, kind, *[None] * (len(_POINT) - 1), *shares)
    metrics = () if variant is None else variant.metrics
    return [(*about, *_metric(metric), *_compared(None), *_learned(None)) for metric in metrics]


def _point_rows(
    adapter: Sequence[object], kind: str, point: SweepPoint, pareto: bool | None = None
) -> list[Sequence[object]]:
    ranking = (point.ranking, point.method, point.index, point.control, point.seed)
    about = (*ranking, point.top, point.modules_total, point.strength)
    shares = (point.frobenius_energy, point.parameters, point.compute, pareto, point.collapse)
    return [
        (
            *(*adapter, kind, *about, *shares, *_metric(m)),
            *_compared(comparison(point, (m.suite, m.measure))),
            *_learned(point.learned(m.suite, m.measure)),
        )
        for m in point.metrics
    ]


def _metric(metric: Metric) -> tuple[object, ...]:
    numbers = (metric.value, metric.low, metric.high)
    counts = (metric.n, metric.missing, metric.unknown, metric.least, metric.most, metric.clusters)
    return (metric.suite, metric.measure, *numbers, metric.interval, *counts, metric.judge_low, metric.judge_high)


def _compared(found: PairedComparison | None) -> tuple[object, ...]:
    if found is None:
        return (None,) * len(_COMPARISON)
    return (found.reference, found.difference, found.low, found.high, found.p, found.p_holm, found.test, found.verdict)


def _learned(share: LearnedShare | None) -> tuple[object, ...]:
    return (None,) * len(_LEARNED) if share is None else (share.value, share.low, share.high, share.reason or None)


def repair_csv(repair: Repair) -> str:
    """Return one row a trial, as it was measured on the tuning part, in the order in which the page has them."""
    rows: list[Sequence[object]] = [(*_ADAPTER, *_TRIAL)]
    adapter = _source(repair.source)
    for trial in in_order(repair):
        settings = json.dumps(dict(trial.settings), sort_keys=True, default=str) if trial.settings else None
        numbers = (trial.asr, trial.over_refusal, trial.degenerate, trial.utility_loss, trial.n)
        update = (trial.norm_ratio, trial.cosine, trial.kept, is_chosen(repair, trial), trial.reason or None)
        rows.append((*adapter, trial.method, settings, trial.strength, *numbers, *update))
    return to_csv(rows)
