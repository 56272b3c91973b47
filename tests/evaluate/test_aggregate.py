from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.evaluate import aggregate
from s3lora.evaluate.aggregate import allow_for_many, compare, metrics
from s3lora.evaluate.results import Better, Measure, MeasureColumn, Metric, PairedComparison, SuiteInfo, SuiteOutcome
from s3lora.statistics import (
    Interval,
    bootstrap_mean,
    paired_difference,
    paired_rate_difference,
    rate_interval,
    wilson,
)
from tests.reference import statistics as reference

Values = Sequence[float | None]

RATE = Measure("asr", "rate", "lower", "")
MEAN = Measure("f1", "mean", "higher", "", unit="points", role="utility")
LOSS = Measure("loss", "mean", "lower", "", unit="nats", role="utility")
SIZE = Measure("tokens", "mean", "neither", "")
EXACT = Measure("exact", "rate", "higher", "", role="utility")

quick = settings(max_examples=30)
maybe = st.none() | st.integers(0, 5).map(float)
bits = st.sampled_from([None, 0.0, 1.0])


def outcome(
    measure: Measure, values: Values, weights: Sequence[float] | None = None, clusters: Sequence[str] | None = None
) -> SuiteOutcome:
    column = MeasureColumn(
        tuple(values), None if weights is None else tuple(weights), None if clusters is None else tuple(clusters)
    )
    return SuiteOutcome({measure.name: column})


def suite(*measures: Measure) -> SuiteInfo:
    return SuiteInfo("s", measures, (), "")


def metric(measure: Measure, values: Values, weights: Sequence[float] | None = None) -> Metric:
    (found,) = metrics(suite(measure), outcome(measure, values, weights), 0)
    return found


def compared(
    measure: Measure, variant: Values, base: Values, weights: Sequence[float] | None = None, seed: int = 0
) -> PairedComparison:
    mine, its = outcome(measure, variant, weights), outcome(measure, base, weights)
    (found,) = compare(suite(measure), ("cut", mine), ("full", its), seed)
    return found


def ends(found: Metric | PairedComparison) -> tuple[float | None, float | None]:
    return found.low, found.high


def test_a_rate() -> None:
    found = metric(RATE, [1, 0, None, 1, 0, 0])
    assert found == Metric("s", "asr", 0.4, 5, 1, *wilson(2, 5)[1:], "wilson")


def test_a_mean_with_weights() -> None:
    # The item without a number weighs nothing, as losses have it.
    found = metric(LOSS, [2, 5, None, 4] * 4, [3, 1, 0, 2] * 4)
    assert found.value == pytest.approx(19 / 6)
    assert (found.n, found.missing, found.interval) == (12, 4, "bootstrap")
    assert ends(found) == bootstrap_mean([2, 5, 4] * 4, [3, 1, 2] * 4, seed=0)[1:]
    assert (metric(MEAN, [1, 2, 6]).value, found.values) == (3, ())


def test_the_seed_is_used() -> None:
    data = outcome(MEAN, [(17 * i % 31) / 7 for i in range(30)])
    assert ends(metrics(suite(MEAN), data, 0)[0]) != ends(metrics(suite(MEAN), data, 1)[0])


def test_too_little_for_an_interval() -> None:
    assert metric(MEAN, [None, 3, None]) == Metric("s", "f1", 3, 1, 2, None, None, "none", values=(3,))
    few = metric(LOSS, [2, 5, None, 4], [3, 1, 0, 2])
    assert few == Metric("s", "loss", 19 / 6, 3, 1, None, None, "none", values=(2, 5, 4))
    assert metric(MEAN, range(9)).interval == "none"
    assert metric(MEAN, range(10)).interval == "bootstrap"
    assert metric(MEAN, [None, None]) == Metric("s", "f1", None, 0, 2, None, None, "none")
    assert metric(RATE, []) == Metric("s", "asr", None, 0, 0, None, None, "none")
    # Wilson's interval of one item is honest.
    assert metric(RATE, [1]).interval == "wilson"


