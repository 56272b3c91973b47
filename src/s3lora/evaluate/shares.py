"""How much of what an adapter has learned a variant has lost, by each measure of usefulness, and when that is much."""

from __future__ import annotations

from collections.abc import Iterable

from s3lora.evaluate.items import common
from s3lora.evaluate.results import LearnedShare, Measure, SuiteOutcome
from s3lora.statistics import learned_share

#: Of what was learned, a loss above this is called a collapse.
COLLAPSE = 0.10
NOTHING_COMMON = "variant, adapter and base have no item in common"


def share_of(
    suite: str,
    measure: Measure,
    variant: tuple[str, SuiteOutcome],
    adapter: tuple[str, SuiteOutcome],
    base: SuiteOutcome,
) -> LearnedShare | None:
    """Return the share of what was learned that a variant has lost by one measure.

    None where the measure is lacking, or neither direction of it is worse.
    """
    outcomes = (variant[1], adapter[1], base)
    if measure.better == "neither" or any(measure.name not in outcome.columns for outcome in outcomes):
        return None
    items = common(*(outcome.columns[measure.name] for outcome in outcomes))
    names = (suite, measure.name, variant[0], adapter[0])
    if not items.n:
        return _unknown(names, 0, NOTHING_COMMON)
    mine, full, alone = items.columns
    rate = measure.kind == "rate"
    found = learned_share(mine, full, alone, items.weights, items.clusters, better=measure.better, rate=rate)
    if found.share is None:
        return _unknown(names, items.n, found.reason)
    return LearnedShare(*names, *found.share, items.n, "", _sentence(names, *found.share, items.n))


def _unknown(names: tuple[str, str, str, str], n: int, reason: str) -> LearnedShare:
    sentence = f"{names[0]} {names[1]}: no share of what {names[3]} learned can be told: {reason}."
    return LearnedShare(*names, None, None, None, n, reason, sentence)


def _sentence(names: tuple[str, str, str, str], value: float, low: float, high: float, n: int) -> str:
    """Say what was lost, with its interval."""
    suite, measure, variant, adapter = names
    evidence = f"95 % interval {low * 100:.1f} to {high * 100:.1f} %, n = {n}"
    lost = f"has lost {value * 100:.1f} %" if value > 0 else f"has lost nothing ({value * 100:.1f} %)"
    return f"{suite} {measure}: {variant} {lost} of what {adapter} learned ({evidence})."


def collapsed(share: LearnedShare) -> bool:
    """Return whether so much is lost that usefulness is called gone; it goes by the estimate."""
    return share.value is not None and share.value > COLLAPSE


def collapse_sentence(share: LearnedShare) -> str | None:
    """Return the warning that usefulness collapsed, None where the estimate does not say so."""
    if share.value is None or share.low is None or share.high is None or not collapsed(share):
        return None
    limit = f"{COLLAPSE * 100:g} %"
    sure = "" if share.low > COLLAPSE else f"; the interval does not rule out that it is within {limit}"
    return (
        f"utility collapse: {share.variant} has lost {share.value * 100:.1f} % of what {share.adapter} learned, by "
        f"{share.suite} {share.measure} (95 % interval {share.low * 100:.1f} to {share.high * 100:.1f} %), more than "
        f"{limit}{sure}"
    )


def unseen(shares: Iterable[LearnedShare]) -> list[str]:
    """Return why there are no shares, each measure of an adapter once."""
    return list(dict.fromkeys(share.sentence for share in shares if share.value is None))


__all__ = ["COLLAPSE", "collapse_sentence", "collapsed", "share_of", "unseen"]
