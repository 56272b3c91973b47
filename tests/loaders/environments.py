"""An environment for each loader: a folder of packages put before those of `.venv`, made once by pip or npm.

They lie in `S3LORA_LOADERS`, by default `.venv/loaders`. A test is skipped where its environment cannot be made.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from tests.pages import ROOT

HERE = Path(__file__).resolve().parent
SECONDS = 1800
#: Pip puts packages in place without what they ask for, npm does the same, `wheel` is unpacked and never installed, and
#: `here` are packages of the environment of the tests.
How = Literal["here", "pip", "npm", "wheel"]


@dataclass(frozen=True)
class Recipe:
    """One loader: the version that rows are recorded for, and what makes its environment.

    `package` is the one whose version is told where it is that of the tests' own environment. `beside` names other
    packages whose version a reader should know.
    """

    loader: str
    version: str
    how: How
    wanted: tuple[str, ...] = ()
    package: str = ""
    beside: tuple[str, ...] = ()


#: Every environment by its name. What is pinned here is what the tables in docs/loaders.md are of.
RECIPES: dict[str, Recipe] = {
    "peft": Recipe("peft", "", "here", package="peft", beside=("transformers",)),
    "transformers": Recipe("transformers", "", "here", package="transformers", beside=("peft",)),
    "peft-0.14.0": Recipe(
        "peft",
        "0.14.0",
        "pip",
        ("peft==0.14.0", "transformers==4.57.6", "tokenizers==0.22.1", "huggingface_hub==0.36.0"),
    ),
    "peft-0.13.2": Recipe(
        "peft",
        "0.13.2",
        "pip",
        ("peft==0.13.2", "transformers==4.57.6", "tokenizers==0.22.1", "huggingface_hub==0.36.0"),
    ),
    "diffusers": Recipe("diffusers", "0.42.1", "pip", ("diffusers==0.42.1",), beside=("peft",)),
    "mlx": Recipe("mlx", "0.32.2", "pip", ("mlx==0.32.4", "mlx-cpu==0.32.4", "mlx-lm==0.32.2")),
    "mlx-0.31.3": Recipe("mlx", "0.31.3", "pip", ("mlx==0.32.4", "mlx-cpu==0.32.4", "mlx-lm==0.31.3")),
    "llamacpp": Recipe("llamacpp", "0.5.0", "npm", ("@node-llama-cpp/linux-x64@3.22.1", "node-llama-cpp@3.22.1")),
    "vllm-0.10.0": Recipe("vllm", "0.10.0", "wheel", ("vllm==0.10.0",)),
    "vllm": Recipe("vllm", "0.33.0", "wheel", ("vllm==0.33.0",)),
    "sglang": Recipe("sglang", "0.5.23", "wheel", ("sglang==0.5.23",)),
}


@dataclass(frozen=True)
class Environment:
    """An environment that is there: `folder` holds its packages, None where they are those of the tests."""

    name: str
    loader: str
    version: str
    folder: Path | None
    beside: Mapping[str, str] = field(default_factory=dict)

    def run(self, script: str, jobs: Mapping[str, Any], work: Path) -> dict[str, Answer]:
        """Run `tests/loaders/SCRIPT` on these jobs in a process of its own, and return its answers by job.

        `jobs` is what the script's `worker.serve` gets, with `jobs["jobs"]` by name.
        """
        work.mkdir(parents=True, exist_ok=True)
        given, out = work / "jobs.json", work / "out"
        given.write_text(json.dumps(jobs, default=os.fspath), encoding="utf-8")
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        if self.folder is not None:
            variables["PYTHONPATH"] = str(self.folder)
        command = [sys.executable, str(HERE / script), str(given), str(out)]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode or not (out / "answers.json").is_file():
            raise RuntimeError(f"{script} in {self.name} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        answers = json.loads((out / "answers.json").read_text(encoding="utf-8"))
        return {name: Answer(out / f"{i}.npz", **told) for i, (name, told) in enumerate(answers.items())}


@dataclass(frozen=True)
class Answer:
    """What a loader made of one job: arrays, or the error at which it stopped."""

    file: Path
    error: str | None = None
    warnings: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """Return the error in short, without what differs from machine to machine."""
        line = next((one for one in (self.error or "").splitlines() if one.strip()), "")
        # Sets are printed in any order.
        return re.sub(r"\{.*", "…", re.sub(r"(?:/[\w.+-]+){2,}/?", "…", line))[:160]

    @property
    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the arrays by name; none where it stopped."""
        if not self.file.is_file():
            return {}
        with np.load(self.file) as held:
            return {name: held[name] for name in held.files}


def environment(name: str) -> Environment:
    """Return the environment of a loader, made where it is not there yet; skip the test where it cannot be made."""
    recipe = RECIPES[name]
    if recipe.how == "here":
        try:
            found = version(recipe.package)
            beside = {one: version(one) for one in recipe.beside}
        except PackageNotFoundError as error:
            pytest.skip(f"{error.name} is not installed")
        return Environment(name, recipe.loader, found, None, beside)
    folder = _home() / name
    if not _is_made(folder, recipe):
        _make(folder, recipe)
    return Environment(name, recipe.loader, recipe.version, folder, _beside(recipe))


def _home() -> Path:
    return Path(os.environ.get("S3LORA_LOADERS", ROOT / ".venv" / "loaders"))


def _beside(recipe: Recipe) -> dict[str, str]:
    pinned = dict(one.rpartition("==")[::2] for one in recipe.wanted if "==" in one)
    told = {name: number for name, number in pinned.items() if number != recipe.version}
    for name in recipe.beside:
        try:
            told.setdefault(name, version(name))
        except PackageNotFoundError as error:
            pytest.skip(f"{error.name} is not installed")
    return told


def _is_made(folder: Path, recipe: Recipe) -> bool:
    stamp = folder / "made-of"
    return stamp.is_file() and stamp.read_text(encoding="utf-8").split() == [*recipe.wanted]


def _make(folder: Path, recipe: Recipe) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        _fill(made, recipe)
        (made / "made-of").write_text("\n".join(recipe.wanted), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    except (subprocess.SubprocessError, OSError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        pytest.skip(f"cannot make the environment of {folder.name}: {detail.strip().splitlines()[-1][:300]}")
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _fill(folder: Path, recipe: Recipe) -> None:
    pip = [sys.executable, "-m", "pip"]
    if recipe.how == "pip":
        _call([*pip, "install", "--quiet", "--no-deps", "--no-compile", "--target", str(folder), *recipe.wanted])
    elif recipe.how == "wheel":
        # Only Python files are wanted: these packages ask for gigabytes, and their loading code for next to nothing.
        wheels = folder / "wheels"
        _call([*pip, "download", "--quiet", "--no-deps", "--dest", str(wheels), *recipe.wanted])
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as file:
                for name in file.namelist():
                    if name.endswith(".py"):
                        file.extract(name, folder)
        shutil.rmtree(wheels)
    else:
        npm = shutil.which("npm")
        if npm is None:
            raise OSError("npm is not on the PATH")
        _call([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder), *recipe.wanted])


def _call(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
