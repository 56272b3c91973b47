"""From one number an item to metrics with intervals, paired comparisons, and what they say in words."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from s3lora.evaluate.items import Items, common, listed
from s3lora.evaluate.judges.correction import band
from s3lora.evaluate.results import (
    Difference,
    Key,
    Measure,
    MeasureColumn,
    Metric,
    PairedComparison,
    SuiteInfo,
    SuiteOutcome,
)
from s3lora.statistics import (
    FEWEST,
    Interval,
    bootstrap_mean,
    holm,
    mcnemar,
    paired_difference,
    paired_rate_difference,
    rate_interval,
)

#: Largest p of several comparisons that is called a difference.
SIGNIFICANT = 0.05


def metrics(suite: SuiteInfo, outcome: SuiteOutcome, seed: int) -> tuple[Metric, ...]:
    """Return each measure of a suite with its interval: Wilson's for rates, a bootstrap for means."""
    return tuple(
        _banded(bounded(_metric(suite.name, measure, outcome.columns[measure.name], seed), measure, outcome), measure)
        for measure in suite.measures
        if measure.name in outcome.columns
    )


def _metric(suite: str, measure: Measure, column: MeasureColumn, seed: int) -> Metric:
    items = common(column)
    (values,), n, missing, shared = items.columns, items.n, items.missing, items.shared
    names = (suite, measure.name)
    if not n:
        return Metric(*names, None, 0, missing, None, None, "none")
    if measure.kind == "rate":
        found = rate_interval(values, items.clusters)
        return Metric(*names, found.value, n, missing, found.low, found.high, "wilson", clusters=shared)
    if items.units < FEWEST:
        mean = bootstrap_mean(values, items.weights, seed=seed, resamples=1).value
        return Metric(*names, mean, n, missing, None, None, "none", clusters=shared, values=listed(items, values))
    found = bootstrap_mean(values, items.weights, items.clusters, seed=seed)
    return Metric(*names, found.value, n, missing, found.low, found.high, "bootstrap", clusters=shared)


def _banded(metric: Metric, measure: Measure) -> Metric:
    """Return a rate with the band that the errors of its judge leave, where those were measured (see `Metric`)."""
    if not measure.errors or metric.value is None or metric.low is None or metric.high is None:
        return metric
    refusals = measure.judged == "refusals"
    rate = Interval(metric.value, metric.low, metric.high)
    found = band(Interval(1 - rate.value, 1 - rate.high, 1 - rate.low) if refusals else rate, measure.errors)
    if found is None:
        return metric
    low, high = (1 - found[1], 1 - found[0]) if refusals else found
    return replace(metric, judge_low=low, judge_high=high)


def bounded(metric: Metric, measure: Measure, outcome: SuiteOutcome) -> Metric:
    """Return a metric with the bounds that unknown answers leave for a rate (see `Metric`)."""
    unknown = outcome.columns[measure.name].unknown
    if not unknown or measure.kind != "rate":
        return replace(metric, unknown=unknown)
    total, found = metric.n + unknown, round(metric.n * (metric.value or 0.0))
    return replace(metric, unknown=unknown, least=found / total, most=(found + unknown) / total)


def compare(
    suite: SuiteInfo, variant: tuple[str, SuiteOutcome], reference: tuple[str, SuiteOutcome], seed: int
) -> tuple[PairedComparison, ...]:
    """Return the difference variant − reference of each measure that both have, on the items both have."""
    return tuple(
        _compare(suite.name, measure, variant, reference, seed)
        for measure in suite.measures
        if measure.name in variant[1].columns and measure.name in reference[1].columns
    )


def _compare(
    suite: str, measure: Measure, variant: tuple[str, SuiteOutcome], reference: tuple[str, SuiteOutcome], seed: int
) -> PairedComparison:
    items = common(variant[1].columns[measure.name], reference[1].columns[measure.name])
    mine, its = items.columns
    names = (suite, measure.name, variant[0], reference[0])
    if not items.n:
        sentence = f"{measure.name}: {variant[0]} and {reference[0]} have no item in common, so nothing is compared."
        return PairedComparison(*names, 0, None, None, None, None, "none", "unknown", sentence)
    test: Literal["mcnemar mid-p", "paired bootstrap"]
    if measure.kind == "rate":
        test = "mcnemar mid-p"
        change = paired_rate_difference(its, mine, items.clusters)
        p = mcnemar(its, mine, items.clusters)
    elif items.units < FEWEST:
        return _few(names, measure, items)
    else:
        test = "paired bootstrap"
        change, p = paired_difference(its, mine, items.weights, items.clusters, seed=seed)
    found = PairedComparison(*names, items.n, *change, p, test, _verdict(change), "", items.shared)
    return replace(found, sentence=_sentence(measure, found))