def test_measures_in_their_order_and_only_those_that_are_there() -> None:
    both = SuiteOutcome({"f1": MeasureColumn((1, 2)), "asr": MeasureColumn((1, 0))})
    assert [m.measure for m in metrics(suite(RATE, LOSS, MEAN), both, 0)] == ["asr", "f1"]
    only = SuiteOutcome({"f1": MeasureColumn((1, 2))})
    info = suite(RATE, LOSS, MEAN)
    for one, two in ((both, only), (only, both)):
        assert [c.measure for c in compare(info, ("a", one), ("b", two), 0)] == ["f1"]


def test_a_rate_is_compared_variant_minus_reference() -> None:
    variant, base = [0] * 9 + [1] * 3, [1] * 12
    found = compared(RATE, variant, base)
    assert found.difference == -0.75
    assert ends(found) == paired_rate_difference(base, variant)[1:]
    assert (found.n, found.test, found.verdict) == (12, "mcnemar mid-p", "lower")
    assert found.p == 1 / 2**9
    assert (found.suite, found.measure, found.variant, found.reference) == ("s", "asr", "cut", "full")
    assert found.sentence == (
        f"asr: cut is lower than full by 0.75, which is better (95 % interval {found.low:+.3g} to {found.high:+.3g}, "
        "n = 12, p = 0.002)."
    )


def test_a_mean_is_compared_variant_minus_reference() -> None:
    variant, base = [1.0, 2, 3, 4, 5, 6, 7, 8] * 2, [2.0, 4, 4, 6, 7, 7, 8, 9] * 2
    weights = [1.0, 2, 1, 1, 2, 1, 1, 1] * 2
    found = compared(MEAN, variant, base, weights)
    interval, p = paired_difference(base, variant, weights, seed=0)
    assert (found.difference, found.low, found.high, found.p) == (*interval, p)
    assert (found.n, found.test, found.verdict) == (16, "paired bootstrap", "lower")
    assert found.sentence.startswith("f1: cut is lower than full by 1.5 points, which is worse (95 % interval -1.")
    uneven = [x + x * x / 97 + i / 31 for i, x in enumerate(base)]
    assert compared(MEAN, uneven, base, seed=5).low != compared(MEAN, uneven, base).low


