"""The page of a scan in a real browser: what it marks is what `select` chooses, and every part can be used."""

from __future__ import annotations

import random
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from s3lora.adapter.open import open_adapter
from s3lora.choose.rules import Fraction, Gap, Outlier, Threshold, Top
from s3lora.choose.select import Filter, select
from s3lora.choose.ties import rounded
from s3lora.measure.published import among_published, bands
from s3lora.measure.scan import scan
from s3lora.report.scan_page import scan_page
from s3lora.report.values import decimal
from tests.command import call
from tests.planning import alike, shaken
from tests.report.browser import FEW, Looks, Show, presentable
from tests.report.measured import sweep as made_sweep
from tests.report.scanned import DEMO, comparable, mixed, page, reported
from tests.report.test_page import ATTACK
from tests.support import make_adapter, shared

if TYPE_CHECKING:
    from playwright.sync_api import Page

MARKED = "() => [...document.querySelectorAll('.modules tr.picked th')].map(cell => cell.textContent)"
SHOWN = """() => [...document.querySelectorAll('.modules tbody tr')].filter(row => !row.hidden)
  .map(row => row.cells[0].textContent)"""


#: Index, rule and amount, each of which is pruned as the page says.
TRIED = [
    ("SSI (svd)", "top", 3),
    ("stable rank", "fraction", 40),
    ("weighted SSI", "threshold", 20),
    ("magnitude", "gap", None),
]


def try_rule(opened: Page, label: str, rule: str, amount: object = None) -> list[str]:
    """Choose an index and a rule in the page, and return the modules that it marks."""
    opened.locator('select[name="index"]').select_option(label=label)
    opened.locator('select[name="rule"]').select_option(value=rule)
    if amount is not None:
        opened.locator('input[name="amount"]').fill(str(amount))
    marked: list[str] = opened.evaluate(MARKED)
    return marked


RULES: list[tuple[str, object, Any]] = [
    ("top", 7, Top(7)),
    ("top", 0, Top(0)),
    ("fraction", 33.3, Fraction(0.333)),
    ("fraction", 50, Fraction(0.5)),
    ("threshold", 0.31, Threshold(0.31)),
    ("outlier", 1.2, Outlier(1.2)),
    ("gap", None, Gap()),
]
INDICES = [
    ("SSI (mas-svd)", "ssi", "mas-svd"),
    ("SSI (svd)", "ssi", "svd"),
    ("SSI (spsvd)", "ssi", "spsvd"),
    ("normalised SSI", "normalised_ssi", "mas-svd"),
    ("weighted SSI", "weighted_ssi", "mas-svd"),
    ("magnitude", "magnitude", "mas-svd"),
    ("Frobenius norm", "frobenius", "mas-svd"),
    ("stable rank", "stable_rank", "mas-svd"),
]


@pytest.mark.parametrize("which", ["made", "demo"])
def test_every_rule_marks_what_select_chooses(show: Show, tmp_path: Path, which: str) -> None:
    path = DEMO if which == "demo" else mixed(tmp_path / "made")
    opened = show(page(path))
    for label, index, method in INDICES if which == "made" else INDICES[::7]:
        measured = scan(path, method)
        for name, amount, rule in RULES:
            plan = select(measured, rule, index=index)
            assert set(try_rule(opened, label, name, amount)) == set(plan.paths), (label, name)
            tile = opened.locator('[data-tile="modules"]').inner_text()
            assert tile == str(len(plan.chosen))
            energy = opened.locator('[data-tile="energy"]').inner_text()
            assert abs(float(energy.removesuffix(" %")) / 100 - plan.share.frobenius_energy) <= 0.0051
            compute = opened.locator('[data-tile="compute"]').inner_text()
            assert abs(float(compute.removesuffix(" %")) / 100 - plan.share.compute) <= 0.0051


@pytest.mark.parametrize("unit", ["module", "layer"])
def test_the_page_ties_what_select_ties(show: Show, tmp_path: Path, unit: Any) -> None:
    """Its numbers may come from other kernels than those of the command that it shows."""
    path = alike(tmp_path / "a")
    measured = scan(path)
    opened = show(page(path, unit=unit, change=lambda one: shaken(one, 3)))
    for label, index in (("SSI (mas-svd)", "ssi"), ("magnitude", "magnitude"), ("stable rank", "stable_rank")):
        limit = sorted(module.indices[index] or 0.0 for module in measured.modules)[9]
        for name, amount, rule in [*RULES, ("threshold", repr(limit), Threshold(limit))]:
            plan = select(measured, rule, index=index, unit=unit)
            assert set(try_rule(opened, label, name, amount)) == set(plan.paths), (label, name)


