"""Finding the checkpoints of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from s3lora import AdapterFileError, UsageError, checkpoints
from s3lora.adapter.checkpoints import step_of
from tests.support import make_adapter, shared

SHAPES = {f"model.layers.0.self_attn.{letter}_proj": (8, 6, 2) for letter in "qv"}


def run_of(folder: Path, steps: Sequence[int]) -> Path:
    """Write the folder of a run with a checkpoint at each step."""
    for seed, step in enumerate(steps):
        make_adapter(folder / f"checkpoint-{step}", SHAPES, seed=seed)
    return folder


def test_the_checkpoints_of_a_run(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", (900, 1000, 50))
    (run / "checkpoint-last").mkdir()
    (run / "checkpoint-77").write_text("no folder")
    (run / "runs").mkdir()
    assert [path.name for path in checkpoints(run)] == ["checkpoint-50", "checkpoint-900", "checkpoint-1000"]
    make_adapter(run, SHAPES)
    assert checkpoints(run)[-1] == run
    assert len(checkpoints(run)) == 4


def test_folders_that_are_no_run(tmp_path: Path) -> None:
    with pytest.raises(AdapterFileError, match="no such file or folder"):
        checkpoints(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds no checkpoints, so there is nothing to compare; give two adapters, or"):
        checkpoints(make_adapter(tmp_path / "adapter", SHAPES))
    with pytest.raises(UsageError, match="holds one checkpoint only"):
        checkpoints(run_of(tmp_path / "run", (5,)))


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-0", 0), ("checkpoint-01", 1), ("checkpoint-1500", 1500), ("0000200_adapters.safetensors", 200),
        ("checkpoint-", None), ("checkpoint-1-old", None), ("my-checkpoint-1", None), ("checkpoint--1", None),
        ("adapters.safetensors", None), ("checkpoint-²", None), (f"checkpoint-{'9' * 400}", None), ("", None),
    ],
)  # fmt: skip
def test_steps_in_names(name: str, step: int | None) -> None:
    assert step_of(name) == step


def test_the_checkpoints_of_mlx() -> None:
    paths = checkpoints(shared() / "adapters" / "qwen25-mlx")
    assert [path.name for path in paths] == ["0000100_adapters.safetensors", "0000200_adapters.safetensors"]
