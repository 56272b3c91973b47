"""From one number an item to metrics with intervals, paired comparisons, and what they say in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from s3lora.evaluate.results import (
    Difference,
    Measure,
    MeasureColumn,
    Metric,
    PairedComparison,
    SuiteInfo,
    SuiteOutcome,
)
from s3lora.statistics import (
    Interval,
    bootstrap_mean,
    mcnemar,
    paired_difference,
    paired_rate_difference,
    relative_change,
    relative_rate_change,
    wilson,
)

#: A relative loss of usefulness above this is called a collapse.
COLLAPSE = 0.10
#: Largest p of a test that is called a difference.
SIGNIFICANT = 0.05


class _Items(NamedTuple):
    """The items of a column that have a number."""

    values: list[float]
    weights: list[float] | None


def metrics(suite: SuiteInfo, outcome: SuiteOutcome, seed: int) -> tuple[Metric, ...]:
    """Return each measure of a suite with its interval: Wilson's for rates, a bootstrap for means."""
    return tuple(
        _metric(suite.name, measure, outcome.columns[measure.name], seed)
        for measure in suite.measures
        if measure.name in outcome.columns
    )


def _metric(suite: str, measure: Measure, column: MeasureColumn, seed: int) -> Metric:
    known = [i for i, value in enumerate(column.values) if value is not None]
    items = _pick(column, known)
    n, missing = len(known), len(column.values) - len(known)
    if not n:
        return Metric(suite, measure.name, None, 0, missing, None, None, "none")
    if measure.kind == "rate":
        return Metric(suite, measure.name, *_ends(wilson(round(sum(items.values)), n), n, missing), "wilson")
    if n < 2:
        # One item tells nothing of its spread; a bootstrap of it would claim to know the mean exactly.
        return Metric(suite, measure.name, items.values[0], n, missing, None, None, "none")
    interval = bootstrap_mean(items.values, items.weights, seed=seed)
    return Metric(suite, measure.name, *_ends(interval, n, missing), "bootstrap")


def _ends(interval: Interval, n: int, missing: int) -> tuple[float, int, int, float, float]:
    return interval.value, n, missing, interval.low, interval.high


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
    mine, its = _both(measure, variant[1], reference[1])
    names = (suite, measure.name, variant[0], reference[0])
    if not mine.values:
        sentence = f"{measure.name}: {variant[0]} and {reference[0]} have no item in common, so nothing is compared."
        return PairedComparison(*names, 0, None, None, None, None, "none", "unknown", sentence)
    if measure.kind == "mean" and len(mine.values) < 2:
        difference = mine.values[0] - its.values[0]
        sentence = f"{measure.name}: {variant[0]} and {reference[0]} have one item in common, which tells nothing."
        return PairedComparison(*names, 1, difference, None, None, None, "none", "unknown", sentence)
    if measure.kind == "rate":
        change = paired_rate_difference(its.values, mine.values)
        p = mcnemar(its.values, mine.values)
    else:
        change, p = paired_difference(its.values, mine.values, mine.weights, seed=seed)
    verdict = _verdict(change, p)
    said = _sentence(measure, variant[0], reference[0], change, p, len(mine.values), verdict)
    test: Literal["mcnemar", "paired bootstrap"] = "mcnemar" if measure.kind == "rate" else "paired bootstrap"
    return PairedComparison(*names, len(mine.values), change.value, change.low, change.high, p, test, verdict, said)


def is_difference(change: Interval, p: float, none: float = 0.0) -> bool:
    """Return whether a change can be told from `none`: its interval does not hold that, and the test is significant."""
    return not change.low <= none <= change.high and p < SIGNIFICANT


def _verdict(change: Interval, p: float) -> Difference:
    if not is_difference(change, p):
        return "no difference"
    return "lower" if change.value < 0 else "higher"


def _sentence(
    measure: Measure, variant: str, reference: str, change: Interval, p: float, n: int, verdict: Difference
) -> str:
    """Say what is known, and no more."""
    shown = f"{p:.2g}"
    # Rounding must not show a p that would not have been called a difference.
    level = f"p < {SIGNIFICANT:g}" if p < SIGNIFICANT <= float(shown) else f"p = {shown}"
    evidence = f"95 % interval {change.low:+.3g} to {change.high:+.3g}, n = {n}, {level}"
    if verdict == "no difference":
        between = f"between {variant} and {reference}"
        return f"{measure.name}: no difference can be told {between} ({change.value:+.3g}; {evidence})."
    kind = ""
    if measure.better != "neither":
        kind = ", which is better" if measure.better == verdict else ", which is worse"
    size = f"{abs(change.value):.3g} {measure.unit}".rstrip()
    return f"{measure.name}: {variant} is {verdict} than {reference} by {size}{kind} ({evidence})."


def relative_loss(measure: Measure, variant: SuiteOutcome, reference: SuiteOutcome, seed: int) -> Interval | None:
    """Return the relative worsening against a reference: how much worse, as a share of what it was.

    None where it is not defined: nothing is in common (or, for a mean, one item only), the reference is at 0, or
    neither direction is worse.
    """
    if measure.name not in variant.columns or measure.name not in reference.columns or measure.better == "neither":
        return None
    mine, its = _both(measure, variant, reference)
    if not mine.values:
        return None
    if measure.kind == "rate":
        change = relative_rate_change(its.values, mine.values)
    else:
        change = relative_change(its.values, mine.values, mine.weights, seed=seed)
    if change is None:
        return None
    return change if measure.better == "lower" else Interval(-change.value, -change.high, -change.low)


def collapse_sentence(suite: str, measure: Measure, variant: str, reference: str, loss: Interval) -> str | None:
    """Return the warning that usefulness collapsed, None where the estimate does not say so."""
    if loss.value <= COLLAPSE:
        return None
    limit = f"{COLLAPSE * 100:g} %"
    sure = "" if loss.low > COLLAPSE else f"; the interval does not rule out that it is within {limit}"
    return (
        f"utility collapse: {suite} {measure.name} of {variant} is {loss.value * 100:.1f} % worse than that of "
        f"{reference} (95 % interval {loss.low * 100:.1f} to {loss.high * 100:.1f} %), more than {limit}{sure}"
    )


def _both(measure: Measure, variant: SuiteOutcome, reference: SuiteOutcome) -> tuple[_Items, _Items]:
    """Return the items that have a number on both sides."""
    mine, its = variant.columns[measure.name], reference.columns[measure.name]
    pairs = enumerate(zip(mine.values, its.values, strict=True))
    known = [i for i, (a, b) in pairs if a is not None and b is not None]
    return _pick(mine, known), _pick(its, known)


def _pick(column: MeasureColumn, known: Sequence[int]) -> _Items:
    values = [value for i in known if (value := column.values[i]) is not None]
    return _Items(values, None if column.weights is None else [column.weights[i] for i in known])
