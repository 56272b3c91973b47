"""The page of an adapter of many modules in a real browser: rows as they are looked at, a map of experts, few nodes."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from s3lora.measure.scan import scan
from s3lora.report.scan_page import Reported, scan_page
from tests.command import call
from tests.report.browser import Looks, Show, presentable
from tests.report.scanned import DEMO, many, mixed, page, reported
from tests.support import make_adapter

if TYPE_CHECKING:
    from playwright.sync_api import Download, Page

LAYERS, EXPERTS = 6, 40
MODULES = 3 * LAYERS * EXPERTS


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    return many(tmp_path_factory.mktemp("many") / "few", 8, EXPERTS, LAYERS)


def order(one: Reported) -> list[str]:
    return [path for unit in one.ranked[0].units for path in unit.paths]


def rows(opened: Page) -> list[str]:
    found: list[str] = opened.locator(".modules tbody tr[data-i] th").all_inner_texts()
    return [text.replace("\n", "") for text in found]


def saved(opened: Page, button: str) -> str:
    with opened.expect_download() as waited:
        opened.locator(button).click()
    download: Download = waited.value
    return Path(download.path()).read_text(encoding="utf-8")


def test_rows_are_made_as_they_come_into_sight(show: Show, big: Reported) -> None:
    opened = show(scan_page([big]))
    assert rows(opened) == order(big)[:300]
    assert opened.locator(".modules").get_attribute("aria-rowcount") == str(MODULES + 1)
    opened.evaluate("box => box.scrollTop = box.scrollHeight", opened.locator(".scroll:has(.modules)").element_handle())
    opened.locator(f'.modules tr[aria-rowindex="{MODULES + 1}"]').wait_for()
    assert rows(opened)[-1] == order(big)[-1]
    assert len(rows(opened)) <= 300
    # The end is where it would be if all rows were there.
    assert opened.locator(f'.modules tr[aria-rowindex="{MODULES + 1}"]').is_visible()


def test_the_keyboard_walks_beyond_the_rows_that_are_there(show: Show, big: Reported) -> None:
    opened = show(scan_page([big]))
    opened.locator(".modules tbody tr[data-i]").nth(298).focus()
    for _ in range(8):
        opened.keyboard.press("ArrowDown")
    assert opened.locator("h3.path").inner_text() == order(big)[306]
    assert opened.evaluate("document.activeElement.cells[0].textContent") == order(big)[306]


def test_the_map_of_experts_is_seen_and_walked(show: Show, big: Reported) -> None:
    opened = show(scan_page([big]))
    chart = opened.locator("svg.experts")
    assert chart.locator("path[class^=h]").count() == 10
    drawn = opened.evaluate(
        "[...document.querySelectorAll('svg.experts path[class^=h]')].map(p => p.getAttribute('d'))"
    )
    drawn = sum(path.count("M") for path in drawn)
    assert drawn == LAYERS * EXPERTS
    opened.locator('select[name="experts"]').select_option(label="up_proj")
    chart.focus()
    for key in ("Home", "ArrowDown", "ArrowRight", "ArrowRight"):
        opened.keyboard.press(key)
    path = opened.locator("h3.path").inner_text()
    assert re.fullmatch(r"model\.layers\.\d\.mlp\.experts\.2\.up_proj", path)
    assert opened.locator(".tip").inner_text().endswith(path)
    opened.keyboard.press("End")
    assert f".experts.{EXPERTS - 1}." in opened.locator("h3.path").inner_text()
    box = chart.bounding_box()
    assert box is not None
    opened.mouse.move(box["x"] + 36 + 5, box["y"] + 20 + 5)
    assert opened.locator("h3.path").inner_text() == "model.layers.0.mlp.experts.0.up_proj"


def test_few_nodes_do(show: Show, big: Reported) -> None:
    opened = show(scan_page([big]))
    assert opened.evaluate("document.querySelectorAll('*').length") < 7000


def test_what_is_saved_is_what_is_there(show: Show, big: Reported) -> None:
    opened = show(scan_page([big]))
    found = list(csv.DictReader(io.StringIO(saved(opened, ".filter:has([name=text]) button"))))
    assert [row["path"] for row in found] == order(big)
    chosen = {module.path for module in big.document.modules if module.selected}
    assert {row["path"] for row in found if row["chosen"] == "yes"} == chosen
    values = {module.path: module.indices["ssi"] for module in big.document.modules}
    assert all(float(row["ssi"]) == pytest.approx(values[row["path"]], abs=2**-23) for row in found)
    opened.get_by_label("Path contains").fill("layers.3.")
    found = list(csv.DictReader(io.StringIO(saved(opened, ".filter:has([name=text]) button"))))
    assert {row["layer"] for row in found} == {"3"}
    assert len(found) == MODULES // LAYERS


@pytest.mark.parametrize("figure", ["svg.heat", "svg.experts", "svg.spectrum", "svg.scatter", "svg.strips"])
def test_every_drawing_is_saved(show: Show, big: Reported, figure: str) -> None:
    from xml.etree import ElementTree

    opened = show(scan_page([big]))
    text = saved(opened, f"figure:has({figure}) .saves button >> nth=0")
    tree = ElementTree.fromstring(text)
    assert tree.get("width")
    assert not [e for e in tree.iter() if e.get("class") or e.get("role")]
    assert len({e.get("fill") for e in tree.iter()}) > 1
    numbers = saved(opened, f"figure:has({figure}) .saves button >> nth=1")
    assert len(numbers.splitlines()) > 5


def test_no_cell_of_a_saved_table_is_a_formula(show: Show, tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", {f'layers.{i}.=cmd("x",1)': (8, 8, 2) for i in range(3)} | {"=1+1": (8, 8, 2)})
    opened = show(page(path))
    text = saved(opened, ".filter:has([name=text]) button")
    assert "\n'=1+1," in text
    assert [row["path"] for row in csv.DictReader(io.StringIO(text))].count('layers.0.=cmd("x",1)') == 1


def test_the_address_holds_the_state(show: Show) -> None:
    opened = show(page(DEMO))
    opened.locator('select[name="index"]').select_option(label="magnitude")
    opened.locator('select[name="rule"]').select_option(value="top")
    opened.locator('input[name="amount"]').fill("7")
    opened.get_by_label("Path contains").fill("layers.1")
    opened.locator(".modules tbody tr[data-i]").nth(2).click()
    # The address is written a moment after the last change, and on a busy machine once before the click.
    opened.wait_for_url(re.compile(r"(?=.*text=layers\.1)(?=.*module=)"))
    state = "[...document.querySelectorAll('.modules tr.picked th, h3.path, .here')].map(e => e.textContent)"
    before, address = opened.evaluate(state), opened.url
    assert "amount=7" in address
    opened.goto("about:blank")
    opened.goto(address)
    assert opened.evaluate(state) == before
    for wrong in ("a0&index=99&module=-1&sort=nonsense&rule=none&amount=x", "a0&&&=;;a9&module=3", "%E0%A4%A"):
        opened.goto(f"{address.partition('#')[0]}#{wrong}")
        assert opened.locator(".modules tbody tr[data-i]").count() == 120
    assert not show.problems()


def test_maps_dots_and_table_are_linked(show: Show) -> None:
    opened = show(page(DEMO))
    svg = opened.locator("svg.scatter")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    dots = svg.locator(".picked").get_attribute("d") or ""
    place = [float(number) for number in re.findall(r"[\d.]+", dots)[:2]]
    assert box is not None
    scale = box["width"] / 520
    opened.mouse.move(box["x"] + place[0] * scale, box["y"] + place[1] * scale)
    path = opened.locator("h3.path").inner_text()
    assert opened.locator(".tip").inner_text().endswith(path)
    assert opened.locator(".modules tr.here th").inner_text().replace("\n", "") == path
    layer, name = path.split(".")[2], path.split(".")[-1]
    assert opened.locator("svg.heat rect.here").get_attribute("aria-label").startswith(f"layer {layer} {name}:")  # type: ignore[union-attr]


def test_neighbours_are_the_same_module_in_the_layers_beside(show: Show, tmp_path: Path) -> None:
    modules = {f"stage.1.layers.{i}.{name}": (8, 8, 2) for i in (0, 1, 2, 11) for name in ("q_proj", "k_proj")}
    opened = show(page(make_adapter(tmp_path / "made", modules)))
    for module in scan(tmp_path / "made").modules:
        opened.locator(f'.modules tbody tr:has([title="{module.path}"])').click()
        wanted = {0: ["1"], 1: ["0", "2"], 2: ["1", "11"], 11: ["2"]}[module.layer or 0]
        assert re.findall(r"layer (\d+)", opened.locator(".neighbours").inner_text()) == wanted


def test_equal_values_all_show(show: Show, tmp_path: Path) -> None:
    """Nine dots that follow each other in a strip have nine heights, and stay in it."""
    opened = show(page(mixed(tmp_path / "made", 20)))
    for strip in range(3):
        heights = opened.evaluate(
            "row => explorers[0].parts[2].heights.filter((_, i) => explorers[0].data.strip[i] === row)", strip
        )
        assert len(set(heights[:9])) == 9
        assert max(heights) - min(heights) < 26


@pytest.mark.parametrize("which", ["demo", "many"])
def test_it_prints_on_four_sheets(show: Show, big: Reported, which: str) -> None:
    opened = show(scan_page([reported(DEMO, against=True) if which == "demo" else big]))
    paper = opened.pdf(format="A4", prefer_css_page_size=True)
    assert 1 <= len(re.findall(rb"/Type\s*/Page[^s]", paper)) <= 4


def test_a_page_of_a_pruning_is_no_chooser(show: Show, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mixed(tmp_path / "made")
    done = call(capsys, "prune", path, "-o", tmp_path / "out", "--top", 4, "--format", "html")
    opened = show(done.out)
    assert opened.locator('[name="rule"], .copy').count() == 0
    opened.locator('select[name="index"]').select_option(label="magnitude")
    assert opened.locator(".modules tr.picked").count() == 4


def test_the_page_of_experts_is_presentable(show: Show, looks: Looks, big: Reported) -> None:
    presentable(show, scan_page([big]), "scan-experts", looks=looks)


def test_the_page_of_the_demo_is_presentable(show: Show, looks: Looks) -> None:
    presentable(show, page(DEMO, against=True), "scan-demo", looks=looks)
