"""Every selection rule, on units whose right answer can be seen by eye."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from s3lora import Fraction, Gap, Null, Outlier, SelectionError, Threshold, Top, UsageError, scan, select
from s3lora.choose.null import null_sharpness
from s3lora.choose.ranking import Context, Unit
from s3lora.choose.rules import DEFAULT_RULE
from s3lora.choose.ties import rounded
from s3lora.spectrum.indices import INDICES
from tests.support import make_adapter

SSI = Context(INDICES["ssi"], "mas-svd", None)
STABLE_RANK = Context(INDICES["stable_rank"], "mas-svd", None)


def units(*values: float, kind: str = "q_proj", sign: float = 1.0) -> list[Unit]:
    """Return units that are ranked already, sharpest first; `sign` is −1 where low is sharp."""
    return [
        Unit(f"m{i}", v, rounded(sign * v, scale_free=True), kind, (f"m{i}",), ((16, 12, 4),))
        for i, v in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        (Top(2), (0.9, 0.8, 0.7), (0, 1)),
        (Top(0), (0.9, 0.8), ()),
        (Top(5), (0.9, 0.8), (0, 1)),
        (DEFAULT_RULE, tuple(np.linspace(0.9, 0.1, 40)), tuple(range(10))),
        (DEFAULT_RULE, (0.9, 0.8, 0.7, 0.6, 0.5), (0, 1)),
        (DEFAULT_RULE, (0.9,), (0,)),
        (Fraction(0.5), (0.9, 0.8, 0.7), (0, 1)),  # 1.5 rounds up
        (Fraction(0.1), (0.9, 0.8, 0.7), ()),
        (Fraction(1), (0.9, 0.8), (0, 1)),
        (Threshold(0.8), (0.9, 0.8, 0.7), (0, 1)),
        (Threshold(2.0), (0.9, 0.8), ()),
        (Gap(), (0.9, 0.88, 0.4, 0.39, 0.38, 0.1), (0, 1)),  # the larger drop below the half does not count
        (Gap(), (0.9, 0.2), (0,)),
        (Gap(), (0.9,), ()),
        (Gap(), (0.5, 0.5, 0.5, 0.5), ()),
        (Outlier(), (5.0, 1.2, 1.1, 1.0, 0.9, 0.8), (0,)),
        (Outlier(40), (5.0, 1.2, 1.1, 1.0, 0.9, 0.8), ()),
        (Outlier(), (1.2, 1.1, 1.0, 0.9, -9.0), ()),  # an outlier on the dull side
    ],
    ids=str,
)
def test_chosen_positions(rule, values, expected):
    assert rule.choose(units(*values), SSI).chosen == expected


def test_threshold_is_at_most_where_low_is_sharp():
    ranked = units(1.1, 1.5, 3.9, sign=-1.0)
    verdict = Threshold(1.5).choose(ranked, STABLE_RANK)
    assert verdict.chosen == (0, 1)
    assert "at most 1.5" in verdict.reason


def test_default_says_that_it_stops_at_half():
    (warning,) = DEFAULT_RULE.choose(units(0.9, 0.8, 0.7, 0.6), SSI).warnings
    assert "top 10 is capped at 2" in warning
    assert Top(2).choose(units(0.9, 0.8, 0.7, 0.6), SSI).warnings == ()


def test_outliers_are_looked_for_within_a_projection():
    values = (9.0, 8.5, 8.0, 7.5, 7.0, 2.0, 1.2, 1.1, 1.0, 0.9, 0.8)
    mixed = [*units(*values[:5], kind="v_proj"), *units(*values[5:], kind="q_proj")]
    assert Outlier().choose(mixed, SSI).chosen == (5,)
    assert 5 not in Outlier().choose(units(*values), SSI).chosen


def test_outlier_names_projections_without_a_spread():
    ranked = [*units(9.0, 1.0, 1.0, 1.0, 1.0, kind="equal"), *units(9.0, 1.0, kind="few")]
    verdict = Outlier().choose(ranked, SSI)
    assert verdict.chosen == ()
    assert "equal" in verdict.warnings[0]
    assert "few" in verdict.warnings[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Top(-1),
        lambda: Top(3, share=0.0),
        lambda: Fraction(1.1),
        lambda: Fraction(float("nan")),
        lambda: Threshold(float("inf")),
        lambda: Outlier(0.0),
        lambda: Null(1.0),
        lambda: Null(0.5, draws=10),
        lambda: Null(0.999, draws=200),
        lambda: Null(seed=-1),
    ],
)
def test_rules_that_cannot_be_meant(make):
    with pytest.raises(UsageError):
        make()


def test_null_takes_about_one_in_ten_of_random_updates(tmp_path: Path):
    modules = {f"model.layers.{i}.self_attn.q_proj": (48, 32, 4) for i in range(200)}
    measured = scan(make_adapter(tmp_path / "gaussian", modules))
    for index in ("ssi", "stable_rank"):
        chosen = len(select(measured, Null(0.9, draws=400), index=index).chosen)
        assert 6 <= chosen <= 36, index  # 20 expected, ± 3.5 standard deviations of count and quantile together


def test_null_finds_the_module_that_is_sharper_than_chance(tmp_path: Path):
    paths = [f"model.layers.{i}.self_attn.q_proj" for i in range(6)]
    measured = scan(make_adapter(tmp_path / "a", dict.fromkeys(paths, (48, 32, 4))))
    assert select(measured, Null(0.99)).paths == ()
    sharp = dataclasses.replace(measured.modules[3], indices={**measured.modules[3].indices, "ssi": 0.9})
    modules = (*measured.modules[:3], sharp, *measured.modules[4:])
    assert select(dataclasses.replace(measured, modules=modules), Null(0.99)).paths == (paths[3],)


def test_null_is_seeded_and_each_shape_has_its_own_stream():
    limit = null_sharpness((16, 12, 4), SSI, 0.9, 50, 7)
    assert limit == null_sharpness((16, 12, 4), SSI, 0.9, 50, 7)
    assert limit != null_sharpness((16, 12, 4), SSI, 0.9, 50, 8)
    assert null_sharpness((16, 12, 2), SSI, 0.9, 50, 7) > limit  # fewer components, sharper by chance


@pytest.mark.parametrize(
    "context",
    [
        Context(INDICES["magnitude"], "mas-svd", None),
        Context(INDICES["weighted_ssi"], "mas-svd", None),
        Context(INDICES["frobenius"], "svd", None),
        Context(INDICES["kurtosis"], "mas-svd", None),
        Context(None, "mas-svd", None),
        Context(INDICES["ssi"], "released", None),
        Context(INDICES["ssi"], "spsvd", None, "l1"),
    ],
)
def test_null_refuses_what_it_does_not_simulate(context: Context):
    with pytest.raises(SelectionError):
        Null().choose(units(0.9, 0.8), context)
