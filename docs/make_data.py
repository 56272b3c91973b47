"""Write the table of data sets in docs/evaluation.md, from the shapes that the readers know.

    python docs/make_data.py

A test fails where the table is not what this would write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from s3lora.evaluate.data.shape import CATEGORY_FIELDS, ID_FIELDS, TEXT_FIELDS, DataShape
from s3lora.evaluate.data.shapes import SHAPES

PAGE = Path(__file__).resolve().parent / "evaluation.md"
PART = re.compile(r"(<!-- made: data -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = ("data set", "prompt", "category", "identifier", "right answer", "for")


def columns(names: Iterable[str]) -> str:
    """Return names of columns as code."""
    return ", ".join(f"`{name}`" for name in names)


def row(shape: DataShape) -> tuple[str, ...]:
    """Return the cells of a data set; columns that any table may have are said above the table, once."""
    title = f"[{shape.title}](https://arxiv.org/abs/{shape.paper})" if shape.paper else shape.title
    category = "" if shape.category == CATEGORY_FIELDS else columns(shape.category)
    shared = "" if shape.id == ID_FIELDS else columns(shape.id)
    return title, columns(shape.prompt), category, shared, shape.answer_columns, shape.use


def table() -> str:
    """Return the columns that any table may have, and the table of data sets."""
    usual = (
        f"In a table of no published shape, the prompt is the first of {columns(TEXT_FIELDS)} that is not empty, "
        f"the category that of {columns(CATEGORY_FIELDS)}, and the identifier that of {columns(ID_FIELDS)}; right "
        "answers are `reference` and `references`. Rows with one identifier are cases of one behaviour.\n"
    )
    rows = [HEAD, ("---",) * len(HEAD), *map(row, SHAPES)]
    return "\n".join((usual, *(f"| {' | '.join(cells)} |" for cells in rows))) + "\n"


def page() -> str:
    """Return the page with its table written again."""
    return PART.sub(lambda found: found[1] + table() + found[2], PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
