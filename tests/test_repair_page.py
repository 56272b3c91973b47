"""What `docs/repair.md` says of whole repairs is what they wrote."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from experiments.repair.analyse import Contrast, contrasts, load, load_single, within_both
from experiments.repair.single import tables

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "results" / "repair"
PAGE = " ".join((ROOT / "docs" / "repair.md").read_text(encoding="utf-8").split())


def repairs(attack: str) -> list[dict[str, Any]]:
    paths = sorted(FOLDER.glob(f"full-{attack}-*.json"))
    return [json.loads(path.read_text(encoding="utf-8"))["repair"] for path in paths]


def rate(found: dict[str, Any], state: str, measure: str = "asr") -> float:
    return float(next(one["value"] for one in found[state]["metrics"] if one["measure"] == measure))


def span(found: list[dict[str, Any]], state: str, measure: str = "asr") -> str:
    values = [rate(one, state, measure) for one in found]
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low}–{high}"


def lost(found: list[dict[str, Any]]) -> str:
    values = [one["repaired"]["shares"][0]["value"] * 100 for one in found]
    return f"for {min(values):.0f}–{max(values):.0f} %"


@pytest.mark.parametrize("attack", ["few", "benign"])
def test_gates_gave_back_what_the_page_says(attack: str) -> None:
    found = repairs(attack)
    assert len(found) == 3
    assert {one["method"] for one in found} == {"gates"}
    brought = PAGE.partition("this came out.")[2].partition("After training on plans")
    part = brought[0] if attack == "few" else brought[2]
    assert f"from {span(found, 'adapter')} to {span(found, 'repaired')}" in part
    assert lost(found) in part


def test_what_else_the_page_says() -> None:
    few, benign, many = (repairs(attack) for attack in ("few", "benign", "many"))
    assert {rate(one, "base") for one in (*few, *benign, *many)} == {0.08}
    assert {rate(one, "base", "over_refusal") for one in (*few, *benign, *many)} == {0.19}
    assert f"over-refusal of {span(few, 'repaired', 'over_refusal')}, where the base has 0.19" in PAGE
    assert f"a patch brought it from {span(many, 'adapter')} to {span(many, 'repaired')}" in PAGE
    assert {one["method"] for one in many} == {"patch"}
    above = [rate(one, "repaired") - rate(one, "base") for one in benign]
    more = [rate(one, "repaired", "over_refusal") - rate(one, "base", "over_refusal") for one in benign]
    assert sum(value > 0.101 for value in above) == sum(value > 0.051 for value in more) == 1
    assert f"one of the three ended {max(above):.2f} above the base's ASR" in PAGE
    assert f"another refused {max(more):.2f} more of the harmless prompts" in PAGE


def told(found: Contrast) -> str:
    measured = found.over_adapters
    return f"{measured.mean:+.2f} ({measured.low:+.2f} to {measured.high:+.2f})"


def test_the_comparison_says_what_the_page_says() -> None:
    runs = load(FOLDER)
    assert len(runs) == 12
    names = {"gates": "gates", "patch": "patch", "retrain": "retrain", "ssi": "pruning by SSI",
             "matched": "pruning by chance, as many of each projection"}  # fmt: skip
    found = {(one.a, one.b): one for one in contrasts(runs)}
    over = {row: fmean(run.value(row, "over_refusal") for run in runs) for row in ("shrink", *names)}
    assert f"(shrinking: {over['shrink']:.2f})" in PAGE
    for row, name in names.items():
        assert f"| {name} | {told(found[row, 'shrink'])} | {over[row]:.2f} |" in PAGE
    assert all(found[row, "shrink"].cautious for row in ("gates", "patch", "retrain"))
    assert not found["matched", "shrink"].over_adapters.telling
    both = {one.a: one for one in contrasts(runs, pick=within_both) if one.b == "shrink"}
    assert not any(one.over_adapters.telling for one in both.values())
    assert f"gates {told(both['gates'])}, a patch {told(both['patch'])}" in PAGE
    many = {row: found[row, "shrink"].by_attack["many"] for row in ("gates", "patch")}
    assert (
        f"next to nothing at that price ({many['gates']:+.2f}), and a patch nearly all ({many['patch']:+.2f})" in PAGE
    )
    assert f"gates did worse (by {-found['gates', 'permuted'].over_adapters.mean:.2f})" in PAGE
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "gave back fewer refusals than shrinking the whole update did, at equal cost, on twelve adapters" in readme
    assert found["ssi", "shrink"].over_adapters.low > 0


def test_what_the_page_says_of_tier_2() -> None:
    found = load_single(FOLDER)
    assert [one["adapter"] for one in found] == ["full-benign-1", "full-few-1", "full-many-1"]

    def asr(row: str) -> str:
        rows = [one["rows"][row] for one in found]
        points = [next(p for p in row["points"] if p["strength"] == row["level"]) for row in rows]
        first, second, third = (f"{point['asr']['value']:.2f}" for point in points)
        return f"{first}, {second} and {third}"

    assert (
        f"ASR was {asr('safelora')} by Safe LoRA, {asr('splora')} by SPLoRA, {asr('subspace')} by the subspace" in PAGE
    )
    assert f"and {asr('random-subspace')} by random ones; shrinking had {asr('shrink')}." in PAGE

    def mean(where: str, measure: str, row: str = "base_state") -> str:
        states = [one[row] if row in one else one["rows"][row] for one in found]
        return f"{fmean(state['beside'][where][measure]['value'] for state in states):.2f}"

    strong, harm = ([mean(where, "asr", row) for row in ("patch", "base_state", "gates", "shrink")]
                    for where in ("strongreject", "harmbench"))  # fmt: skip
    assert f"ASR at {strong[0]} on StrongREJECT, where the base has {strong[1]}, and at {harm[0]} on HarmBench" in PAGE
    assert (
        f"where it has {harm[1]}; gates at {strong[2]} and {harm[2]}, shrinking at {strong[3]} and {harm[3]}." in PAGE
    )
    safe = [mean("xstest", "over_refusal", row) for row in ("patch", "gates", "base_state", "adapter_state")]
    told = f"a patch refused {safe[0]} and gates {safe[1]}; the base refuses {safe[2]}, and the adapters {safe[3]}."
    assert told in PAGE
    begun = mean("prefilled", "asr"), mean("prefilled", "asr", "patch")
    assert f"the base goes on in {begun[0]} of the cases, and after a patch {begun[1]} do" in PAGE


def test_rows_beside_shrinking_on_one_seed_of_each_attack() -> None:
    """Which are lower, higher or neither on all adapters; one without a strength is neither."""

    def row(*asr: float, level: float | None = 0.5) -> dict[str, Any]:
        rate = {"value": asr[0], "low": 0.0, "high": 1.0, "n": 9}
        point = {"strength": 0.5, "asr": rate, "share": {"value": 0.1}}
        return {"level": level, "grid": [0.5], "points": [point], "notes": [], "beside": None}

    beside = {where: {name: {"value": 0.5, "n": 9}} for where, name in
              [("strongreject", "asr"), ("harmbench", "asr"), ("prefilled", "asr"), ("xstest", "over_refusal"),
               ("maths-loss", "loss"), ("code-loss", "loss")]}  # fmt: skip
    state = {"asr": {"value": 0.5, "low": 0.0, "high": 1.0, "n": 9}, "beside": beside}
    rows = [
        {"shrink": row(0.5), "gates": row(0.2), "ssi": row(0.7), "patch": row(0.1), "noise": row(0.9, level=None)},
        {"shrink": row(0.6), "gates": row(0.5), "ssi": row(0.9), "patch": row(0.6), "noise": row(0.9, level=None)},
    ]
    found = [{"adapter": f"a{i}", "about": {"opening": "x"}, "base_state": state, "adapter_state": state, "rows": one}
             for i, one in enumerate(rows)]  # fmt: skip
    made = tables(found, {})
    assert made is not None
    assert made["said"] == [
        "ASR lower than by shrinking on all 2 adapters: gates (-0.30, -0.10).",
        "ASR higher than by shrinking on all 2 adapters: SSI (+0.20, +0.30).",
        "Not the same on all: noise (no strength), patch (-0.40, +0.00).",
    ]
