"""How much of what was learned is lost: what is said of it, and what is left unsaid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from s3lora.evaluate.items import clustered
from s3lora.evaluate.results import LearnedShare, Measure, MeasureColumn, SuiteOutcome
from s3lora.evaluate.shares import collapse_sentence, collapsed, share_of, unseen
from s3lora.statistics import learned, learned_share

LOSS = Measure("loss", "mean", "lower", "", unit="nats", role="utility")
EXACT = Measure("exact", "rate", "higher", "", role="utility")
SIZE = Measure("tokens", "mean", "neither", "")
Values = Sequence[float | None]


def share(
    measure: Measure,
    variant: Values,
    adapter: Values,
    base: Values,
    clusters: tuple[str, ...] | None = None,
) -> LearnedShare | None:
    sides = [
        SuiteOutcome({measure.name: MeasureColumn(tuple(values), None, clusters)})
        for values in (variant, adapter, base)
    ]
    return share_of("plan", measure, ("cut", sides[0]), ("full", sides[1]), sides[2])


def test_a_share_in_words() -> None:
    adapter, base = [1.0] * 20, [3.0] * 20
    found = share(LOSS, [1.0, 1.1] * 10, adapter, base)
    assert found is not None
    assert (found.value, found.n, found.reason) == (pytest.approx(0.025), 20, "")
    assert found.sentence == (
        "plan loss: cut has lost 2.5 % of what full learned (95 % interval 1.3 to 3.7 %, n = 20)."
    )
    assert (collapsed(found), collapse_sentence(found)) == (False, None)
    gained = share(LOSS, [0.9, 1.0] * 10, adapter, base)
    assert gained is not None
    assert gained.sentence.startswith("plan loss: cut has lost nothing (-2.5 %) of what full learned (95 % ")


def test_the_share_is_that_of_the_statistics() -> None:
    x, a, b = [1, 0, None, 1, 1] * 6, [1, 1, 1, 1, None] * 6, [0, 0, 1, 1, 0] * 6
    names = tuple(f"{i // 2}" for i in range(30))
    found = share(EXACT, x, a, b, names)
    kept = [i for i in range(30) if x[i] is not None and a[i] is not None]
    mine, full, alone = ([column[i] for i in kept] for column in (x, a, b))
    wanted = learned_share(mine, full, alone, None, [names[i] for i in kept], better="higher", rate=True)  # type: ignore[arg-type]
    assert found is not None
    assert wanted.share is not None
    assert (found.value, found.low, found.high, found.n) == (*wanted.share, len(kept))


def test_a_collapse_on_both_sides_of_the_threshold() -> None:
    found = LearnedShare("plan", "f1", "cut", "full", 0.3, 0.2, 0.4, 20, "", "")
    assert collapse_sentence(found) == (
        "utility collapse: cut has lost 30.0 % of what full learned, by plan f1 (95 % interval 20.0 to 40.0 %), more "
        "than 10 %"
    )
    for value, low, sure in ((0.101, 0.05, False), (0.101, 0.1, False), (0.3, 0.101, True)):
        said = collapse_sentence(replace(found, value=value, low=low))
        assert said is not None
        assert ("does not rule out that it is within 10 %" in said) != sure
    for value in (0.1, 0.05, -0.5):
        assert not collapsed(replace(found, value=value))
        assert collapse_sentence(replace(found, value=value)) is None


def test_small_absolute_losses_of_much_are_no_collapse() -> None:
    # The loss is 30 % above the adapter's, and 3 % of the way to the base.
    adapter = [0.12 + i / 1000 for i in range(20)]
    found = share(LOSS, [value * 1.3 for value in adapter], adapter, [value + 1.3 for value in adapter])
    assert found is not None
    assert found.value == pytest.approx(0.03, abs=0.005)
    assert not collapsed(found)


def test_a_measure_that_does_not_see_the_adapter_says_so() -> None:
    values = [float(i % 4) for i in range(40)]
    found = share(LOSS, [value + 5 for value in values], values, values)
    assert found is not None
    assert (found.value, found.low, found.high, found.n) == (None, None, None, 40)
    assert found.reason == learned.UNSEEN
    assert found.sentence.startswith("plan loss: no share of what full learned can be told: this measure does not see")
    assert "more data" not in found.sentence
    assert not collapsed(found)
    assert collapse_sentence(found) is None
    assert unseen([found, replace(found, variant="other")]) == [found.sentence]


def test_what_has_no_share() -> None:
    assert share(SIZE, [1] * 20, [1] * 20, [2] * 20) is None
    lacking = SuiteOutcome({})
    full = SuiteOutcome({"loss": MeasureColumn((1.0,) * 20)})
    assert share_of("plan", LOSS, ("cut", lacking), ("full", full), full) is None
    assert share_of("plan", LOSS, ("cut", full), ("full", full), lacking) is None
    apart = share(LOSS, [1.0, None], [None, 2.0], [1.0, 1.0])
    assert apart is not None
    assert (apart.n, apart.reason) == (0, "variant, adapter and base have no item in common")
    few = share(LOSS, [1.0] * 9, [1.0] * 9, [2.0] * 9)
    assert few is not None
    assert (few.value, few.reason) == (None, learned.FEW)


def test_items_that_share_an_identifier_are_clusters() -> None:
    column = MeasureColumn((1.0, 0.0, 1.0, 1.0))
    assert clustered(column, ["a", "b", "c", "d"]) == column
    assert clustered(column, [""] * 4) == column
    found = clustered(column, ["a", "", "a", ""])
    assert found.clusters == ("a", "item 1", "a", "item 3")
    assert found.values == column.values
