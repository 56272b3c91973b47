"""The table of degenerate answers is what its script writes."""

from __future__ import annotations

from docs import make_degenerate
from tests.support import shared


def test_the_table_is_what_would_be_written() -> None:
    again = "write it again: python -m docs.make_degenerate"
    assert make_degenerate.PAGE.read_text(encoding="utf-8") == make_degenerate.page(shared() / "data"), again
