from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from s3lora.evaluate import aggregate
from s3lora.evaluate.aggregate import collapse_sentence, compare, metrics, relative_loss
from s3lora.evaluate.results import Better, Measure, MeasureColumn, Metric, PairedComparison, SuiteInfo, SuiteOutcome
from s3lora.statistics import Interval, bootstrap_mean, paired_difference, paired_rate_difference, wilson
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


def outcome(measure: Measure, values: Values, weights: Sequence[float] | None = None) -> SuiteOutcome:
    return SuiteOutcome({measure.name: MeasureColumn(tuple(values), None if weights is None else tuple(weights))})


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


def lost(measure: Measure, variant: Values, base: Values, weights: Sequence[float] | None = None) -> Interval | None:
    return relative_loss(measure, outcome(measure, variant, weights), outcome(measure, base, weights), 0)


def ends(found: Metric | PairedComparison) -> tuple[float | None, float | None]:
    return found.low, found.high


def test_a_rate() -> None:
    found = metric(RATE, [1, 0, None, 1, 0, 0])
    assert found == Metric("s", "asr", 0.4, 5, 1, *wilson(2, 5)[1:], "wilson")


def test_a_mean_with_weights() -> None:
    # The item without a number weighs nothing, as losses have it.
    found = metric(LOSS, [2, 5, None, 4], [3, 1, 0, 2])
    assert found.value == pytest.approx(19 / 6)
    assert (found.n, found.missing, found.interval) == (3, 1, "bootstrap")
    assert ends(found) == bootstrap_mean([2, 5, 4], [3, 1, 2], seed=0)[1:]
    assert metric(MEAN, [1, 2, 6]).value == 3


def test_the_seed_is_used() -> None:
    data = outcome(MEAN, [(17 * i % 31) / 7 for i in range(30)])
    assert ends(metrics(suite(MEAN), data, 0)[0]) != ends(metrics(suite(MEAN), data, 1)[0])


def test_too_little_for_an_interval() -> None:
    assert metric(MEAN, [None, 3, None]) == Metric("s", "f1", 3, 1, 2, None, None, "none")
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
        assert relative_loss(RATE, one, two, 0) is None


def test_a_rate_is_compared_variant_minus_reference() -> None:
    variant, base = [0] * 9 + [1] * 3, [1] * 12
    found = compared(RATE, variant, base)
    assert found.difference == -0.75
    assert ends(found) == paired_rate_difference(base, variant)[1:]
    assert (found.n, found.test, found.verdict) == (12, "mcnemar", "lower")
    assert found.p == 2 / 2**9
    assert (found.suite, found.measure, found.variant, found.reference) == ("s", "asr", "cut", "full")
    assert found.sentence == (
        "asr: cut is lower than full by 0.75, which is better (95 % interval -0.911 to -0.378, n = 12, p = 0.0039)."
    )


def test_a_mean_is_compared_variant_minus_reference() -> None:
    variant, base = [1.0, 2, 3, 4, 5, 6, 7, 8], [2.0, 4, 4, 6, 7, 7, 8, 9]
    weights = [1.0, 2, 1, 1, 2, 1, 1, 1]
    found = compared(MEAN, variant, base, weights)
    interval, p = paired_difference(base, variant, weights, seed=0)
    assert (found.difference, found.low, found.high, found.p) == (*interval, p)
    assert (found.n, found.test, found.verdict) == (8, "paired bootstrap", "lower")
    assert found.sentence.startswith("f1: cut is lower than full by 1.5 points, which is worse (95 % interval -1.")
    uneven = [x + x * x / 97 for x in base]
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
    assert lost(MEAN, [None, 2, 4, 3], [1, 4, 4, None]) == lost(MEAN, [2, 4], [4, 4])


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
    assert lost(MEAN, [1, None], [None, 0]) is None


def test_one_item_in_common_is_no_evidence() -> None:
    found = compared(MEAN, [5.0, None], [2.0, 3.0])
    assert (found.n, found.difference, *ends(found), found.p) == (1, 3, None, None, None)
    assert (found.verdict, found.test) == ("unknown", "none")
    assert found.sentence == "f1: cut and full have one item in common, which tells nothing."
    assert lost(MEAN, [5.0, None], [2.0, 3.0]) is None
    assert compared(RATE, [1], [0]).verdict == "no difference"


