"""Every example in a docstring is run as it stands."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.command import SOURCE

FILES = [path for path in sorted((SOURCE / "s3lora").rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]


def test_examples_are_found() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_examples(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0
