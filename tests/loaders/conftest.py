"""The base model of all loaders, made once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny Llama, with its tokenizer."""
    from tests.tiny_model import tiny_folder

    return tiny_folder(tmp_path_factory.mktemp("loaders") / "base")
