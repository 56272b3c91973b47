"""The table of kinds and commands: the page says what came out, no cell is empty, and all come out so again."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from docs import make_kinds
from tests.kinds import GROUPS, KINDS

AGAIN = "write it again: python -m docs.make_kinds reading writing models"


def kept() -> dict[str, Any]:
    return json.loads(make_kinds.RESULTS.read_text(encoding="utf-8"))


def test_the_page_is_what_would_be_written() -> None:
    assert make_kinds.PAGE.read_text(encoding="utf-8") == make_kinds.page(kept()), "python -m docs.make_kinds"


def test_no_cell_is_empty() -> None:
    found = kept()
    assert {kind.title: {"group": kind.group, "keys": kind.keys} for kind in KINDS} == found["kinds"], AGAIN
    assert {kind.group for kind in KINDS} == set(GROUPS)
    assert [*found["tables"]] == [*make_kinds.TABLES]
    for table in found["tables"].values():
        assert [*table] == [kind.title for kind in KINDS]
        columns = {tuple(row) for row in table.values()}
        assert len(columns) == 1
        for row in table.values():
            for cell in row.values():
                assert cell["verdict"] in ("yes", "partly", "refused", "none")
                assert cell["verdict"] == "yes" or cell["why"]
                assert cell["verdict"] != "refused" or cell["said"]


@pytest.mark.thorough
@pytest.mark.parametrize("table", make_kinds.TABLES)
def test_the_cells_come_out_so_again(table: str) -> None:
    for package in ("pyarrow", "torch", "transformers", "peft", "tokenizers"):
        pytest.importorskip(package)
    before = kept()["tables"][table]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, kind, column, cell in make_kinds.cells([table]):
            old = before[kind][column]
            now = make_kinds.kept(cell)
            assert (name, now["verdict"], now.get("why")) == (table, old["verdict"], old.get("why")), (
                kind,
                column,
                AGAIN,
            )
