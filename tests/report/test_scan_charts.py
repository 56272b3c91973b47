"""The drawings of a scan: where the dots of a distribution lie, and which rules the page has."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from s3lora.choose.rules import RULES
from s3lora.report.scan_charts import STRIP, STRIP_TOP, dot_heights, strips
from s3lora.report.scan_view import View, view_of
from tests.command import SOURCE
from tests.report.scanned import reported, wide

SCRIPT = SOURCE / "s3lora/report/templates/rules.js"


def view(folder: Path) -> View:
    made = reported(wide(folder, 20, 4))
    return view_of(made.document, made.ranked)


def test_equal_values_all_show(tmp_path: Path) -> None:
    """Dots stay in their strip; nine in a row have nine heights, and those that follow each other lie far apart."""
    seen = view(tmp_path / "a")
    heights = dot_heights(seen)
    assert len(heights) == len(seen.document.modules)
    for row in range(len(seen.strips)):
        mine = [at for at, strip in zip(heights, seen.strip, strict=True) if strip == row]
        low, high = STRIP_TOP + STRIP * row, STRIP_TOP + STRIP * (row + 1)
        assert low + 3 < min(mine)
        assert max(mine) < high - 3
        assert abs((min(mine) + max(mine)) / 2 - (low + high) / 2) < 0.11
        assert len(set(mine[:9])) == 9
        assert mine[9:18] == mine[:9]
        assert all(abs(one - other) > 7 for one, other in pairwise(mine))


def test_the_drawing_has_the_heights(tmp_path: Path) -> None:
    seen = view(tmp_path / "a")
    assert seen.shown is not None
    drawn = strips(seen, seen.shown)
    at = [float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)h0", drawn.dots + drawn.chosen)]
    assert sorted(at) == sorted(dot_heights(seen))


def test_the_page_can_apply_the_rules_that_it_offers() -> None:
    table = re.search(r"^const RULES = \{\n(.*?)^\};", SCRIPT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert table is not None
    names = re.findall(r"^  (\w+)(?::|\()", table[1], re.MULTILINE)
    assert names == [kind.name for kind in RULES.values() if kind.page is not None]
