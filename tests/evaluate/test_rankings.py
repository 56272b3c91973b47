from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import s3lora
from s3lora import Scan, scan, select
from s3lora.choose.rules import Fraction, Top
from s3lora.errors import UsageError
from s3lora.evaluate.rankings import SweepRanking, candidates, correlations, rankings, swept, tops, usual_of
from s3lora.spectrum.indices import INDICES
from tests.planning import record, scan_of
from tests.reference import statistics as reference
from tests.support import make_adapter

DEMO = Path(s3lora.__file__).parent / "data" / "demo-adapter"
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


@pytest.fixture(scope="module")
def scans() -> dict[str, Scan]:
    return {method: scan(DEMO, method) for method in ("mas-svd", "svd")}


def labels(*arguments: object, **keywords: object) -> list[str]:
    return [ranking.label for ranking in rankings(*arguments, **keywords)]  # type: ignore[arg-type]


def kinds(measured: Scan, paths: tuple[str, ...]) -> Counter[str]:
    return Counter(measured[path].projection for path in paths)


def test_modules_of_several_ranks_are_ranked_by_normalised_ssi(tmp_path: Path) -> None:
    def sized(name: str, *ranks: int) -> Path:
        paths = {f"model.layers.{i}.self_attn.q_proj": (6, 4, rank) for i, rank in enumerate(ranks)}
        return make_adapter(tmp_path / name, paths)

    with s3lora.open_adapter(sized("mixed", 2, 3)) as adapter:
        assert usual_of(adapter) == "normalised_ssi"
        assert swept(adapter) == ("normalised_ssi", "weighted_ssi", "magnitude")
    # An update of 6 × 4 has four singular values, whatever its factors' rank.
    with s3lora.open_adapter(sized("wide", 4, 5)) as adapter:
        assert usual_of(adapter) == "ssi"
        assert swept(adapter) == ("ssi", "weighted_ssi", "magnitude")


def test_every_index_by_every_method_then_the_controls() -> None:
    found = labels(["random-matched", "svd", "random", "spsvd"], ["ssi", "magnitude"], seeds=[7, 8])
    assert found == [
        "ssi (svd)", "magnitude (svd)", "ssi (spsvd)", "magnitude (spsvd)", "random", "random",
        "random-matched to ssi (svd)", "random-matched to ssi (svd)",
    ]  # fmt: skip
    found_rankings = rankings(["svd", "random", "random-matched"], ["ssi"], seeds=[7, 8])
    assert [r.seed for r in found_rankings] == [None, 7, 8, 7, 8]
    assert [r.control for r in found_rankings] == [False, True, True, True, True]


def test_an_index_that_needs_no_method_is_there_once() -> None:
    assert labels(["svd", "spsvd"], ["frobenius", "ssi"]) == ["frobenius", "ssi (svd)", "ssi (spsvd)"]
    assert rankings(["svd", "spsvd"], ["energy"]) == [SweepRanking("energy", "svd")]
    assert labels(["svd", "svd"], ["ssi", "ssi", "weighted-ssi", "weighted_ssi"]) == ["ssi (svd)", "weighted_ssi (svd)"]


def test_plain_indices_are_those_that_need_no_method(scans: dict[str, Scan]) -> None:
    first, second = (measured.modules[0].indices for measured in scans.values())
    assert {name for name in first if first[name] == second[name]} == {
        name for name, index in INDICES.items() if index.plain and not index.costly
    }
    assert set(first) | {"kurtosis"} == set(INDICES)


def test_what_random_matched_matches() -> None:
    matched = [r.matches for r in rankings(["svd", "spsvd", "random-matched"], ["ssi", "energy"], seeds=[0])]
    assert matched[-1] == ("ssi", "svd")
    found = labels(["svd", "random-matched"], ["ssi"], match=["weighted-ssi", "frobenius", "weighted_ssi"], seeds=[0])
    # Each once: one control counted twice would look like a smaller spread.
    assert found[1:] == ["random-matched to weighted_ssi (svd)", "random-matched to frobenius"]


def test_controls_alone() -> None:
    assert rankings(["random"], [], seeds=[3]) == [SweepRanking("random", seed=3)]
    assert rankings(["random"], ["ssi"], seeds=[3]) == [SweepRanking("random", seed=3)]


