"""Every example in a docstring is run as it stands."""

from __future__ import annotations

import doctest
import importlib
import inspect
import shutil
from pathlib import Path

import numpy as np
import pytest

import s3lora
from s3lora.measure.series import series_json
from tests.command import SOURCE
from tests.repair.pairs import model_folder
from tests.report.made_series import small_series

FILES = [path for path in sorted((SOURCE / "s3lora").rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]


def test_examples_are_found() -> None:
    assert len(FILES) > 20
    for name in s3lora.__all__:
        value = getattr(s3lora, name)
        assert not inspect.isfunction(value) or ">>> " in str(value.__doc__), f"s3lora.{name} has no example"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the examples name.

    That is `my-adapter`, the same `pruned`, a `run` with two checkpoints and a series, and a `base-model` and a
    `merged-model`.
    """
    folder = tmp_path_factory.mktemp("made")
    for name in ("my-adapter", "run/checkpoint-100", "run/checkpoint-200"):
        shutil.copytree(SOURCE / "s3lora" / "data" / "demo-adapter", folder / name)
    (folder / "run" / "s3lora-series.json").write_bytes(series_json(small_series()))
    with s3lora.open_adapter(folder / "my-adapter") as adapter:
        scan = s3lora.scan(adapter)
        s3lora.write_pruned(s3lora.prune(adapter, s3lora.select(scan)), scan, folder / "pruned")
    for name, diagonal in (("base-model", [1.0, 1.0, 1.0]), ("merged-model", [1.0, 1.0, 2.0])):
        model_folder(folder / name, {"q_proj.weight": np.diag(diagonal)})
    return folder


@pytest.fixture
def _adapters(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let them lie in the current folder, which is the example's own."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_adapters")
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_examples(path: Path) -> None:
    if path.parent.name == "training":  # its callback is one of transformers'
        pytest.importorskip("transformers")
    name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    assert doctest.testmod(importlib.import_module(name)).failed == 0
