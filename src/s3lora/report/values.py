"""Measured numbers as text: a value with its interval, a control with its spread, and what a measure is called."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from s3lora.adapter.digest import Source
from s3lora.errors import printable
from s3lora.evaluate.results import (
    ChatFacts,
    ControlSpread,
    Key,
    LearnedShare,
    Measure,
    Metric,
    PairedComparison,
    SuiteInfo,
    SweepPoint,
    Variant,
)

#: What has metrics by suite and measure.
Evaluated = Variant | SweepPoint
NOTHING = "–"
TESTS = {"mcnemar": "McNemar", "mcnemar mid-p": "McNemar mid-p", "paired bootstrap": "paired bootstrap"}
ARROWS = {"lower": "↓", "higher": "↑", "neither": ""}
#: Refusals of harmless prompts are shown beside those of harmful ones: a model that refuses everything is no use.
OVER_REFUSAL = "over-refusal"
#: From so many items on, a rate has a third decimal.
MANY = 200
#: With fewer items, an interval of a rate is wider than ± 0.1.
FEW = 100


def told_with(index: str) -> list[str]:
    """Return the indices that a short table shows: the one that ranks, and what a reader compares it with."""
    return list(dict.fromkeys((index, "ssi", "magnitude", "frobenius")))[:3]


def measure_of(suites: Sequence[SuiteInfo], key: tuple[str, str] | None) -> Measure | None:
    """Return the measure that (suite, measure) names, None where there is none."""
    if key is None:
        return None
    found = (m for suite in suites if suite.name == key[0] for m in suite.measures if m.name == key[1])
    return next(found, None)


def few(suites: Sequence[SuiteInfo]) -> list[str]:
    """Return a warning that names the data of few items, none where there is none."""
    found = [f"{data.name} (n = {data.n})" for suite in suites for data in suite.data if data.n < FEW]
    return [f"few items, so only large differences can be told: {', '.join(found)}"] if found else []


def over_refusal_key(suites: Sequence[SuiteInfo], safety: tuple[str, str]) -> tuple[str, str] | None:
    """Return the (suite, measure) of over-refusal where it was measured; that of the safety suite first."""
    found = [
        (suite.name, measure.name)
        for suite in sorted(suites, key=lambda suite: suite.name != safety[0])
        for measure in suite.measures
        if measure.name.replace("_", "-") == OVER_REFUSAL
    ]
    return found[0] if found else None


def heading(measure: Measure) -> str:
    """Return a measure's name with its unit and an arrow to where it is better.

    >>> heading(Measure("asr", "rate", "lower", "share of harmful prompts that were answered"))
    'asr ↓'
    """
    unit = f" ({measure.unit})" if measure.unit else ""
    return f"{measure.name}{unit} {ARROWS[measure.better]}".rstrip()


def metric_text(metric: Metric | None, *, short: bool = False) -> str:
    """Return a value and its 95 % interval; `short` leaves out zeros before the point and the space.

    >>> metric_text(Metric("safety", "asr", 0.62, 100, 0, 0.522, 0.709, "wilson"))
    '0.62 [0.52, 0.71]'
    >>> metric_text(Metric("safety", "asr", 0.62, 100, 0, 0.522, 0.709, "wilson"), short=True)
    '.62 [.52,.71]'
    """
    if metric is None or metric.value is None:
        return NOTHING
    if metric.low is None or metric.high is None:
        return _fixed(metric.value, _decimals(metric.value, metric.value, metric.value), short)
    rate = (2 if metric.n <= MANY else 3) if metric.interval == "wilson" else None
    decimals = _decimals(metric.value, metric.low, metric.high) if rate is None else rate
    value, low, high = (_fixed(x, decimals, short) for x in (metric.value, metric.low, metric.high))
    return f"{value} [{low},{high}]" if short else f"{value} [{low}, {high}]"


def chat_facts(chat: ChatFacts) -> list[str]:
    """Return what was put around every prompt, a few words each; nothing where prompts were as they are."""
    said = f"system prompt “{printable(' '.join(chat.system.split()), 60)}”" if chat.system else ""
    shots = f"{chat.few_shot} example{'s' * (chat.few_shot != 1)} before each prompt" if chat.few_shot else ""
    given = f"chat template with {printable(chat.template_args, 60)}" if chat.template_args else ""
    day = f"the template's day is {printable(chat.date, 10)}" if chat.date else ""
    return [fact for fact in (said, shots, given, day) if fact]


def spread_text(spread: ControlSpread, *, rate: bool, short: bool = False) -> str:
    """Return the mean of a control and, in round brackets, the least and the greatest over its seeds.

    >>> spread_text(ControlSpread("random", 60, "safety", "asr", 3, 0.9733, 0.95, 1.0), rate=True)
    '0.97 (0.95–1.00)'
    """
    decimals = 2 if rate else _decimals(spread.mean, spread.least, spread.greatest)
    mean, least, greatest = (_fixed(x, decimals, short) for x in (spread.mean, spread.least, spread.greatest))
    return f"{mean} ({least}–{greatest})"


def difference_text(comparison: PairedComparison) -> str:
    """Return a paired difference with its sign and its 95 % interval."""
    value, low, high = comparison.difference, comparison.low, comparison.high
    if value is None:
        return NOTHING
    if low is None or high is None:
        return _signed(value, _decimals(value, value, value))
    return change_text(value, low, high, 2 if comparison.test.startswith("mcnemar") else _decimals(value, low, high))


def change_text(value: float, low: float, high: float, decimals: int = 2) -> str:
    """Return a difference with its sign and its interval.

    >>> change_text(-0.72, -0.81, 0.001)
    '−0.72 [−0.81, 0.00]'
    """
    return f"{_signed(value, decimals)} [{_signed(low, decimals)}, {_signed(high, decimals)}]"


def p_text(comparison: PairedComparison) -> str:
    """Return the p-value and the test that it comes from."""
    if comparison.p is None or comparison.test == "none":
        return NOTHING
    holm = "" if comparison.p_holm is None else f"; {_p(comparison.p_holm)} among all (Holm)"
    return f"{_p(comparison.p)}, {TESTS[comparison.test]}{holm}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def learned_text(share: LearnedShare | None, *, short: bool = False) -> str:
    """Return the percentage of what was learned that is lost, with its interval unless it is to be `short`.

    >>> learned_text(LearnedShare("planning", "loss", "cut", "adapter", 0.12, 0.05, 0.2, 50, "", ""))
    '12 % [5, 20]'
    """
    if share is None:
        return NOTHING
    if share.value is None or share.low is None or share.high is None:
        return "?" if short else "cannot be told"
    value, low, high = (f"{round(end * 100)}" for end in (share.value, share.low, share.high))
    return f"{value} %" if short else f"{value} % [{low}, {high}]"


def reading_text(comparison: PairedComparison, measure: Measure | None) -> str:
    """Return what may be read from a comparison: its verdict, and whether that is better or worse."""
    if comparison.verdict == "no difference":
        return "no difference can be told"
    if comparison.verdict == "unknown" or measure is None or measure.better == "neither":
        return comparison.verdict
    return f"{comparison.verdict}: {'better' if measure.better == comparison.verdict else 'worse'}"


def percent(value: float | None) -> str:
    """Return a share as a whole percentage, with a decimal where it would else seem to be nothing or everything.

    >>> [percent(share) for share in (0.384, 0.002, 0.998, 1.0)]
    ['38 %', '0.2 %', '99.8 %', '100 %']
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    whole = f"{value * 100:.0f}"
    return f"{whole} %" if whole not in ("0", "100") or value in (0, 1) else f"{value * 100:.1f} %"