@pytest.mark.parametrize(
    ("methods", "indices", "match", "problem"),
    [
        (["qr"], ["ssi"], None, "no method or index qr; choose from .*mas-svd"),
        (["svd"], ["sharp"], None, "no method or index sharp; choose from .*weighted_ssi"),
        (["svd"], ["random"], None, "no method or index random"),
        (["svd", "random-matched"], ["ssi"], ["sharp"], "no method or index sharp"),
        (["svd\x1b[31m"], ["ssi"], None, "no method or index svd�"),
        (["random-matched"], ["ssi"], None, "needs a ranking to match"),
        (["svd", "random-matched"], [], None, "needs a ranking to match"),
        ([], ["ssi"], None, "nothing to rank by"),
        (["svd"], [], None, "nothing to rank by"),
    ],
)
def test_what_cannot_be_ranked_by(
    methods: list[str], indices: list[str], match: list[str] | None, problem: str
) -> None:
    with pytest.raises(UsageError) as caught:
        rankings(methods, indices, match=match)
    assert caught.match(problem.partition(";")[0])
    assert problem.partition(";")[2].rpartition("*")[2] in str(caught.value)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (["10"], [10]),
        (["25%", "0.25", ".25", "30"], [30]),
        (["100%", "1.0", "120"], [120]),
        (["0", "0%", "0.0", "0.1%"], [0]),
        (["75%", "3", "50%"], [3, 60, 90]),
        (["12.5%"], [15]),
        # 60.6, and halves up, as the rule for shares has it: 4.5, 52.5 of 60.
        (["50.5%"], [61]),
        (["3.75%"], [5]),
    ],
)
def test_how_many(text: list[str], counts: list[int]) -> None:
    assert tops(text, 120) == counts


@given(st.integers(0, 100), st.integers(1, 40))
def test_a_share_is_that_of_the_rule(share: int, total: int) -> None:
    scanned = scan_of([record(f"layers.{i}.q_proj", 0.5) for i in range(total)])
    chosen = select(scanned, Fraction(share / 100), index="ssi").paths
    assert tops([f"{share}%"], total) == tops([f"{share / 100:.2f}"], total) == [len(chosen)]


@pytest.mark.parametrize(
    "text",
    ["", " 10", "-1", "+1", "1e2", "ten", "25 %", "25%%", "1.", "nan", "0x10", "2.5", "121", "101%", "1.01", "\x1b"],
)
def test_what_is_no_number_of_modules(text: str) -> None:
    with pytest.raises(UsageError, match=r"^top ") as caught:
        tops(["10", text], 120)
    assert "\x1b" not in str(caught.value)


def test_at_least_one_number() -> None:
    with pytest.raises(UsageError, match=r"^top "):
        tops([], 120)


def test_modules_that_are_zero_are_no_candidates() -> None:
    measured = scan_of([record("layers.0.q_proj"), record("layers.1.q_proj", zero=True), record("layers.2.q_proj")])
    assert candidates(measured) == 2
    assert all(len(r.plan({"svd": measured}, 2).paths) == 2 for r in rankings(["svd", "random"], ["ssi"]))


def test_a_plan_is_that_of_the_index_and_the_scan_of_the_method(scans: dict[str, Scan]) -> None:
    by_hand = sorted(scans["svd"].modules, key=lambda m: -(m.indices["ssi"] or 0))
    assert SweepRanking("ssi", "svd").plan(scans, 9).paths == tuple(m.path for m in by_hand[:9])
    low = sorted(scans["svd"].modules, key=lambda m: m.indices["stable_rank"] or 0)
    assert SweepRanking("stable_rank", "svd").plan(scans, 9).paths == tuple(m.path for m in low[:9])
    found = [SweepRanking("ssi", method).plan(scans, 12) for method in scans]
    assert found == [select(measured, Top(12), index="ssi") for measured in scans.values()]
    assert found[0].paths != found[1].paths


@pytest.mark.parametrize("matches", [("ssi", "svd"), ("magnitude", "mas-svd"), ("stable_rank", "svd")])
def test_random_matched_takes_as_many_of_each_projection(scans: dict[str, Scan], matches: tuple[str, str]) -> None:
    model = SweepRanking(*matches)
    for top in (1, 10, 30, 77, 120):
        wanted = kinds(scans[matches[1]], model.plan(scans, top).paths)
        chosen = set()
        for seed in range(5):
            plan = SweepRanking("random-matched", seed=seed, matches=matches).plan(scans, top)
            assert len(set(plan.paths)) == plan.share.modules == top
            assert kinds(scans["svd"], plan.paths) == wanted
            chosen.add(frozenset(plan.paths))
            assert SweepRanking("random-matched", seed=seed, matches=matches).plan(scans, top) == plan
        # Of a single module two of the five draws fall together.
        assert len(chosen) == (1 if top == 120 else 5 if top > 1 else 4)


