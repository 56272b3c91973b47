"""Ranking, filters, units, controls and shares."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s3lora import (
    Filter,
    Fraction,
    NothingToAuditError,
    Scan,
    SelectionError,
    Threshold,
    Top,
    UsageError,
    scan,
    select,
)
from s3lora.spectrum.indices import INDICES
from tests.planning import dense, record, scan_of
from tests.support import make_adapter

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def grid(layers: int = 4, seed: int = 0) -> Scan:
    """Return a scan of q, k, v of some layers with distinct random indices."""
    random = np.random.default_rng(seed)
    return scan_of(
        record(f"model.layers.{i}.self_attn.{p}", float(random.random())) for i in range(layers) for p in PROJECTIONS
    )


@pytest.mark.parametrize("index", sorted(INDICES))
def test_every_ranking_takes_its_sharp_end(index: str):
    values = dict(zip(("a.0.x", "a.1.x", "a.2.x", "a.3.x"), (1.5, 4.0, 0.2, 3.0), strict=True))
    measured = scan_of(record(path, **{"value" if index == "ssi" else index: v}) for path, v in values.items())
    order = sorted(values, key=values.__getitem__, reverse=INDICES[index].sharp == "high")
    plan = select(measured, Top(3), index=index.replace("_", "-"))
    assert plan.index == index
    assert list(plan.paths) == order[:3]
    assert [choice.value for choice in plan.chosen] == [values[path] for path in order[:3]]
    assert [choice.position for choice in plan.chosen] == [1, 2, 3]


def test_ties_keep_the_order_of_the_model():
    paths = [f"model.layers.{i}.q_proj" for i in (2, 10, 11, 30)]
    measured = scan_of(record(path, 0.5 if i else 0.4) for i, path in enumerate(paths))
    assert select(measured, Top(2)).paths == tuple(paths[1:3])
    same = scan_of(record(path, 0.5, stable_rank=2.0) for path in paths)
    assert select(same, Top(3), index="stable_rank").paths == tuple(paths[:3])


def test_zero_updates_are_never_chosen():
    measured = scan_of([record("l.0.q", 0.1), record("l.1.q", zero=True), record("l.2.q", 0.2)])
    for index in ("ssi", "frobenius", "random", "random-matched"):
        plan = select(measured, Fraction(1), index=index)
        assert sorted(plan.paths) == ["l.0.q", "l.2.q"], index
        assert plan.candidates == 2
    with pytest.raises(NothingToAuditError, match="zero updates"):
        select(scan_of([record("l.1.q", zero=True)]))


def test_undefined_indices_are_no_candidates():
    measured = scan_of([record("l.0.q", None), record("l.1.q", 0.2)])
    assert select(measured, Top(5)).paths == ("l.1.q",)
    with pytest.raises(NothingToAuditError, match="undefined"):
        select(scan_of([record("l.0.q", None)]))


def test_filters_hold_together():
    measured = grid()
    only = Filter(projections=("q_proj", "v_proj"), layers=(1, 2), pattern=r"self_attn\.v")
    assert set(select(measured, Fraction(1), only=only).paths) == {
        "model.layers.1.self_attn.v_proj",
        "model.layers.2.self_attn.v_proj",
    }
    assert (
        select(measured, Top(1), only=only).only
        == str(only)
        == r"projection q_proj,v_proj; layers 1-2; path ~ self_attn\.v"
    )
    with pytest.raises(NothingToAuditError, match="filter"):
        select(measured, only=Filter(projections=("o_proj",)))
    assert Filter(projections=["q_proj"], layers=[1, 2]) == Filter(projections=("q_proj",), layers=(1, 2))  # type: ignore[arg-type]
    for bad in ({"layers": (2, 1)}, {"pattern": "("}):
        with pytest.raises(UsageError):
            Filter(**bad)


@pytest.mark.parametrize(("combine", "sharpest"), [("mean", 1), ("max", 0)])
def test_layers_are_ranked_by_mean_or_max(combine, sharpest: int):
    values = {0: (0.9, 0.1), 1: (0.6, 0.7), 2: (0.2, 0.2)}
    measured = scan_of(record(f"model.layers.{i}.{p}", v) for i in values for p, v in zip("qk", values[i], strict=True))
    plan = select(measured, Top(1), unit="layer", combine=combine)
    assert plan.paths == (f"model.layers.{sharpest}.q", f"model.layers.{sharpest}.k")
    assert plan.candidates == 3
    assert plan.chosen[0].value == (max if combine == "max" else np.mean)(values[sharpest])


def test_max_of_a_low_index_is_its_lowest():
    values = {0: (1.0, 9.0), 1: (3.0, 3.0)}
    measured = scan_of(
        record(f"h.{i}.{p}", stable_rank=v) for i in values for p, v in zip("qk", values[i], strict=True)
    )
    by = {c: select(measured, Top(1), index="stable_rank", unit="layer", combine=c).chosen[0] for c in ("max", "mean")}
    assert (by["max"].path, by["max"].value) == ("h.0.q", 1.0)
    assert (by["mean"].path, by["mean"].value) == ("h.1.q", 3.0)


def test_random_repeats_by_seed_and_differs_between_seeds():
    measured = grid(20)
    first = select(measured, Top(10), index="random", seed=1)
    assert first == select(measured, Top(10), index="random", seed=1)
    assert set(first.paths) != set(select(measured, Top(10), index="random", seed=2).paths)
    assert {choice.value for choice in first.chosen} == {None}
    assert not first.flat
    counts = Counter(path for seed in range(300) for path in select(measured, Top(6), index="random", seed=seed).paths)
    assert len(counts) == 60  # every module is drawn at some time
    assert max(counts.values()) < 60  # 30 expected, 5 standard deviations


def test_random_matched_keeps_the_number_of_each_projection():
    measured = grid(20)
    model = select(measured, Top(15))
    wanted = Counter(path.rpartition(".")[2] for path in model.paths)
    assert len(set(wanted.values())) > 1
    seen = set()
    for seed in range(5):
        plan = select(measured, Top(15), index="random-matched", seed=seed)
        assert Counter(path.rpartition(".")[2] for path in plan.paths) == wanted
        assert plan.index == "random-matched to ssi"
        seen.add(plan.paths)
    assert len(seen) == 5
    assert select(measured, Top(15), index="random-matched", seed=0).paths in seen
    low = select(measured, Threshold(0.3), index="random-matched", only=Filter(projections=("k_proj",)))
    assert {path.rpartition(".")[2] for path in low.paths} == {"k_proj"}


def test_flat_indices_are_told():
    flat = scan_of(record(f"l.{i}.q", 0.5 + i * 0.002, frobenius=1.0 + i * 0.1) for i in range(4))
    plan = select(flat, Top(2))
    assert plan.flat
    assert any("does not discriminate" in warning for warning in plan.warnings)
    assert not select(flat, Top(2), index="frobenius").flat
    # An index with a unit is flat relative to its size, however small or large that is.
    for size in (1e-9, 1e9):
        alike = scan_of(record(f"l.{i}.q", frobenius=size * (1 + i * 0.001)) for i in range(4))
        apart = scan_of(record(f"l.{i}.q", frobenius=size * (1 + i * 0.1)) for i in range(4))
        assert select(alike, Top(2), index="frobenius").flat
        assert not select(apart, Top(2), index="frobenius").flat
    assert select(scan_of(record(f"l.{i}.q", magnitude=0.0) for i in range(3)), Top(1), index="magnitude").flat


def test_mixed_ranks_are_told():
    # SSI is at least 1/M: the module of rank 2 seems the sharper one, and is the blunter one of its rank.
    measured = scan_of(
        [record("l.0.q", 0.6, rank=2, normalised_ssi=0.2), record("l.1.q", 0.5, rank=8, normalised_ssi=0.43)]
    )
    plan = select(measured, Top(1))
    assert (plan.index, plan.paths) == ("normalised_ssi", ("l.1.q",))
    assert "ranks are mixed: ranked by normalised_ssi, which compares them" in plan.warnings
    asked = select(measured, Top(1), index="ssi")
    assert (asked.index, asked.paths) == ("ssi", ("l.0.q",))
    assert any("ssi does not" in warning for warning in asked.warnings)
    assert select(measured, Fraction(0.5), only=Filter(layers=(0, 0))).index == "ssi"  # of one rank
    assert select(measured, Top(1), index="random-matched").index == "random-matched to normalised_ssi"


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"index": "sharpness"}, UsageError),
        ({"index": "kurtosis"}, SelectionError),
        ({"index": "random-matched", "match": "random"}, UsageError),
        ({"unit": "model"}, UsageError),
        ({"combine": "median"}, UsageError),
        ({"index": "random", "seed": -1}, UsageError),
    ],
)
def test_refusals(keywords, error):
    with pytest.raises(error):
        select(grid(), **keywords)


def test_shares_are_those_of_the_dense_updates(tmp_path: Path):
    shapes = {
        "model.layers.0.self_attn.q_proj": (48, 32, 4),
        "model.layers.0.mlp.up_proj": (96, 32, 2),
        "model.layers.1.self_attn.q_proj": (48, 32, 4),
        "model.layers.1.mlp.up_proj": (96, 32, 8),
    }
    config = {"r": 4, "lora_alpha": 6, "rank_pattern": {"0.mlp.up_proj": 2, "1.mlp.up_proj": 8}}
    folder = make_adapter(tmp_path / "a", shapes, config=config)
    updates = dense(folder)
    plan = select(scan(folder), Top(2), index="frobenius")
    norms = {path: float(np.linalg.norm(update)) for path, update in updates.items()}
    assert set(plan.paths) == set(sorted(norms, key=norms.__getitem__)[-2:])
    energy = sum(norms[path] ** 2 for path in plan.paths) / sum(norm**2 for norm in norms.values())
    cost = {path: r * (m + n) for path, (m, n, r) in shapes.items()}
    assert plan.share.frobenius_energy == pytest.approx(energy, rel=1e-9)
    assert plan.share.parameters == sum(cost[path] for path in plan.paths)
    assert plan.share.parameters_total == sum(cost.values())
    assert plan.share.compute == pytest.approx(plan.share.parameters / plan.share.parameters_total)
    assert (plan.share.modules, plan.share.modules_total) == (2, 4)


def test_mark_sets_the_chosen_modules_only():
    measured = grid()
    plan = select(measured, Top(4))
    assert {module.path for module in plan.mark(measured).modules if module.selected} == set(plan.paths)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(?=(a+)+$)b", "(.*)*x", "(a?){30}a{30}b"])
def test_no_expression_takes_for_ever(pattern: str):
    """Each takes `re` longer than the world is old on one of these paths."""
    measured = scan_of([record("a" * 60 + "!", 0.5), record("layers.0." + "a" * 60 + "!.q_proj", 0.4)])
    with pytest.raises(NothingToAuditError, match="no module passes the filter"):
        select(measured, only=Filter(pattern=pattern))


def test_what_takes_long_on_all_modules_together_is_stopped(monkeypatch: pytest.MonkeyPatch):
    measured = grid()
    assert select(measured, only=Filter(pattern="(.*)*_proj")).candidates == 12
    monkeypatch.setattr("s3lora.choose.select.MAX_STEPS", 20)
    with pytest.raises(UsageError, match=r"the expression \(\.\*\)\*_proj takes too long to match; write a simpler"):
        select(measured, only=Filter(pattern="(.*)*_proj"))


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (r"(q|k)_\1", "not supported"),
        (r"(?P<x>q)(?P=x)", "not supported"),
        ("(q)?(?(1)_|k)", "not supported"),
        ("a" * 1025, "has 1025 characters"),
        ("(", "is no regular expression"),
    ],
)
def test_an_expression_that_is_not_supported_is_told(pattern: str, told: str):
    with pytest.raises(UsageError, match=told):
        Filter(pattern=pattern)


#: Parts of expressions that people write, some of which meet in ways that make a match hard to find.
PARTS = st.sampled_from(
    [
        "q_proj",
        "k_proj",
        r"\.",
        ".*",
        ".+?",
        r"\d+",
        "[0-3]",
        "(q|v)",
        "(?:q|k)_",
        "^",
        "$",
        r"\b",
        "(?!v)",
        "(?<=_)",
        "+",
    ]
)


@given(st.lists(PARTS, min_size=1, max_size=6).map("".join))
def test_expressions_choose_what_re_chooses(pattern: str):
    try:
        re.compile(pattern)
    except re.error:
        with pytest.raises(UsageError, match="is no regular expression"):
            Filter(pattern=pattern)
        return
    try:
        only = Filter(pattern=pattern)
    except UsageError:
        assume(False)
    chosen = [module.path for module in only.allowed(grid().modules)]
    assert chosen == [module.path for module in grid().modules if re.search(pattern, module.path)]