def test_other_numbers_of_items_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        compared(RATE, [1, 0], [1])


@pytest.mark.parametrize("measure", [RATE, MEAN])
def test_all_equal(measure: Measure) -> None:
    found = compared(measure, [1, 0, 1, 1, 0, 0, 1], [1, 0, 1, 1, 0, 0, 1])
    assert (found.difference, found.p, found.verdict) == (0, 1, "no difference")
    assert found.sentence.startswith(f"{measure.name}: no difference can be told between cut and full (+0; 95 % ")


def disagreeing() -> list[tuple[reference.Table, Interval, float]]:
    """Return tables of 6 to 12 items whose interval leaves out 0 although McNemar's p is 0.05 or more."""
    found = []
    for table in (table for n in range(6, 13) for table in reference.tables(n)):
        p = float(reference.mcnemar(table[1], table[2]))
        low, high = reference.newcombe(table) if p >= 0.05 and table[1] != table[2] else (0.0, 0.0)
        if low > 0 or high < 0:
            found.append((table, Interval(0, low, high), p))
    return found


def test_interval_and_test_that_disagree_make_no_difference() -> None:
    cases = disagreeing()
    assert len(cases) > 20
    for table, interval, p in cases:
        full, cut = reference.lists(table)
        found = compared(RATE, cut, full)
        assert ends(found) == pytest.approx(interval[1:], abs=1e-6)
        assert found.p == pytest.approx(p)
        assert found.verdict == "no difference"
        assert "no difference can be told" in found.sentence


def test_a_small_p_does_not_help_an_interval_with_zero() -> None:
    assert aggregate._verdict(Interval(0.1, -0.01, 0.2), 0.01) == "no difference"
    assert aggregate._verdict(Interval(0.1, 0.0, 0.2), 0.01) == "no difference"
    assert aggregate._verdict(Interval(-0.1, -0.2, 0.0), 0.01) == "no difference"
    assert aggregate._verdict(Interval(0.1, 0.01, 0.2), 0.05) == "no difference"
    assert aggregate._verdict(Interval(0.1, 0.01, 0.2), 0.049) == "higher"
    assert aggregate._verdict(Interval(-0.1, -0.2, -0.01), 0.049) == "lower"


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
    base = [3.0, 4, 5, 3, 4, 5, 4, 3]
    variant = [x + (1 if verdict == "higher" else -1) for x in base]
    found = compared(Measure("m", "mean", better, ""), variant, base)
    assert found.verdict == verdict
    assert found.sentence.startswith(f"m: cut is {verdict} than full by 1{words} (95 % interval ")


@pytest.mark.parametrize(
    ("p", "shown"), [(0.0496, "p < 0.05"), (0.049, "p = 0.049"), (0.0503, "p = 0.05"), (1, "p = 1")]
)
def test_a_p_is_not_rounded_to_the_other_side(p: float, shown: str) -> None:
    found = Interval(0.1, 0.01, 0.2)
    sentence = aggregate._sentence(MEAN, "cut", "full", found, p, 9, aggregate._verdict(found, p))
    assert f"n = 9, {shown})" in sentence


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
        clear = not found.low <= 0 <= found.high and found.p < 0.05
        assert (found.verdict != "no difference") == clear
        # Fewer than six items that differ can be chance, whatever they are.
        assert not clear or sum(a != b for a, b in both) > 5
        assert f"{found.low:+.3g} to {found.high:+.3g}, n = {len(both)}" in found.sentence
    reverse = {"lower": "higher", "higher": "lower"}
    assert other.verdict == reverse.get(found.verdict, found.verdict)


@pytest.mark.parametrize(
    ("measure", "variant", "loss"),
    [
        (MEAN, [1.0, 2, 3], 0.5),
        (MEAN, [3.0, 6, 9], -0.5),
        (LOSS, [3.0, 6, 9], 0.5),
        (LOSS, [1.0, 2, 3], -0.5),
    ],
)
def test_a_loss_is_what_became_worse(measure: Measure, variant: Values, loss: float) -> None:
    assert lost(measure, variant, [2.0, 4, 6]) == (loss, loss, loss)


