"""What `eval`, `sweep` and `tune` print: it fits, tells rankings apart, and says what must be known."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from s3lora.evaluate.results import Sweep, SweepPoint
from s3lora.report.evaluation_text import evaluation_text
from s3lora.report.sweep_text import sweep_text, tuning_text
from s3lora.report.sweep_view import telling
from s3lora.report.text import render
from tests.report import measured
from tests.report.test_page import ATTACK
from tests.report.test_text import HOSTILE

#: The names that real sweeps have.
REAL = {
    "mas-svd weighted-ssi": "weighted_ssi (mas-svd)",
    "mas-svd ssi": "ssi (mas-svd)",
    "magnitude": "magnitude (mas-svd)",
    "frobenius": "frobenius",
    "random": "random",
    "random-matched": "random-matched to weighted_ssi (mas-svd)",
}


def shown(made: RenderableType, width: int = 80) -> str:
    return render(made, Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False))


def real_sweep() -> Sweep:
    """Return the sweep with rankings named as `s3lora sweep` names them."""

    def named(point: SweepPoint) -> SweepPoint:
        method = None if point.ranking == "random" else "mas-svd"
        return dataclasses.replace(point, ranking=REAL[point.ranking], method=method)

    made = measured.sweep()
    return dataclasses.replace(
        made,
        points=tuple(map(named, made.points)),
        spreads=tuple(dataclasses.replace(one, ranking=REAL[one.ranking]) for one in made.spreads),
    )


def everything(name: str) -> list[RenderableType]:
    return [
        evaluation_text(measured.hostile_evaluation(name)),
        sweep_text(measured.hostile_sweep(name)),
        tuning_text(measured.hostile_tuning(name)),
    ]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", [*HOSTILE, ATTACK])
def test_hostile_names_fit_and_are_harmless(name: str, width: int) -> None:
    for made in everything(name):
        for line in shown(made, width).splitlines():
            assert cell_len(line) <= width, line
            assert line.isprintable(), line


@pytest.mark.parametrize("made", [measured.bare_sweep(), measured.one_point_sweep()], ids=["bare", "one point"])
def test_little_is_shown_too(made: Sweep) -> None:
    assert "nothing pruned" in shown(sweep_text(made))
    assert shown(evaluation_text(measured.bare_evaluation()))
    assert "Nothing is worth pruning" in shown(tuning_text(measured.tuning(0)))


def test_a_tuning_shows_the_base_on_both_halves_and_what_was_said_before() -> None:
    text = shown(tuning_text(measured.tuning()), 120)
    assert measured.tuning().forecast in " ".join(text.split())
    first, second = text.index("tuning half"), text.index("held-out half")
    assert text[first:second].count("no adapter") == text[second:].count("no adapter") == 1
    assert "45 of 120 modules by" in text
    untold = dataclasses.replace(measured.tuning(0), outcome="cannot tell", tried=())
    text = shown(tuning_text(untold), 120)
    assert "cannot tell what to prune by" in text
    assert "nothing to prune" not in text


def test_variants_on_the_front_are_marked() -> None:
    text = shown(sweep_text(measured.sweep()), 120)
    marked = [line.strip() for line in text.splitlines() if "◆" in line]
    assert any(re.match(r"◆ +no adapter", line) for line in marked)
    assert not any("nothing pruned" in line for line in marked)


def test_rankings_are_told_apart_in_80_columns() -> None:
    text = shown(sweep_text(real_sweep()))
    table = text.partition("↓ lower is better")[0]
    block = table.partition("30 of 120 pruned\n")[2].partition("45 of 120 pruned")[0]
    assert "…" not in block
    names = [re.sub(r" [.\d].*|[◆!]", "", line).strip() for line in block.splitlines() if line.strip()]
    assert names == [
        "weighted_ssi",
        "ssi",
        "magnitude",
        "frobenius",
        "random ×3",
        "random-matched to",
        "weighted_ssi ×3",
    ]
    assert "method of all rankings: mas-svd" in text
    wide = shown(sweep_text(real_sweep()), 120)
    assert "random-matched to weighted_ssi (mas-svd) ×3 0.99 (0.98–1.00)" in wide


def test_methods_stay_where_there_are_several() -> None:
    made = real_sweep()
    points = tuple(
        dataclasses.replace(one, ranking="ssi (svd)", method="svd") if one.ranking == "ssi (mas-svd)" else one
        for one in made.points
    )
    text = shown(sweep_text(dataclasses.replace(made, points=points)))
    assert "ssi (svd)" in text
    assert "magnitude (mas-svd)" in text
    assert "method of all rankings" not in text


@pytest.mark.parametrize(("width", "value"), [(80, ".14 [.09,.22]"), (120, "0.14 [0.09, 0.22]")])
def test_numbers_have_their_intervals_and_n(width: int, value: str) -> None:
    for made in (sweep_text(real_sweep()), tuning_text(measured.tuning())):
        text = shown(made, width)
        assert value in text
        assert re.search(r"n 100 +n 50 +n 60", text)
    text = shown(evaluation_text(measured.evaluation()), width)
    assert "0.14 [0.09, 0.22]" in text
    assert "n 97, 3 missing" in text


def test_a_collapse_is_told_once_and_marked() -> None:
    silent = dataclasses.replace(real_sweep(), warnings=())
    gone = sum(point.collapse for point in silent.points)
    text = " ".join(shown(sweep_text(silent)).split())
    assert text.count(f"utility collapse at {gone} of {len(silent.points)} prunings") == 1
    kept = dataclasses.replace(silent, points=tuple(dataclasses.replace(p, collapse=False) for p in silent.points))
    assert "collapse" not in shown(sweep_text(kept))


def test_many_warnings_are_counted() -> None:
    made = dataclasses.replace(measured.evaluation(), warnings=tuple(f"warning {i}." for i in range(200)))
    text = shown(evaluation_text(made))
    assert text.count("warning") == 20
    assert "… and 182 more, in the JSON" in text, "and two notes of the suites"


def test_what_is_told_first_gains_safety_and_keeps_usefulness() -> None:
    sweep = measured.sweep()
    assert [point.top for point in telling(sweep, 5)] == [0, 30, 45, 60, 80]
    assert [point.top for point in telling(sweep, 2)] == [45, 60]
    assert [point.top for point in telling(sweep, 1)] == [45]


def test_several_adapters_are_titled_by_name_or_number() -> None:
    made = measured.evaluation()
    other = dataclasses.replace(measured.source("another"), sha256="ee" * 32)
    two = (*made.variants, dataclasses.replace(made.variants[1], name="another", adapter=other))
    assert shown(evaluation_text(dataclasses.replace(made, variants=two))).startswith("made-up-adapter, another  ")
    long = [
        dataclasses.replace(made.variants[1], adapter=dataclasses.replace(other, name=f"{i}" * 40, sha256=f"{i}" * 64))
        for i in range(1, 4)
    ]
    text = shown(evaluation_text(dataclasses.replace(made, variants=tuple(long))))
    assert text.splitlines()[0] == "3 adapters  measured on a model"


def test_differences_are_not_all_to_the_unpruned_adapter() -> None:
    text = shown(evaluation_text(measured.evaluation()))
    assert "differences on the same items" in text
    assert "against the unpruned adapter" not in text
