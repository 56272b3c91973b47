"""What every page can do with a script: tables sort, filter and are saved, drawings are saved."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from s3lora.report.again import page_of
from s3lora.report.compare_page import compare_page
from s3lora.report.page import sweep_page
from s3lora.report.population_page import population_page
from tests.planning import prune_to
from tests.report import made_comparison, made_population, measured
from tests.report.browser import Looks, Show, presentable
from tests.report.scanned import mixed
from tests.report.test_scan_big_chromium import saved
from tests.support import make_adapter

if TYPE_CHECKING:
    from playwright.sync_api import Page


def column(opened: Page, table: str, place: int) -> list[str]:
    rows = f"[...document.querySelectorAll('table:has(#{table}) tbody tr:not([hidden])')]"
    cells = f"{rows}.map(row => row.cells[{place}]?.textContent)"
    found: list[str] = opened.evaluate(cells)
    return found


def test_a_table_sorts_by_what_its_cells_begin_with(show: Show) -> None:
    opened = show(compare_page(made_comparison.model(3)))
    head = opened.locator("table:has(#modules) thead th").nth(1)
    before = column(opened, "modules", 1)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    found = column(opened, "modules", 1)
    assert sorted(found) == sorted(before)
    numbers = [float(text.replace("−", "-")) for text in found if text != "–"]
    assert numbers == sorted(numbers, reverse=True)
    assert "–" not in found[: len(numbers)], "what has no number comes last"
    opened.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    name = opened.locator("table:has(#modules) thead th").nth(0)
    name.get_by_role("button").click()
    assert name.get_attribute("aria-sort") == "ascending", "names go up first"


def test_rows_that_leave_their_group_take_its_name_along(show: Show) -> None:
    opened = show(sweep_page(measured.sweep()))
    assert opened.locator("table:has(#points) .group").count() > 3
    opened.locator("table:has(#points) thead th").nth(1).get_by_role("button").click()
    assert opened.locator("table:has(#points) .group").count() == 0
    names = column(opened, "points", 0)
    assert sum("45 of 120 pruned" in name for name in names) == 6
    assert {"base model alone", "adapter, nothing pruned"} <= {name.strip() for name in names}


def test_a_table_is_filtered_and_saved(show: Show) -> None:
    opened = show(population_page(made_population.population()))
    assert opened.locator("section:has(#most) .filter button").count() >= 1
    opened = show(sweep_page(measured.sweep()))
    bar = opened.locator("section:has(#points) .filter")
    bar.get_by_label("Rows with").fill("magnitude")
    assert all("magnitude" in name for name in column(opened, "points", 0) if name and "pruned" not in name)
    rows = list(csv.reader(io.StringIO(saved(opened, "section:has(#points) .filter button"))))
    assert {row[0] for row in rows[1:]} == {"magnitude"}
    assert rows[0][0] == "ranking"


def test_every_figure_can_be_saved(show: Show) -> None:
    opened = show(sweep_page(measured.sweep()))
    assert opened.locator("figure .saves button").count() == 2
    text = saved(opened, "figure .saves button >> nth=0")
    assert text.startswith("<svg")
    assert "class=" not in text


def test_what_a_pruning_did_is_presentable(show: Show, looks: Looks, tmp_path: Path) -> None:
    prune_to(
        mixed(tmp_path / "a"), tmp_path / "out", ["model.layers.1.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    )
    presentable(show, page_of(tmp_path / "out" / "s3lora.json"), "prune", looks=looks)


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "=cmd()"])
def test_names_stay_text_where_tables_are_sorted_and_saved(show: Show, tmp_path: Path, name: str) -> None:
    path = make_adapter(tmp_path / "a", {f"layers.{i}.{name}": (8, 8, 2) for i in range(5)} | {name: (8, 8, 2)})
    prune_to(path, tmp_path / "out", [f"layers.{i}.{name}" for i in range(4)])
    opened = show(page_of(tmp_path / "out" / "s3lora.json"))
    opened.locator("table:has(#why) thead th").nth(0).get_by_role("button").click()
    assert opened.locator("table:has(#why) tbody tr").count() == 4
    assert name in saved(opened, "section:has(#why) .filter button")
    assert not show.problems()