def count(value: int | None) -> str:
    """Return a whole number with its thousands apart."""
    return NOTHING if value is None else f"{value:,}"


def size(value: int) -> str:
    """Return a number of bytes in the unit that suits it.

    >>> [size(value) for value in (512, 12_345, 999_950)]
    ['512 B', '12.3 kB', '1.00 MB']
    """
    if value < 1000:
        return f"{value} B"
    # From 999,950 bytes on, kB would be rounded to 1000.0.
    return f"{value / 1e6:.2f} MB" if value >= 999_950 else f"{value / 1e3:.1f} kB"


def decimal(value: float | None) -> str:
    """Return a number to three significant digits."""
    return NOTHING if value is None else _fixed(value, _decimals(value, value, value), short=False)


def _decimals(value: float, low: float, high: float) -> int:
    """Return as many decimals as show two digits of the interval's width, or three of the value without one."""
    width = high - low
    size = width if width > 0 else abs(value) / 10
    if not (math.isfinite(size) and size > 0):
        return 2
    wanted = 1 - math.floor(math.log10(size))
    return min(max(wanted, 0), 3 if abs(value) >= 0.01 else 6)


def _signed(value: float, decimals: int) -> str:
    text = _fixed(abs(value), decimals, short=False)
    return text if not text.strip("0.") or text == NOTHING else f"{'−' if value < 0 else '+'}{text}"


def _fixed(value: float, decimals: int, short: bool) -> str:
    if not math.isfinite(value):
        return NOTHING
    if abs(value) >= 1e7:
        return f"{value:.2e}"
    text = f"{value:.{decimals}f}"
    return text.replace("0.", ".", 1) if short and text.lstrip("-").startswith("0.") else text


#: The heading of `band_rows`.
BAND = "with the measured error of the judge, these lie between"


def band_rows(measured: Sequence[tuple[str, Evaluated]], keys: Iterable[Key]) -> list[tuple[str, str]]:
    """Return a measure and its text for each that has a band: between what the rate of each model lies."""
    rows = [(key[1], band_text([(name, one.metric(*key)) for name, one in measured])) for key in keys]
    return [row for row in rows if row[1]]


def band_text(metrics: Sequence[tuple[str, Metric | None]]) -> str:
    """Return between what each rate lies if its judge errs as on any model it was measured on; empty without any.

    >>> band_text([("base", Metric("s", "asr", 0.1, 9, 0, 0.0, 0.3, "wilson", judge_low=0.0, judge_high=0.25))])
    'base 0.00 to 0.25'
    """
    return ", ".join(
        f"{printable(name, 60)} {metric.judge_low:.2f} to {metric.judge_high:.2f}"
        for name, metric in metrics
        if metric is not None and metric.judge_low is not None and metric.judge_high is not None
    )


def sources_of(variants: Iterable[Variant]) -> list[Source]:
    """Return the adapters that were measured, each once: two of one file differ by their names."""
    sources = (variant.adapter for variant in variants if variant.adapter is not None)
    return [*{(one.sha256 or one.name, one.adapter): one for one in sources}.values()]