def test_only_items_that_both_have_are_compared() -> None:
    # On its own items the variant has the mean 0, the reference 5; on those of both nothing differs.
    variant = [None, None, 0, 0, 0, 0, 0, 0, 0, 0]
    base = [9.0, 9, 9, 9, 9, 0, 0, 0, None, None]
    weights = [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    kept = compared(SIZE, variant, base, weights)
    assert kept == compared(SIZE, variant[2:8], base[2:8])
    assert kept.n == 6
    rates = compared(RATE, [1, None, 0, 1], [None, 1, 0, 1])
    assert (rates.n, rates.difference, rates.p, rates.verdict) == (2, 0, 1, "no difference")


def test_weights_that_are_missing_on_one_side_only() -> None:
    mine = SuiteOutcome({"loss": MeasureColumn((1.0, None, 3.0), (4, 0, 2))})
    its = SuiteOutcome({"loss": MeasureColumn((2.0, 2.0, 2.0), (4, 7, 2))})
    (found,) = compare(suite(LOSS), ("cut", mine), ("full", its), 0)
    assert found.difference == pytest.approx((4 * -1 + 2 * 1) / 6)
    (other,) = compare(suite(LOSS), ("full", its), ("cut", mine), 0)
    assert other.difference == pytest.approx(-(4 * -1 + 2 * 1) / 6)


def test_nothing_in_common() -> None:
    found = compared(RATE, [1, None], [None, 0])
    assert found == PairedComparison(
        "s", "asr", "cut", "full", 0, None, None, None, None, "none", "unknown",
        "asr: cut and full have no item in common, so nothing is compared.",
    )  # fmt: skip


def test_few_items_in_common_are_listed() -> None:
    found = compared(MEAN, [5.0, None], [2.0, 3.0])
    assert (found.n, found.difference, *ends(found), found.p) == (1, 3, None, None, None)
    assert (found.verdict, found.test) == ("unknown", "none")
    assert found.sentence == (
        "f1: cut and full have fewer than 10 items in common, which give no interval; the differences are +3."
    )
    more = compared(MEAN, [1.0] * 9, [0.5] * 3 + [2.0] * 6)
    assert (more.verdict, *ends(more)) == ("unknown", None, None)
    assert more.sentence.endswith("the differences are +0.5, +0.5, +0.5, -1, -1, -1, -1, -1, -1.")
    assert compared(RATE, [1], [0]).verdict == "no difference"


def test_clusters_are_what_counts() -> None:
    names = [str(i // 5) for i in range(50)]
    variant, base = [float(i // 5 < 2) for i in range(50)], [float(i // 5 < 8) for i in range(50)]
    mine, its = (outcome(RATE, values, None, names) for values in (variant, base))
    (found,) = compare(suite(RATE), ("cut", mine), ("full", its), 0)
    assert (found.n, found.clusters) == (50, 10)
    assert (found.low, found.high) == paired_rate_difference(base, variant, names)[1:]
    # Six behaviours changed sides: as much as six items, not thirty.
    assert found.p == pytest.approx(2 * 0.5**6 / 2)
    assert f"n = 50 in 10 clusters, p = {found.p:.2g}" in found.sentence
    alone = compared(RATE, variant, base)
    assert (alone.clusters, alone.p) == (None, 2 * 0.5**30 / 2)
    (rate,) = metrics(suite(RATE), mine, 0)
    assert (rate.n, rate.clusters) == (50, 10)
    assert ends(rate) == rate_interval(variant, names)[1:]
    (mean,) = metrics(suite(MEAN), outcome(MEAN, [i % 7 for i in range(50)], None, names), 0)
    assert ends(mean) == bootstrap_mean([i % 7 for i in range(50)], None, names, seed=0)[1:]
    # Fifty items of nine behaviours are few.
    (few,) = metrics(suite(MEAN), outcome(MEAN, variant, None, [*names[5:], *["1"] * 5]), 0)
    assert (few.interval, few.clusters, len(few.values)) == ("none", 9, 9)


def test_a_cluster_without_a_number_is_none() -> None:
    names = ["a", "a", "b", "c"]
    mine, its = outcome(RATE, [1, 1, None, 0], None, names), outcome(RATE, [0, 0, 1, None], None, names)
    (found,) = compare(suite(RATE), ("cut", mine), ("full", its), 0)
    assert (found.n, found.clusters) == (2, 1)


def test_other_numbers_of_items_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        compared(RATE, [1, 0], [1])


@pytest.mark.parametrize("measure", [RATE, MEAN])
def test_all_equal(measure: Measure) -> None:
    found = compared(measure, [1, 0, 1, 1, 0, 0, 1] * 2, [1, 0, 1, 1, 0, 0, 1] * 2)
    assert (found.difference, found.p, found.verdict) == (0, 1, "no difference")
    assert found.sentence.startswith(f"{measure.name}: no difference can be told between cut and full (+0; 95 % ")


def test_the_interval_alone_decides() -> None:
    unlike = 0
    for table in (table for n in range(6, 13) for table in reference.tables(n)):
        full, cut = reference.lists(table)
        interval, found = paired_rate_difference(full, cut), compared(RATE, cut, full)
        wanted = "no difference" if interval.low <= 0 <= interval.high else "lower" if interval.high < 0 else "higher"
        assert found.verdict == wanted
        assert ("no difference can be told" in found.sentence) == (wanted == "no difference")
        assert found.p is not None
        unlike += (found.p < 0.05) != (wanted != "no difference")
    assert unlike > 5


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.01, 0.2, "no difference"), (0.0, 0.2, "no difference"), (-0.2, 0.0, "no difference"), (0.01, 0.2, "higher"),
     (-0.2, -0.01, "lower")],
)  # fmt: skip
def test_an_interval_with_zero_is_no_difference(low: float, high: float, verdict: str) -> None:
    assert aggregate._verdict(Interval((low + high) / 2, low, high)) == verdict


def many(*risen: int) -> list[tuple[str, tuple[PairedComparison, ...]]]:
    """Return comparisons of 40 items with none, of which so many rose."""
    full = [0] * 40
    return [(str(i), (compared(RATE, [1] * number + [0] * (40 - number), full),)) for i, number in enumerate(risen)]


def test_many_comparisons_are_allowed_for() -> None:
    measures = {("s", "asr"): RATE}
    asked = many(6, 10, 0, 0)
    found = [one for (one,) in allow_for_many(asked, measures)]
    assert [one.p_holm for one in found] == pytest.approx([3 / 2**6, 4 / 2**10, 1, 1])
    assert [one.verdict for one in found] == ["higher", "higher", "no difference", "no difference"]
    more = [one for (one,) in allow_for_many(many(6, 10, 0, 0, 1, 2), measures)]
    assert [one.verdict for one in more[:2]] == ["no difference", "higher"]
    assert more[0].p == 1 / 2**6
    assert more[0].sentence.startswith("asr: no difference can be told between cut and full (+0.15; 95 % interval +0.")
    assert more[0].sentence.endswith("n = 40, p = 0.016, among 6 p = 0.078).")
    assert more[1].sentence.endswith("n = 40, p = 0.00098, among 6 p = 0.0059).")
    assert [one.difference for one in more] == [one.difference for _, (one,) in many(6, 10, 0, 0, 1, 2)]


def test_one_comparison_is_not_many() -> None:
    measures = {("s", "asr"): RATE, ("s", "f1"): MEAN}
    [(_, alone)] = asked = many(6)
    assert allow_for_many(asked, measures) == [alone]
    assert alone[0].p_holm is None
    # The same thing compared twice is one comparison, and another measure another family.
    assert allow_for_many([("same", alone), ("same", alone)], measures) == [alone, alone]
    other = (compared(MEAN, [float(i) for i in range(12)], [float(i % 5) for i in range(12)]),)
    assert allow_for_many([("a", alone), ("b", other)], measures) == [alone, other]
    # What has no p is counted with none.
    few = (compared(RATE, [None], [1]),)
    assert allow_for_many([("a", alone), ("b", few)], measures) == [alone, few]


@pytest.mark.parametrize(
    ("better", "verdict", "words"),
    [
        ("lower", "lower", ", which is better"),
        ("lower", "higher", ", which is worse"),
        ("higher", "higher", ", which is better"),
        ("higher", "lower", ", which is worse"),
        ("neither", "lower", ""),
        ("neither", "higher", ""),
    ],
)
def test_which_direction_is_better(better: Better, verdict: str, words: str) -> None:
    base = [3.0, 4, 5, 3, 4, 5, 4, 3, 4, 5]
    variant = [x + (1 if verdict == "higher" else -1) for x in base]
    found = compared(Measure("m", "mean", better, ""), variant, base)
    assert found.verdict == verdict
    assert found.sentence.startswith(f"m: cut is {verdict} than full by 1{words} (95 % interval ")


@pytest.mark.parametrize(
    ("p", "shown"), [(0.0496, "p < 0.05"), (0.049, "p = 0.049"), (0.0503, "p = 0.05"), (1, "p = 1")]
)
def test_a_p_is_not_rounded_to_the_other_side(p: float, shown: str) -> None:
    found = PairedComparison("s", "f1", "cut", "full", 9, 0.1, 0.01, 0.2, p, "none", "higher", "")
    assert f"n = 9, {shown})" in aggregate._sentence(MEAN, found)


@quick
@given(st.sampled_from([RATE, MEAN, LOSS, SIZE]), st.data())
def test_no_sentence_says_more_than_interval_and_test(measure: Measure, data: st.DataObject) -> None:
    item = bits if measure.kind == "rate" else maybe
    pairs = data.draw(st.lists(st.tuples(item, item), max_size=20))
    variant, base = [a for a, _ in pairs], [b for _, b in pairs]
    found, other = compared(measure, variant, base), compared(measure, base, variant)
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    assert found.n == len(both)
    told = re.search(r"\bis (lower|higher) than\b", found.sentence)
    assert (told[1] if told else None) == (found.verdict if found.verdict in ("lower", "higher") else None)
    if found.low is not None and found.high is not None and found.p is not None:
        assert found.difference is not None
        assert found.difference == pytest.approx(sum(a - b for a, b in both) / len(both), abs=1e-12)
        assert found.low <= found.difference <= found.high
        clear = not found.low <= 0 <= found.high
        assert (found.verdict != "no difference") == clear
        # Three items that differ can be chance, whatever they are.
        assert not clear or measure.kind == "mean" or sum(a != b for a, b in both) > 3
        assert f"{found.low:+.3g} to {found.high:+.3g}, n = {len(both)}" in found.sentence
    reverse = {"lower": "higher", "higher": "lower"}
    assert other.verdict == reverse.get(found.verdict, found.verdict)