def test_random_ranks_once_a_seed(scans: dict[str, Scan]) -> None:
    for seed in range(4):
        order = SweepRanking("random", seed=seed).plan(scans, 120).paths
        assert len(set(order)) == 120
        for top in (0, 1, 10, 60):
            assert SweepRanking("random", seed=seed).plan(scans, top).paths == order[:top]
    assert len({SweepRanking("random", seed=seed).plan(scans, 10).paths for seed in range(20)}) == 20
    # It looks at no number: another scan of the adapter gives the same draw.
    swapped = dict(reversed(scans.items()))
    assert (
        SweepRanking("random", seed=1).plan(swapped, 10).paths == SweepRanking("random", seed=1).plan(scans, 10).paths
    )


def test_random_is_even(scans: dict[str, Scan]) -> None:
    drawn = Counter(path for seed in range(200) for path in SweepRanking("random", seed=seed).plan(scans, 30).paths)
    # 50 expected of each of 120 modules, with a standard deviation of 6.
    assert len(drawn) == 120
    assert all(25 < count < 80 for count in drawn.values())


def test_random_may_choose_what_an_index_cannot() -> None:
    measured = scan_of([record("layers.0.q_proj", None), record("layers.1.q_proj"), record("layers.2.k_proj")])
    assert len(SweepRanking("random").plan({"svd": measured}, 3).paths) == 3
    for seed in range(9):
        plan = SweepRanking("random-matched", seed=seed, matches=("ssi", "svd")).plan({"svd": measured}, 2)
        assert "layers.0.q_proj" not in plan.paths


def test_correlations_of_the_demo(scans: dict[str, Scan]) -> None:
    ranked = rankings(["mas-svd", "svd", "random", "random-matched"], ["ssi", "stable_rank"])
    found = correlations(ranked, scans)
    values: dict[str, list[float]] = {
        "ssi (mas-svd)": [m.indices["ssi"] or 0 for m in scans["mas-svd"].modules],
        "stable_rank": [-(m.indices["stable_rank"] or 0) for m in scans["svd"].modules],
        "ssi (svd)": [m.indices["ssi"] or 0 for m in scans["svd"].modules],
    }
    wanted = {f"{a} | {b}": reference.spearman(values[a], values[b]) for a, b in combinations(values, 2)}
    assert found == pytest.approx(wanted)
    # Sharp is a low stable rank and a high SSI.
    assert found["stable_rank | ssi (svd)"] > 0.5


def made_up(rows: Mapping[str, tuple[float | None, float | None]], zero: str = "") -> Scan:
    made = [record(path, a, zero=path == zero) for path, (a, _) in rows.items()]
    return scan_of(replace(m, indices={**m.indices, "magnitude": rows[m.path][1]}) for m in made)


def test_correlations_over_the_modules_that_both_rank() -> None:
    rows = {"a": (0.1, 1.0), "b": (0.2, None), "c": (None, 9.0), "d": (0.3, 0.5), "e": (0.4, 4.0), "z": (0.5, 99.0)}
    ranked = rankings(["svd"], ["ssi", "magnitude"])
    # Of a, d and e: 1, 2, 3 beside 2, 1, 3.
    assert correlations(ranked, {"svd": made_up(rows, zero="z")}) == {"ssi (svd) | magnitude (svd)": pytest.approx(0.5)}


def test_no_correlation_where_there_is_none() -> None:
    ranked = rankings(["svd", "random"], ["ssi", "magnitude"])
    for rows in (
        {"a": (0.1, 1.0), "b": (0.2, None)},
        {"a": (0.1, None), "b": (0.2, None)},
        {"a": (0.1, 1.0), "b": (0.1, 2.0)},
    ):
        assert correlations(ranked, {"svd": made_up(rows)}) == {}
    assert correlations(ranked[-1:], {"svd": made_up({"a": (0.1, 1.0)})}) == {}


@given(st.lists(st.tuples(st.none() | st.integers(0, 4), st.none() | st.integers(0, 4)), max_size=9))
def test_correlations_by_definition(items: list[tuple[int | None, int | None]]) -> None:
    measured = made_up({str(i): (a, b) for i, (a, b) in enumerate(items)})
    both = [(a, b) for a, b in items if a is not None and b is not None]
    wanted = reference.spearman([a for a, _ in both], [b for _, b in both])
    found = correlations(rankings(["svd"], ["ssi", "magnitude"]), {"svd": measured})
    assert list(found.values()) == ([] if wanted is None else [pytest.approx(wanted)])