def test_the_page_rounds_as_python_does(show: Show, tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    sizes = random.uniform(-1, 1, 4000) * 10.0 ** random.integers(-30, 30, 4000)
    values = [*sizes.tolist(), *random.uniform(-1, 1, 4000).tolist(), 0.0, 1.0, 0.5, 1 / 256, 1.7e308, 1e290, 5e-324]
    opened = show(page(mixed(tmp_path / "made")))
    for free in (True, False):
        script = "([values, free]) => values.map((value) => String(rounded(value, free)))"
        found = opened.evaluate(script, [values, free])
        assert list(map(float, found)) == [rounded(value, scale_free=free) for value in values]


def test_filters_and_whole_layers_are_kept(show: Show, tmp_path: Path) -> None:
    path = mixed(tmp_path / "made")
    only = Filter(layers=(2, 6))
    opened = show(page(path, Top(3), only=only))
    assert set(try_rule(opened, "weighted SSI", "top", 9)) == set(
        select(scan(path), Top(9), index="weighted_ssi", only=only).paths
    )
    opened = show(page(path, Top(2), unit="layer", combine="max"))
    for name, amount, rule in RULES[:3]:
        plan = select(scan(path), rule, index="magnitude", unit="layer", combine="max")
        assert set(try_rule(opened, "magnitude", name, amount)) == set(plan.paths)


def test_the_command_in_the_page_does_what_it_marks(
    show: Show, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = mixed(tmp_path / "an adapter; with 'quotes'")
    monkeypatch.chdir(tmp_path)
    done = call(capsys, "scan", path.name, "--projection", "q_proj,v_proj", "--rank", "3", "--format", "html")
    opened = show(done.out)
    for i, (label, rule, amount) in enumerate(TRIED):
        marked = try_rule(opened, label, rule, amount)
        words = shlex.split(opened.locator(".command code").inner_text())
        assert words[:3] == ["s3lora", "prune", path.name]
        words[words.index("PRUNED")] = f"pruned-{i}"
        assert call(capsys, *words[1:]).status == 0
        with open_adapter(path) as before, open_adapter(tmp_path / f"pruned-{i}") as after:
            gone = {m.path for m in before.modules} - {m.path for m in after.modules}
        assert gone == set(marked)


def test_nothing_and_everything_give_no_command(show: Show) -> None:
    opened = show(page(DEMO))
    for amount, remark in ((0, "Nothing is chosen."), (120, "Every module is chosen")):
        try_rule(opened, "SSI (mas-svd)", "top", amount)
        assert opened.locator(".command").is_hidden()
        assert remark in opened.locator(".remark").inner_text()
    try_rule(opened, "SSI (mas-svd)", "top", 5)
    assert opened.locator(".command").is_visible()


def test_the_slider_moves_marks_in_every_part(show: Show) -> None:
    opened = show(page(DEMO))
    before = opened.locator("svg.heat .cross").first.get_attribute("d")
    slider = opened.locator('input[name="slide"]')
    slider.focus()
    opened.keyboard.press("ArrowRight")
    assert slider.input_value() == opened.locator('input[name="amount"]').input_value() == "11"
    assert len(opened.evaluate(MARKED)) == 11
    crosses, dots = (opened.locator(f"svg {name}").first.get_attribute("d") for name in (".cross", ".dots.picked"))
    assert crosses is not None
    assert dots is not None
    assert crosses != before
    assert crosses.count("M") == dots.count("M") == 11


#: The ends of a shade, and the points of dots, in the coordinates of their drawing.
ENDS = "shade => (({x, y, width, height}) => [x, x + width, y, y + height])(shade.getBBox())"
SPOTS = "dots => dots.getAttribute('d').split('M').slice(1).map(at => at.split('h')[0].split(' ').map(Number))"


def test_shades_are_where_published_modules_lie(show: Show, tmp_path: Path) -> None:
    path = comparable(tmp_path / "made")
    modules = scan(path).modules
    opened = show(page(path, against=True))
    try_rule(opened, "normalised SSI", "top", 0)
    against = among_published(scan(path))
    limits = bands(against)["normalised_ssi"]
    places = opened.locator("svg.scatter .dots").first.evaluate(SPOTS)
    assert len(places) == len(modules)
    shades = [shade.evaluate(ENDS) for shade in opened.locator("svg.scatter .shades path").all()]
    rows = [shade.evaluate(ENDS) for shade in opened.locator("svg.strips .shades path").all()]
    assert len(shades) == len(rows) == len(limits) == 3
    values = [module.indices["normalised_ssi"] or 0.0 for module in modules]
    # The drawing is linear: two dots tell where the ends of a band must be.
    low, high = (min(values), max(values))
    at = [places[values.index(value)][1] for value in (low, high)]
    for (_, _, top, bottom), (least, most) in zip(shades, limits, strict=True):
        wanted = [at[0] + (at[1] - at[0]) * (value - low) / (high - low) for value in (most, least)]
        assert [top, bottom] == pytest.approx(wanted, abs=1.0)
    opened.locator(".modules tbody tr", has_text="layers.1.self_attn.v_proj").click()
    band = opened.locator("svg.scatter .band")
    number = against.standings["model.layers.1.self_attn.v_proj"].group
    assert band.evaluate(ENDS) == pytest.approx(shades[number], abs=0.2)
    opened.locator(".modules tbody tr", has_text="layers.1.mlp.gate").click()
    assert band.get_attribute("d") == ""
    assert opened.locator(".shaded:visible").count() == 2
    opened.locator('select[name="index"]').select_option(label="magnitude")
    assert opened.locator(".shades path").count() == opened.locator(".shaded:visible").count() == 0


def test_a_rule_that_the_page_cannot_apply_stays_as_it_was(show: Show) -> None:
    from s3lora.choose.rules import Null

    opened = show(page(DEMO, Null(draws=100, q=0.9)))
    assert opened.locator('select[name="rule"]').input_value() == "given"
    assert set(opened.evaluate(MARKED)) == set(select(scan(DEMO), Null(draws=100, q=0.9)).paths)
    assert opened.locator('input[name="slide"]').is_hidden()


#: What both Python and the script draw: the map with its crosses and scale.
DRAWN = """() => ["svg.heat rect", "svg.heat .cross"]
  .map(query => [...document.querySelectorAll(query)].map(shape =>
    [shape.getAttribute("class")?.replace(/^(h.) here/, "$1"), shape.getAttribute("d"),
      shape.getAttribute("aria-label") ?? shape.textContent.replace(/, the sharpest of \\d+$/, "")]))
  .concat([[".dull", ".sharp", ".scale-name"].map(query => document.querySelector(query).textContent)])"""


@pytest.mark.parametrize("which", ["made", "demo"])
@pytest.mark.parametrize("index", ["ssi", "stable_rank"])
def test_the_script_draws_what_is_drawn_without_it(show: Show, tmp_path: Path, which: str, index: str) -> None:
    """It colours the map again at the start, from the numbers of the page."""
    path = DEMO if which == "demo" else mixed(tmp_path / "made")
    text = page(path, Top(3), index=index)
    plain, scripted = (show(text, scripts=scripts).evaluate(DRAWN) for scripts in (False, True))
    *drawn, words = plain
    *again, said = scripted
    assert said == words
    for old, new in zip(drawn, again, strict=True):
        assert len(old) == len(new) > 0
        for (css, was, text), (css_then, shape, text_then) in zip(old, new, strict=True):
            assert (css_then, text_then) == (css, text)
            assert numbers([shape]) == pytest.approx(numbers([was]), abs=0.1 + 1e-9)


def test_the_script_writes_numbers_as_the_page_does(show: Show) -> None:
    opened = show(page(DEMO))
    draw = random.Random(5)
    values: list[float | None] = [draw.uniform(-1, 1) * 10.0 ** draw.randint(-9, 12) for _ in range(2000)]
    values += [None, 0.0, 0.01, 0.00999, 0.0099999, 9.995, 99.95, 999.4, 1e7, 9.99e6, 123456.0, 1e-7, 5e-7]
    assert opened.evaluate("values => values.map(show)", values) == [decimal(value) for value in values]


def numbers(paths: list[str | None]) -> list[float]:
    return [float(number) for path in paths if path is not None for number in re.findall(r"\d+(?:\.\d+)?", path)]


def test_the_map_is_walked_by_keyboard(show: Show) -> None:
    opened = show(page(DEMO))
    name = opened.locator("h3.path")
    opened.locator('svg.heat rect[tabindex="0"]').focus()
    assert name.inner_text() == "model.layers.25.self_attn.v_proj"
    for key, path in (
        ("ArrowLeft", "model.layers.24.self_attn.v_proj"),
        ("ArrowUp", "model.layers.24.self_attn.k_proj"),
        ("Home", "model.layers.0.self_attn.k_proj"),
        ("ArrowDown", "model.layers.0.self_attn.v_proj"),
        ("End", "model.layers.29.self_attn.v_proj"),
        ("ArrowRight", "model.layers.29.self_attn.v_proj"),
    ):
        opened.keyboard.press(key)
        assert name.inner_text() == path
    assert opened.locator('svg.heat rect[tabindex="0"]').count() == 1
    bars = opened.locator(".bars").get_attribute("d")
    assert bars is not None
    assert bars.count("M") == 8
    assert "layer 28" in opened.locator(".neighbours").inner_text()


def test_a_cell_is_shown_by_pointing_and_by_a_tap(show: Show) -> None:
    opened = show(page(DEMO))
    cell = opened.locator("svg.heat rect").nth(40)
    title = cell.get_attribute("aria-label") or ""
    cell.hover()
    layer, projection = title.split(":")[0].removeprefix("layer ").split()
    assert opened.locator("h3.path").inner_text() == f"model.layers.{layer}.self_attn.{projection}"
    tip = opened.locator(".tip")
    assert tip.is_visible()
    assert tip.inner_text().split("\n") == [
        f"SSI (mas-svd) {title.split(': ')[1]}",
        opened.locator("h3.path").inner_text(),
    ]
    beside, under = tip.bounding_box(), cell.bounding_box()
    assert beside is not None
    assert under is not None
    assert under["y"] - 20 < beside["y"] + beside["height"] < under["y"]
    opened.mouse.move(0, 0)
    assert tip.is_hidden()
    opened = show(page(DEMO), width=400)
    opened.locator("svg.heat rect").nth(3).tap()
    assert ".layers.3." in opened.locator("h3.path").inner_text()


def test_the_table_sorts_and_filters(show: Show) -> None:
    opened = show(page(DEMO))
    values = {module.path: module.indices["ssi"] or 0.0 for module in scan(DEMO).modules}
    by_value = sorted(values, key=lambda path: -values[path])
    head = opened.locator('th[data-sort="s0"] button')
    assert opened.evaluate(SHOWN) == by_value
    assert opened.locator('th[data-sort="s0"]').get_attribute("aria-sort") == "descending"
    head.focus()
    opened.keyboard.press("Enter")
    assert opened.evaluate(SHOWN)[0] == by_value[-1]
    opened.locator('th[data-sort="path"] button').click()
    assert opened.evaluate(SHOWN) == list(values)
    opened.get_by_label("Path contains").fill("layers.1")
    assert opened.evaluate(SHOWN) == [path for path in values if "layers.1" in path]
    opened.locator('select[name="strip"]').select_option(label="v_proj")
    wanted = [path for path in values if "layers.1" in path and path.endswith("v_proj")]
    assert opened.evaluate(SHOWN) == wanted
    assert opened.locator(".filter:has([name=text]) output").inner_text() == f"{len(wanted)} of 120 modules"
    opened.get_by_label("Path contains").fill("")
    opened.locator('select[name="strip"]').select_option(value="")
    opened.get_by_label("chosen only").check()
    assert set(opened.evaluate(SHOWN)) == set(by_value[:10])
    opened.locator(".modules tr.picked").first.click()
    opened.keyboard.press("ArrowDown")
    assert opened.locator("tr.here").count() == 1


def test_rows_stay_in_reach_of_the_keyboard(show: Show) -> None:
    opened = show(page(DEMO))
    opened.get_by_label("Path contains").fill("layers.1.self_attn.q")
    assert opened.locator("tr.here").count() == 0
    assert opened.locator('.modules tr[tabindex="0"]').count() == 1


def test_sizes_sort_as_sizes(show: Show, tmp_path: Path) -> None:
    sizes = {"h.0.q_proj": (576, 576, 4), "h.1.q_proj": (192, 576, 8), "h.2.q_proj": (1200, 576, 2)}
    opened = show(page(make_adapter(tmp_path / "a", sizes)))
    opened.locator('th[data-sort="m"] button').click()
    found = opened.evaluate(SHOWN)
    assert found in (["h.1.q_proj", "h.0.q_proj", "h.2.q_proj"], ["h.2.q_proj", "h.0.q_proj", "h.1.q_proj"])


def test_going_back_brings_the_start_back(show: Show) -> None:
    opened = show(page(DEMO))
    start = opened.evaluate(MARKED)
    opened.evaluate(
        "location.hash = `${document.querySelector('[data-adapter]').id}&index=1&rule=top&amount=3&text=layers.1`"
    )
    opened.wait_for_function("document.querySelector('input[name=amount]').value === '3'")
    opened.evaluate("location.hash = `${document.querySelector('[data-adapter]').id}&module=5`")
    opened.wait_for_function("document.querySelector('input[name=amount]').value !== '3'")
    assert opened.evaluate(MARKED) == start
    assert opened.locator('select[name="index"]').input_value() == "0"


def test_the_page_tells_all_without_scripts(show: Show, tmp_path: Path) -> None:
    path = mixed(tmp_path / "made")
    text = show(page(path), scripts=False).locator("body").inner_text()
    assert all(module.path in text for module in scan(path).modules)
    assert "top 10" in text
    assert "Copy" not in text
    assert "Path contains" not in text


@pytest.mark.thorough
def test_the_measured_curve_follows_the_slider(show: Show) -> None:
    measured = made_sweep()
    source = scan(DEMO).source
    from dataclasses import replace

    points = tuple(
        replace(point, index="ssi", method="mas-svd")
        if not point.control and "weighted" not in point.ranking
        else point
        for point in measured.points
    )
    opened = show(scan_page([reported(DEMO, sweep=replace(measured, adapter=source, points=points))]))
    mine = sorted({p.top for p in points if p.index == "ssi" and p.method == "mas-svd" and not p.control})
    try_rule(opened, "SSI (mas-svd)", "top", mine[0])
    assert f"At {mine[0]} by SSI" in opened.locator(".point").inner_text()
    assert opened.locator(".here-sign").get_attribute("d")
    before = opened.locator(".here-line").get_attribute("d")
    try_rule(opened, "SSI (mas-svd)", "top", mine[0] + 1)
    assert "was not measured; nearest" in opened.locator(".point").inner_text()
    assert not opened.locator(".here-sign").get_attribute("d")
    assert opened.locator(".here-line").get_attribute("d") != before
    presentable(show, scan_page([reported(DEMO, sweep=replace(measured, adapter=source))]), "scan-measured", looks=FEW)


@pytest.mark.thorough
def test_names_cannot_become_markup(show: Show, looks: Looks, tmp_path: Path) -> None:
    path = make_adapter(
        tmp_path / "hostile", {f"model.layers.{i}.{ATTACK}{n}": (8, 8, 2) for i in range(3) for n in "ab"}
    )
    presentable(show, page(path), "scan-hostile", looks=looks)


@pytest.mark.thorough
def test_several_adapters_share_a_page(show: Show, tmp_path: Path) -> None:
    text = scan_page([reported(DEMO), reported(mixed(tmp_path / "made"))])
    presentable(show, text, "scan-several")
    opened = show(text)
    second = opened.locator("article").nth(1)
    second.locator('select[name="rule"]').select_option(value="fraction")
    second.locator('input[name="amount"]').fill("100")
    assert opened.locator("article").nth(0).locator('[data-tile="modules"]').inner_text() == "10"
    assert second.locator('[data-tile="modules"]').inner_text() == "31"


@pytest.mark.parametrize("name", ["gpt2-classifier-peft", "sam-vit-custom-r8", "sd1-mixed-dtype", "gpt-oss-20b-peft"])
def test_real_adapters(show: Show, capsys: pytest.CaptureFixture[str], name: str) -> None:
    done = call(capsys, "scan", shared() / "adapters" / name, "--format", "html")
    opened = show(done.out)
    plan = select(scan(shared() / "adapters" / name))
    assert set(opened.evaluate(MARKED)) == set(plan.paths)
    assert set(try_rule(opened, "magnitude", "top", 4)) == set(
        select(scan(shared() / "adapters" / name), Top(4), index="magnitude").paths
    )
