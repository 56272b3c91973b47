from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from s3lora.errors import printable
from s3lora.report.names import apart, middle

INNER = "attention.self.query_key_value.default.projection"
DEEP = [f"base_model.model.vision.blocks.{i}.{INNER}" for i in range(40)]


@pytest.mark.parametrize("width", [12, 16, 20, 30, 60, 200])
def test_rows_do_not_look_alike(width: int) -> None:
    """They differ in the middle alone, where a name is cut first."""
    found = apart(tuple(DEEP), width)
    assert len(set(found.values())) == len(DEEP)
    assert all(cell_len(told) <= width for told in found.values())
    assert all(re.search(rf"(?<!\\d){i}(?!\\d)", found[name]) for i, name in enumerate(DEEP))


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6), st.integers(1, 60))
def test_names_fit(names: list[str], width: int) -> None:
    found = apart(tuple(names), width)
    assert set(found) == set(names)
    for name in names:
        assert cell_len(middle(name, width)) <= width
        if all(cell_len(printable(one)) <= width for one in names):
            assert found[name] == printable(name, 1024)