def _few(names: tuple[str, str, str, str], measure: Measure, items: Items) -> PairedComparison:
    """Return the differences of too few items for an interval."""
    changes = [a - b for a, b in zip(*items.columns, strict=True)]
    mean = bootstrap_mean(changes, items.weights, seed=0, resamples=1)
    what = "items" if items.shared is None else "clusters of items"
    sentence = (
        f"{measure.name}: {names[2]} and {names[3]} have fewer than {FEWEST} {what} in common, which give no interval; "
        f"the differences are {', '.join(f'{value:+.3g}' for value in listed(items, changes))}."
    )
    return PairedComparison(*names, items.n, mean.value, None, None, None, "none", "unknown", sentence, items.shared)


def is_difference(change: Interval, none: float = 0.0) -> bool:
    """Return whether a change can be told from `none`: its 95 % interval does not hold that."""
    return not change.low <= none <= change.high


def _verdict(change: Interval) -> Difference:
    if not is_difference(change):
        return "no difference"
    return "lower" if change.value < 0 else "higher"


def allow_for_many(
    asked: Sequence[tuple[Hashable, Sequence[PairedComparison]]], measures: Mapping[Key, Measure]
) -> list[tuple[PairedComparison, ...]]:
    """Return comparisons whose p and verdicts allow for how many of the same kind there are (Holm 1979).

    Parameters:
        asked: what was compared, such as the set of modules that was pruned, and its comparisons. Equal things are
            one comparison, however often they stand there.
        measures: what is measured, by suite and measure; each measure is a family of its own.
    """
    families: dict[Key, dict[Hashable, float]] = {}
    for what, comparisons in asked:
        for found in comparisons:
            if found.p is not None:
                families.setdefault((found.suite, found.measure), {})[what] = found.p
    corrected = {key: dict(zip(family, holm([*family.values()]), strict=True)) for key, family in families.items()}

    def allowed(what: Hashable, found: PairedComparison) -> PairedComparison:
        family = corrected.get((found.suite, found.measure), {})
        if found.p is None or len(family) < 2:
            return found
        verdict: Difference = found.verdict if family[what] < SIGNIFICANT else "no difference"
        new = replace(found, p_holm=family[what], verdict=verdict)
        return replace(new, sentence=_sentence(measures[found.suite, found.measure], new, len(family)))

    return [tuple(allowed(what, found) for found in comparisons) for what, comparisons in asked]


def told_apart(comparisons: Sequence[PairedComparison]) -> tuple[PairedComparison, ...]:
    """Return the comparisons with the suite in the sentences of a measure that several suites have, such as `loss`."""
    suites: dict[str, set[str]] = {}
    for found in comparisons:
        suites.setdefault(found.measure, set()).add(found.suite)
    return tuple(
        replace(found, sentence=f"{found.suite} {found.sentence}") if len(suites[found.measure]) > 1 else found
        for found in comparisons
    )


def _sentence(measure: Measure, found: PairedComparison, many: int = 1) -> str:
    """Say what is known, and no more."""
    if found.difference is None or found.low is None or found.high is None or found.p is None:
        return found.sentence
    size = f"n = {found.n}" if found.clusters is None else f"n = {found.n} in {found.clusters} clusters"
    evidence = f"95 % interval {found.low:+.3g} to {found.high:+.3g}, {size}, {_level('p', found.p)}"
    if found.p_holm is not None:
        evidence += f", {_level(f'among {many} p', found.p_holm)}"
    if found.verdict == "no difference":
        between = f"between {found.variant} and {found.reference}"
        return f"{measure.name}: no difference can be told {between} ({found.difference:+.3g}; {evidence})."
    kind = ""
    if measure.better != "neither":
        kind = ", which is better" if measure.better == found.verdict else ", which is worse"
    size = f"{abs(found.difference):.3g} {measure.unit}".rstrip()
    return f"{measure.name}: {found.variant} is {found.verdict} than {found.reference} by {size}{kind} ({evidence})."


def _level(name: str, p: float) -> str:
    """Return a p that is not rounded to the other side of `SIGNIFICANT`."""
    shown = f"{p:.2g}"
    return f"{name} < {SIGNIFICANT:g}" if p < SIGNIFICANT <= float(shown) else f"{name} = {shown}"


__all__ = ["SIGNIFICANT", "allow_for_many", "compare", "is_difference", "metrics"]
