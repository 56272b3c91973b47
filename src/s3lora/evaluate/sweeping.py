"""Sweep: prune more and more by each ranking and each control, or repair ever more, and measure at every point."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from s3lora.adapter.model import Adapter
from s3lora.adapter.open import opening
from s3lora.choose.select import Plan
from s3lora.errors import UsageError
from s3lora.evaluate.aggregate import allow_for_many
from s3lora.evaluate.attach import Attached, State
from s3lora.evaluate.base_model import BaseToLoad, loaded
from s3lora.evaluate.bench import Advance, Bench, Outcomes
from s3lora.evaluate.evaluation import setup_of
from s3lora.evaluate.factors_task import FactorsTask, FactorsTasks
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.rankings import SweepRanking, candidates, correlations, rankings, swept, tops, tops_by_default
from s3lora.evaluate.results import ControlSpread, Key, Loaded, Measure, Sweep, SweepPoint, Variant
from s3lora.evaluate.shares import collapsed, unseen
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suite import Suite
from s3lora.measure.configuration import Configuration
from s3lora.measure.cost import MAX_COST
from s3lora.measure.scan import Scan, scan_all
from s3lora.spectrum.indices import any_costly

#: What `s3lora sweep` tries without options.
TRIED = ("mas-svd", "random", "random-matched")
TOPS = ("0", "10", "25%", "40%", "50%", "60%", "75%", "100%")
#: The names of the two variants that every point lies between.
UNPRUNED, BASE = "unpruned", "base"
#: What tells apart what was measured: the modules that were pruned, or the digest of new factors.
AskedPoint = frozenset[str] | str


@dataclass(frozen=True)
class SweepTask:
    """One point that is to be measured."""

    ranking: SweepRanking
    top: int
    plan: Plan

    @property
    def name(self) -> str:
        """Return the name in sentences."""
        seed = "" if self.ranking.seed is None else f", seed {self.ranking.seed}"
        return f"{self.top} pruned by {self.ranking.label}{seed}"


def sweep(
    adapter: Adapter | str | os.PathLike[str],
    base: str | BaseToLoad | LocalModel,
    suites: Sequence[Suite],
    *,
    methods: Sequence[str] = TRIED,
    indices: Sequence[str] | None = None,
    top: Sequence[str] | None = None,
    match: Sequence[str] | None = None,
    control_seeds: int = 3,
    others: FactorsTasks | None = None,
    store: AnswerStore | None = None,
    seed: int = 0,
    limit: int | None = None,
    advance: Advance | None = None,
    max_cost: float = MAX_COST,
) -> Sweep:
    """Measure an adapter with ever more modules pruned, by each ranking (the paper's Table 5 and threshold study).

    Parameters:
        adapter: a PEFT folder, or one that is open.
        base: the base model (see `LocalModel`), or one that is loaded already.
        suites: what to measure; the first measure with the role of safety, and of utility, make the curve.
        methods: spectral methods, and the controls `random` and `random-matched`; with `others` there may be none.
        indices: indices to rank by; by default those of `swept`.
        top: how many modules to prune: `10`, `25%` or `0.25`; by default `TOPS`, as far as there are so many.
        match: indices that `random-matched` takes the number of modules of each projection from, by the first method.
        control_seeds: draws of each control.
        others: what is measured besides, such as repairs at several strengths; see `repair_tasks`.
        store: answers kept on disk; with it, a sweep that was killed goes on where it was.
        seed: of every bootstrap; controls use seed, seed + 1, ….
        limit: of the suites, for the record only.
        advance: told how far the work is.
        max_cost: operations that the scan may take, as for `scan`.

    The same set of modules is measured once, whichever rankings choose it. Raises UsageError for an unknown name or
    impossible number, and the errors of `LocalModel`, of `scan`, of the suites and of `others`.
    """
    if control_seeds < 1:
        raise UsageError("a control needs at least one seed")
    seeds = range(seed, seed + control_seeds)
    points: list[SweepPoint] = []
    asked: list[AskedPoint] = []
    found: list[str] = []
    with opening(adapter) as opened:
        names = swept(opened) if indices is None else indices
        ranked = rankings(methods, names, match=match, seeds=seeds) if methods or others is None else []
        scans = scan_for(opened, ranked, max_cost)
        first = next(iter(scans.values()))
        most = candidates(first)
        tasks = _tasks(ranked, scans, tops_by_default(TOPS, most) if top is None else tops(top, most))
        expected = len(tasks) + 2 + (0 if others is None else len(others))
        bench = Bench(suites, store, seed=seed, expected=expected, advance=advance)
        safety, utility = bench.axis("safety"), bench.axis("utility")
        if safety is None:
            raise UsageError("no suite measures safety", fix="add the suite safety")
        model = loaded(base, [opened], advance)
        attached = model.attach(opened, first.source)
        more = iter(()) if others is None else others(opened, model, attached, bench.tell)
        reference = variant_of(bench, model, UNPRUNED, "adapter", attached)
        alone = variant_of(bench, model, BASE, "base", None)
        for task in tasks:
            model.use(attached, task.plan.paths)
            outcomes = bench.measure(model, task.name)
            found += bench.warnings(task.name, outcomes)
            points.append(point_of(bench, task, outcomes, reference[1], alone[1]))
            asked.append(frozenset(task.plan.paths))
        for other in more:
            model.adapters.use(State(attached, factors=other.factors))
            outcomes = bench.measure(model, other.name)
            found += [*other.notes, *bench.warnings(other.name, outcomes)]
            loads = reference[0].loaded, model.loaded()
            points.append(_repaired(bench, other, len(first.modules), outcomes, loads, reference[1], alone[1]))
            asked.append(other.factors.identity)
        model.use(attached)
    points = _allowed(bench, asked, points)
    front = _pareto([reference[0], alone[0], *points], safety, utility, bench)
    unknown = unseen(share for point in points for share in point.shares)
    return Sweep(
        setup=setup_of(model, seed, limit),
        adapter=attached.source,
        suites=tuple(bench.infos.values()),
        safety=safety,
        utility=utility,
        base=alone[0],
        unpruned=reference[0],
        points=tuple(points),
        spreads=tuple(_spreads(points)),
        pareto=tuple(i - 2 for i in front if i >= 2),
        pareto_variants=tuple((UNPRUNED, BASE)[i] for i in front if i < 2),
        correlations=correlations(ranked, scans),
        warnings=tuple(dict.fromkeys([*model.notes, *first.warnings, *_flat(tasks), *found, *unknown])),
    )


def scan_for(adapter: Adapter, ranked: Iterable[SweepRanking], max_cost: float) -> dict[str, Scan]:
    """Scan by each method that a ranking needs, at least one, in one pass."""
    methods = dict.fromkeys(m for r in ranked if (m := r.matches[1] if r.matches else r.method) is not None)
    costly = any_costly(name for one in ranked for name in (one.index, *(one.matches or ())))
    configurations = [Configuration(method, kurtosis=costly) for method in methods or ("mas-svd",)]
    return {one.configuration.method: one for one in scan_all(adapter, configurations, max_cost=max_cost)}


def variant_of(
    bench: Bench, model: LocalModel, name: str, kind: str, attached: Attached | None
) -> tuple[Variant, Outcomes]:
    """Measure the base alone, or an adapter without pruning."""
    model.adapters.use(State(attached))
    outcomes = bench.measure(model, name)
    variant = Variant(
        name=name,
        kind="adapter" if kind == "adapter" else "base",
        adapter=None if attached is None else attached.source,
        loaded=model.loaded(),
        metrics=bench.metrics(outcomes),
    )
    return variant, outcomes


def _tasks(ranked: Sequence[SweepRanking], scans: dict[str, Scan], counts: Sequence[int]) -> list[SweepTask]:
    """List all points; none pruned is the unpruned adapter, which is measured anyway."""
    return [SweepTask(ranking, k, ranking.plan(scans, k)) for k in counts if k for ranking in ranked]


def point_of(bench: Bench, task: SweepTask, outcomes: Outcomes, reference: Outcomes, base: Outcomes) -> SweepPoint:
    """Return what was measured at a point, compared with the unpruned adapter, and what is lost of what it learned."""
    ranking, share = task.ranking, task.plan.share
    return SweepPoint(
        ranking=ranking.label,
        method=ranking.matches[1] if ranking.matches else ranking.method,
        index=ranking.index,
        control=ranking.control,
        seed=ranking.seed,
        top=share.modules,
        modules_total=share.modules_total,
        frobenius_energy=share.frobenius_energy,
        parameters=share.parameters / share.parameters_total if share.parameters_total else 0.0,
        compute=share.compute,
        **_measured(bench, task.name, outcomes, reference, base),
    )


def _repaired(
    bench: Bench,
    task: FactorsTask,
    total: int,
    outcomes: Outcomes,
    loads: tuple[Loaded | None, Loaded],
    reference: Outcomes,
    base: Outcomes,
) -> SweepPoint:
    """Return what was measured with new factors; `loads` are what takes part in the adapter, and with them."""
    before, after = loads
    return SweepPoint(
        ranking=task.method,
        method=None,
        index=task.method,
        control=task.control,
        seed=None,
        # As many modules of the others' axis as the strength is a share of.
        top=round(task.strength * total),
        modules_total=total,
        frobenius_energy=task.frobenius_energy,
        parameters=1 - after.parameters / before.parameters if before and before.parameters else 0.0,
        compute=1 - after.flops_per_token / before.flops_per_token if before and before.flops_per_token else 0.0,
        strength=task.strength,
        **_measured(bench, task.name, outcomes, reference, base),
    )


def _measured(bench: Bench, name: str, outcomes: Outcomes, reference: Outcomes, base: Outcomes) -> dict[str, Any]:
    """Return the fields of a point that are measured, whatever was changed."""
    lost = bench.shares(name, outcomes, UNPRUNED, reference, base)
    return {
        "metrics": bench.metrics(outcomes),
        "comparisons": bench.compare(name, outcomes, UNPRUNED, reference),
        "collapse": any(map(collapsed, lost)),
        "shares": lost,
    }


def _allowed(bench: Bench, asked: Sequence[AskedPoint], points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """Return the points with comparisons that allow for how many different adapters were measured."""
    compared = [(what, point.comparisons) for what, point in zip(asked, points, strict=True)]
    allowed = allow_for_many(compared, bench.all_measures)
    return [replace(point, comparisons=found) for point, found in zip(points, allowed, strict=True)]


def _spreads(points: Sequence[SweepPoint]) -> list[ControlSpread]:
    """Sum up each control over its seeds."""
    groups: dict[tuple[str, int, str, str], list[float]] = {}
    for point in points:
        for metric in point.metrics if point.control and point.strength is None else ():
            if metric.value is not None:
                key = (point.ranking, point.top, metric.suite, metric.measure)
                groups.setdefault(key, []).append(metric.value)
    return [ControlSpread(*key, len(values), fmean(values), min(values), max(values)) for key, values in groups.items()]


def _pareto(points: Sequence[SweepPoint | Variant], safety: Key, utility: Key | None, bench: Bench) -> list[int]:
    """Return the points that no other beats on one axis without losing on the other, controls and variants included."""
    axes = [(safety, bench.measures("safety")[safety])]
    if utility is not None:
        axes.append((utility, bench.measures("utility")[utility]))
    coordinates = {i: mine for i, point in enumerate(points) if (mine := _coordinates(point, axes)) is not None}

    def beaten(mine: tuple[float, ...]) -> bool:
        others = (other for other in coordinates.values() if other != mine)
        return any(all(o <= m for o, m in zip(other, mine, strict=True)) for other in others)

    return [i for i, mine in coordinates.items() if not beaten(mine)]


def _coordinates(point: SweepPoint | Variant, axes: Sequence[tuple[Key, Measure]]) -> tuple[float, ...] | None:
    """Return the point's values, less being better."""
    found = []
    for key, measure in axes:
        metric = point.metric(*key)
        if metric is None or metric.value is None:
            return None
        found.append(-metric.value if measure.better == "higher" else metric.value)
    return tuple(found)


def _flat(tasks: Sequence[SweepTask]) -> list[str]:
    return [
        f"{task.ranking.label}: {text}" for task in tasks for text in task.plan.warnings if not task.ranking.control
    ]
