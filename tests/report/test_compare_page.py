"""The page of a comparison: it stands alone, obeys no name, and shows the numbers of the result."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import pytest

from s3lora.measure.comparison import Comparison
from s3lora.report.compare_page import compare_page
from s3lora.report.compare_view import ADAPTERS, cosine, number, signed, view_of
from tests.report import made_comparison as made
from tests.report.test_page import ACTIVE, NAMES, Page, row, without_script

MADE: dict[str, Callable[[], Comparison]] = {
    "pair": lambda: made.model(2),
    "run": lambda: made.model(5),
    "partial": made.partial,
    "other-ranks": made.other_ranks,
    "one-module": lambda: made.comparison([made.module("head", (0.5, 0.5), norms=(1.0, 1.0))], "ab"),
    "many-adapters": lambda: made.model(40, layers=2),
    "pruned": lambda: made.comparison(
        [*(made.module(f"h.{i}.q", (0.3, None), norms=(1.0, None)) for i in range(3)),
         *(made.module(f"h.{i}.q", (0.3, 0.3)) for i in range(3, 9))],
        ("my-adapter", "pruned"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MADE)
def test_a_page_stands_alone(kind: str) -> None:
    text = without_script(compare_page(MADE[kind]()))
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert text.startswith("<!doctype html>")
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"}
    assert not [a for a in page.attributes if a[1] in ACTIVE or a[1].startswith("on")]
    assert not re.search(r"url\(|@import|expression\(|https?:", text)
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', text)
    assert policy is not None
    assert "default-src &#39;none&#39;; style-src &#39;sha256-" in policy[1]
    assert "unsafe" not in policy[1]
    assert text == without_script(compare_page(MADE[kind]())), "equal results give equal bytes"


@pytest.mark.parametrize("kind", MADE)
def test_coordinates_are_numbers(kind: str) -> None:
    page = Page(compare_page(MADE[kind]()))
    drawn = [value for _, name, value in page.attributes if name in ("d", "x", "y", "cx", "viewbox", "width", "height")]
    assert drawn
    assert not [value for value in drawn if re.search(r"[^-MLHVhvlmz0-9. ]", value)]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_no_name_changes_what_a_page_is_made_of(name: str, count: int) -> None:
    text = compare_page(made.hostile(name, count))
    page, plain = Page(text), Page(compare_page(made.hostile("plain", count)))
    if re.fullmatch(r"[^.\d\s]+", name):  # dots, digits and spaces can make another layer or projection of it
        assert sorted(page.elements) == sorted(plain.elements)
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements}
    assert not [a for a in page.attributes if a[1] in ACTIVE or a[1].startswith("on")]
    assert all(character == "\n" or character.isprintable() for character in text)


def test_hostile_names_are_shown_as_they_are() -> None:
    page = Page(compare_page(made.hostile("<b>&amp;")))
    for tag in ("h1", "th"):
        assert any("<b>&amp;" in text for text in page.texts[tag])
    assert ("b", ()) not in page.elements


@pytest.mark.parametrize("kind", MADE)
def test_every_module_is_in_the_table(kind: str) -> None:
    comparison = MADE[kind]()
    view = view_of(comparison)
    page = Page(compare_page(comparison))
    head, *rows = page.tables["modules"]
    assert [cells[0] for cells in rows] == [module.path for module in comparison.modules]
    assert len(head) == len(view.shown) + 6
    for module in comparison.modules:
        cells = row(page, "modules", module.path)
        sharp = module.normalised_ssi if view.index != "SSI" else module.ssi
        assert cells[1:-5] == [number(sharp[i]) for i in view.shown]
        first, last = sharp[0], sharp[-1]
        assert cells[-5] == signed(None if first is None or last is None else last - first)
        assert cells[-3] == cosine(module.net_cosine)
        assert cells[-2:] == [number(module.frobenius[0]), number(module.frobenius[-1])]


def test_what_is_not_lora_has_its_table() -> None:
    page = Page(compare_page(made.partial()))
    assert row(page, "others", "score.weight")[1:] == ["head", "2×64", "0.500", "2.50", "changed at 300"]
    assert row(page, "others", "norm.weight")[1:] == ["head", "2×64", "0.500", "–", "only in 100"]
    assert "Nothing but LoRA in both" in compare_page(made.other_ranks())


def test_what_moved_farthest_comes_first() -> None:
    comparison = made.partial()
    page = Page(compare_page(comparison))
    rows = [[cell.strip() for cell in cells] for cells in page.tables["moved"][1:]]
    assert rows[0][:2] == ["model.layers.0.self_attn.v_proj", "new"], "a zero update that was trained"
    paths = [
        module.path
        for module in sorted(comparison.modules, key=lambda m: -(m.net_distance or 0.0))
        if module.net_distance
    ]
    assert [cells[0] for cells in rows[1:]] == paths
    lost = "model.layers.1.self_attn.k_proj"
    assert lost not in [cells[0] for cells in rows]
    assert page.texts["h3"] == [
        "1 module of another shape than before, so without a distance",
        "1 module only in 100, 300",
        "1 module only in 300",
    ]


def test_the_table_of_steps_holds_medians() -> None:
    comparison = made.model(5)
    page = Page(compare_page(comparison))
    assert len(page.tables["stages"]) == 6
    for i in range(5):
        cells = row(page, "stages", f"{(i + 1) * 100}", f"checkpoint-{(i + 1) * 100}")
        sharp = [module.ssi[i] or 0.0 for module in comparison.modules]
        assert cells[2:5] == ["224", number(median(sharp)), number(max(sharp))]
        wanted = [number(median([m.distance[i - 1] or 0.0 for m in comparison.modules]) if i else None)]
        assert cells[6:] == [*wanted, cosine(0.9 if i else None)]


def panels(text: str) -> list[str]:
    return re.findall(r'<svg class="panel".*?</svg>', text, re.DOTALL)


def test_a_panel_has_a_line_for_every_module() -> None:
    drawn = panels(compare_page(made.model(5)))
    assert len(drawn) == len(made.PROJECTIONS)
    assert [re.search(r'aria-label="(\w+)', one)[1] for one in drawn] == [  # type: ignore[index]
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ]  # fmt: skip
    for one in drawn:
        assert one.count('class="thin"') == 32
        assert all(line.count("L") == 4 for line in re.findall(r'class="(?:thin|middle)" d="([^"]*)"', one))
        assert re.findall(r">(\d+)</text>", one)[-2:] == ["400", "500"]


def test_panels_have_their_axes_in_common() -> None:
    comparison = made.comparison([made.module("h.0.q", (0.2, 0.4, 0.4)), made.module("h.0.v", (0.4, 0.8, 0.2))])
    one, two = (re.findall(r'class="thin" d="M(\S+) (\S+)L', panel)[0] for panel in panels(compare_page(comparison)))
    assert one[0] == two[0]
    assert float(one[1]) > float(two[1]), "0.4 stands higher than 0.2"
    lines = [re.findall(r'class="thin" d="([^"]*)"', panel)[0] for panel in panels(compare_page(comparison))]
    high = [re.findall(r"[ML][\d.]+ ([\d.]+)", line) for line in lines]
    assert high[0][1] == high[1][0], "0.4 is as high in either"


def test_lines_break_where_a_value_is_missing() -> None:
    one = made.module("h.0.q", (0.2, None, 0.4, 0.5), norms=(1.0, None, 1.0, 1.0))
    (panel,) = panels(compare_page(made.comparison([one])))
    (line,) = re.findall(r'class="thin" d="([^"]*)"', panel)
    assert re.fullmatch(r"M[\d. ]+h5M[\d. ]+L[\d. ]+", line)


def test_steps_are_places_on_the_axis() -> None:
    comparison = made.comparison(
        [made.module("h.0.q", (0.2, 0.3, 0.4, 0.5))], ("checkpoint-0", "checkpoint-100", "checkpoint-400", "run")
    )
    view = view_of(comparison)
    assert (view.labels, view.at) == (("0", "100", "400", "end"), (0.0, 100.0, 400.0, 600.0))
    assert view.axis == "training step"
    turned = dataclasses.replace(comparison, steps=(100, 0, 400, None))
    assert (view_of(turned).labels, view_of(turned).axis) == (("1", "2", "3", "4"), "adapter")
    assert view_of(made.model(2)).labels == ("A", "B")


def test_labels_of_steps_keep_apart() -> None:
    text = compare_page(made.model(40, layers=2))
    labels = re.findall(r'<text x="([\d.]+)" y="152" text-anchor="middle">(\d+)</text>', panels(text)[0])
    assert [label for _, label in labels][:: len(labels) - 1] == ["100", "4000"]
    assert len(labels) >= 4
    gaps = [float(b) - float(a) for (a, _), (b, _) in pairwise(labels)]
    assert min(gaps) > 0.6 * max(gaps)
    assert panels(text)[0].count('class="tick"') == ADAPTERS + 1, "a tick at each, and the axis"


def test_maps_have_one_scale_and_say_what_is_missing() -> None:
    text = compare_page(made.partial())
    maps = re.findall(r'<svg class="heat".*?</svg>', text, re.DOTALL)
    assert len(maps) == 4
    assert [one.count("<title>") for one in maps] == [8] * 4
    assert "layer 2 v_proj: not in this adapter" in maps[0]
    assert "layer 3 q_proj: zero update" in maps[0]
    assert "layer 0 q_proj: 0.200 → 0.450 (+0.250)" in maps[2]
    assert "layer 1 k_proj: no distance can be told" in maps[3]
    assert re.search(r'class="h9"[^>]*><title>layer 0 v_proj: distance new', maps[3])
    assert [one.count("no value") for one in re.findall(r'<p class="scale">.*?</p>', text, re.DOTALL)] == [1] * 4
    scales = re.findall(r'<p class="scale"><span>(.*?)</span>.*?<span>(.*?)</span>', text, re.DOTALL)
    assert scales[0] == scales[1] == ("0.150", "0.600")
    assert scales[2] == ("−0.250", "+0.250")
    assert "One module has no layer number" in text


def test_a_cell_of_experts_shows_the_greatest() -> None:
    path = "model.layers.{}.mlp.experts.{}.up_proj".format
    sharp = {(0, 0): (0.2, 0.3), (0, 1): (0.3, 0.1), (1, 0): (0.5, 0.5), (1, 1): (0.4, 0.5)}
    text = compare_page(made.comparison([made.module(path(*place), values) for place, values in sharp.items()]))
    maps = re.findall(r'<svg class="heat".*?</svg>', text, re.DOTALL)
    assert [one.count("<title>") for one in maps] == [2] * 4
    assert "layer 0 up_proj: 0.300, of 2 modules" in maps[0]
    assert "layer 0 up_proj: 0.300 → 0.100 (−0.200), of 2 modules" in maps[2]
    assert "A cell of several modules shows the sharpest" in text
    assert "A cell of several" not in compare_page(made.model(2, layers=2))


def test_other_ranks_are_compared_by_the_normalised_index() -> None:
    page = Page(compare_page(made.other_ranks()))
    assert page.tables["modules"][0][1].startswith("normalised SSI")
    assert row(page, "modules", "model.layers.0.attn.qkv")[1:3] == ["0.100", number((0.2 - 1 / 8) / (7 / 8))]


def test_nothing_changed() -> None:
    same = made.comparison(
        [dataclasses.replace(made.module(f"h.{i}.q", (0.5, 0.5)), net_distance=0.0) for i in range(3)]
    )
    text = compare_page(same)
    assert "Every module that both have is the same in them." in text
    assert "moved" not in Page(text).tables
    assert text.count('<svg class="heat"') == 2, "neither a difference nor a distance"


def test_paths_break_where_their_parts_meet() -> None:
    text = compare_page(MADE["pair"]())
    assert "model.<wbr>layers.<wbr>0.<wbr>self_attn.<wbr>q_proj" in text


def test_pages_stay_small() -> None:
    assert len(compare_page(made.model(2)).encode()) <= 300_000
    assert len(compare_page(made.model(200)).encode()) <= 500_000
    assert len(compare_page(made.model(40, layers=286)).encode()) <= 1_500_000, "2,002 modules"


def test_a_page_of_many_adapters_says_what_it_leaves_out() -> None:
    text = compare_page(made.model(40, layers=2))
    assert f"Drawn are {ADAPTERS} of 40 adapters" in text
    page = Page(text)
    assert len(page.tables["stages"]) == 41
    assert (page.tables["modules"][0][1], page.tables["modules"][0][ADAPTERS]) == ("SSI 100", "4000")


def test_no_text_calls_an_adapter_safe() -> None:
    for kind in MADE:
        words = re.sub(r"<style>.*?</style>", "", compare_page(MADE[kind]()), flags=re.DOTALL)
        assert not re.search(r"\b(safe|unsafe|backdoored|harmful adapter|clean)\b", words), kind