def test_the_interval_of_a_loss_is_turned_with_it() -> None:
    variant, base = [1.0, 4, 3, 5], [2.0, 3, 4, 9]
    higher, lower = lost(MEAN, variant, base), lost(LOSS, variant, base)
    assert higher is not None
    assert lower is not None
    assert higher.value == pytest.approx(5 / 18)
    assert higher.low < higher.value < higher.high
    assert (-higher.value, -higher.high, -higher.low) == lower


def test_a_loss_has_weights() -> None:
    found = lost(LOSS, [2, 9, None, 4], [1, 9, 9, 4], [3, 1, 0, 2])
    assert found is not None
    assert found.value == pytest.approx((6 + 9 + 8) / (3 + 9 + 8) - 1)


def test_no_loss_from_nothing_or_without_a_direction() -> None:
    assert lost(MEAN, [1, 2], [0, 0]) is None
    assert lost(EXACT, [1, 1], [0, 0]) is None
    assert lost(SIZE, [1, 2], [2, 4]) is None


def test_a_rate_that_did_not_change_may_have_been_lost_all_the_same() -> None:
    # Ten answers that are as they were do not show that less than a tenth of all is lost.
    found = lost(EXACT, [1] * 8 + [0] * 2, [1] * 8 + [0] * 2)
    assert found is not None
    assert found.value == 0
    assert found.low < 0 < 0.1 < found.high
    many = lost(EXACT, [1] * 200, [1] * 200)
    assert many is not None
    assert many.high < 0.02
    # Four right answers that became none are too few for a certain collapse.
    few = lost(EXACT, [0] * 25, [1] * 4 + [0] * 21)
    assert few is not None
    assert (few.value, few.high) == (1, 1)
    assert few.low < 0.1


def collapse(value: float, low: float, high: float) -> str | None:
    return collapse_sentence("plan", MEAN, "cut", "full", Interval(value, low, high))


def test_collapse_on_both_sides_of_the_threshold() -> None:
    assert collapse(0.1, 0.05, 0.15) is None
    assert collapse(0.05, -0.1, 0.3) is None
    assert collapse(-0.5, -0.6, -0.4) is None
    assert collapse(0.3, 0.2, 0.4) == (
        "utility collapse: plan f1 of cut is 30.0 % worse than that of full (95 % interval 20.0 to 40.0 %), "
        "more than 10 %"
    )
    assert collapse(0.101, 0.1, 0.11) == (
        "utility collapse: plan f1 of cut is 10.1 % worse than that of full (95 % interval 10.0 to 11.0 %), more than "
        "10 %; the interval does not rule out that it is within 10 %"
    )
    unsure = collapse(0.3, -0.2, 0.6)
    assert unsure is not None
    assert unsure.endswith(
        "(95 % interval -20.0 to 60.0 %), more than 10 %; the interval does not rule out that it is within 10 %"
    )


@pytest.mark.parametrize("measure", [MEAN, EXACT])
def test_a_loss_of_exactly_a_tenth_is_no_collapse(measure: Measure) -> None:
    found = lost(measure, [1] * 9 + [0], [1] * 10)
    assert found is not None
    assert collapse_sentence("plan", measure, "cut", "full", found) is None
    more = lost(measure, [1] * 8 + [0] * 2, [1] * 10)
    assert more is not None
    assert collapse_sentence("plan", measure, "cut", "full", more) is not None


@quick
@given(st.sampled_from([MEAN, LOSS, EXACT]), st.data())
def test_losses_of_anything(measure: Measure, data: st.DataObject) -> None:
    item = bits if measure.kind == "rate" else maybe
    pairs = data.draw(st.lists(st.tuples(item, item), max_size=12))
    found = lost(measure, [a for a, _ in pairs], [b for _, b in pairs])
    assume(found is not None)
    assert found is not None
    assert math.isfinite(found.value)
    assert not any(map(math.isnan, found))
    assert found.low <= found.value <= found.high
    text = collapse_sentence("s", measure, "cut", "full", found)
    assert (text is not None) == (found.value > 0.1)
    assert text is None or ("does not rule out" in text) == (found.low <= 0.1)
