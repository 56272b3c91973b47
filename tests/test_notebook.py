"""The notebook of the documentation: run again, it shows what is kept of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from docs.make_notebook import CELLS, NOTEBOOK, TITLE, made, page, text_of

for name in ("nbclient", "nbformat", "ipykernel", "pandas"):
    pytest.importorskip(name)

KEPT: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))


# What Jupyter itself leaves open, and warns of, is no matter of the notebook.
@pytest.mark.filterwarnings("ignore")
def test_it_shows_what_is_kept(tmp_path: Path) -> None:
    """If this fails because the program says something else now: `python -m docs.make_notebook`."""
    assert text_of(made(tmp_path)) == NOTEBOOK.read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"map.svg", "my-adapter", "pruned", "scan.json"}


def test_it_is_small_and_every_cell_is_in_it() -> None:
    assert NOTEBOOK.stat().st_size < 100_000
    assert ["".join(cell["source"]) for cell in KEPT["cells"]] == [cell.removeprefix(">") for cell in CELLS]
    assert not re.search(r"/home/|/root/|/tmp/", NOTEBOOK.read_text(encoding="utf-8"))


def test_its_page_has_text_code_and_drawings() -> None:
    made_page = page(KEPT)
    assert made_page.startswith(TITLE)
    assert made_page.count("```python\n") == sum(cell.startswith(">") for cell in CELLS)
    assert made_page.count('src="data:image/svg+xml;base64,') == 2
    assert "<svg" not in made_page, "its style would be that of the page"
