"""Draws and halves by identifier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.errors import UsageError
from s3lora.evaluate.data.draws import DataItem, clusters, draw, halves
from s3lora.evaluate.prompts import read_prompts
from s3lora.evaluate.safety import SafetySuite
from s3lora.evaluate.suites import SuiteSettings, build_suites, split_suites

ITEMS = st.lists(st.builds(DataItem, st.sampled_from("abcdefghij"), st.sampled_from(["", *"12345678"])), max_size=40)


def joined(items: list[DataItem]) -> dict[int, int]:
    """Return the cluster of each item, found by repeated comparison."""
    own = list(range(len(items)))
    for _ in items:
        for i, one in enumerate(items):
            for j, other in enumerate(items):
                if one.text == other.text or (one.id and one.id == other.id):
                    own[i] = own[j] = min(own[i], own[j])
    return dict(enumerate(own))


@given(ITEMS)
def test_clusters_share_identifier_or_text(items: list[DataItem]) -> None:
    found = clusters(items)
    assert sorted(i for cluster in found for i in cluster) == list(range(len(items)))
    assert {i: cluster[0] for cluster in found for i in cluster} == joined(items)
    assert all(cluster == sorted(cluster) for cluster in found)


@given(ITEMS, st.integers(0, 99))
def test_no_identifier_is_in_both_halves(items: list[DataItem], seed: int) -> None:
    if len({*joined(items).values()}) < 2:
        with pytest.raises(UsageError, match="cannot be cut into two parts"):
            halves(items, seed)
        return
    one, two = halves(items, seed)
    assert not {items[i].text for i in one} & {items[i].text for i in two}
    assert not {items[i].id for i in one if items[i].id} & {items[i].id for i in two if items[i].id}
    # Nothing is lost, and what comes twice is taken once.
    assert sorted(items[i].text for i in (*one, *two)) == sorted({item.text for item in items})
    texts = [len({items[i].text for i in cluster}) for cluster in clusters(items)]
    assert abs(len(one) - len(two)) <= max(texts)
    assert halves(items, seed) == (one, two)


@given(st.integers(2, 40), st.integers(0, 9))
def test_halves_of_single_items_are_equal(n: int, seed: int) -> None:
    one, two = halves([DataItem(str(i), str(i)) for i in range(n)], seed)
    assert 0 <= len(one) - len(two) <= 1


@given(ITEMS, st.integers(1, 45), st.integers(0, 9))
def test_a_draw_takes_one_of_each_first_and_grows(items: list[DataItem], limit: int, seed: int) -> None:
    found = draw(items, limit, seed, "items")
    assert found == sorted({*found})
    assert len(found) == min(limit, len(items))
    assert {*found} <= {*draw(items, limit + 1, seed, "items")}
    own = joined(items)
    taken = [own[i] for i in found]
    there = {cluster: list(own.values()).count(cluster) for cluster in own.values()}
    assert len({*taken}) == min(limit, len(there))
    # None is taken a second time while another one has an item left.
    most = max(map(taken.count, taken), default=0)
    assert all(taken.count(cluster) >= min(most - 1, there[cluster]) for cluster in there)


def test_a_limit_below_one() -> None:
    for limit in (0, -1):
        with pytest.raises(UsageError, match=f"a limit of {limit} items leaves nothing"):
            draw([DataItem("a")], limit, 0, "items")


def write(path: Path, behaviours: int, cases: int) -> str:
    rows = [
        {"question_id": n, "category": "x", "turns": [f"Open {n}, {case}"], "prompt_style": str(case)}
        for case in range(cases)
        for n in range(behaviours)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def identifiers(settings: SuiteSettings, *, split: bool) -> list[list[str]]:
    both = split_suites(settings) if split else (build_suites(settings),)
    found = []
    for suite in (suites[0] for suites in both):
        assert isinstance(suite, SafetySuite)
        found.append([request.id for request in suite.harmful.requests])
    return found


def test_tuning_and_held_out_share_no_behaviour(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", 9, 4)
    for seed in range(10):
        one, two = identifiers(SuiteSettings(names=("safety",), harmful=path, seed=seed), split=True)
        assert not {*one} & {*two}
        assert sorted((len(one), len(two))) == [16, 20]
        few, other = identifiers(SuiteSettings(names=("safety",), harmful=path, seed=seed, limit=4), split=True)
        assert len({*few}) == len({*other}) == 4
        assert {*few} <= {*one}


def test_few_items_tell_of_many_behaviours(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", 9, 4)
    for limit, wanted in ((5, 5), (9, 9), (12, 9)):
        [found] = identifiers(SuiteSettings(names=("safety",), harmful=path, limit=limit), split=False)
        assert (len(found), len({*found})) == (limit, wanted)
        assert len({r.id for r in read_prompts(path).take(limit).requests}) == wanted


def test_one_behaviour_cannot_be_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", 1, 4)
    with pytest.raises(UsageError, match="a set of 4 items with one identifier cannot be cut into two parts"):
        split_suites(SuiteSettings(names=("safety",), harmful=path))
