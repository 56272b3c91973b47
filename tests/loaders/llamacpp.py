"""llama.cpp from the packages of npm: its sources, its library, a program that runs it, and the tiny Llama as GGUF."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.loaders.environments import HERE, Answer, environment
from tests.loaders.reference import TOKENS

LIBRARIES = "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"
BUNDLE = "node_modules/node-llama-cpp/llama/gitRelease.bundle"
SECONDS = 600


@dataclass(frozen=True)
class LlamaCpp:
    """Where everything lies; `model` is the base as GGUF."""

    sources: Path
    libraries: Path
    program: Path
    base: Path
    model: Path

    def run(self, adapters: dict[str, Path], work: Path, keep: bool = False) -> dict[str, Answer]:
        """Return the logits with each adapter; `keep` leaves the GGUF that the library gets in `work`."""
        more = {"sources": self.sources, "libraries": self.libraries, "program": self.program, "model": self.model}
        jobs: dict[str, dict[str, Any]] = {name: {"adapter": folder} for name, folder in adapters.items()}
        work.mkdir(parents=True, exist_ok=True)
        for name, one in jobs.items() if keep else ():
            one["keep"] = work / f"{name}.gguf"
        given = {"base": self.base, "tokens": TOKENS, "jobs": jobs, **more}
        return environment("llamacpp").run("run_llamacpp.py", given, work)


def llama_cpp(base: Path, work: Path) -> LlamaCpp:
    """Unpack the sources, compile the program, and write the base as GGUF; skip the test where that cannot be done."""
    there = environment("llamacpp")
    folder = there.folder
    assert folder is not None
    for tool in ("git", "gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on the PATH")
    sources, libraries, program, model = folder / "llama.cpp", folder / LIBRARIES, work / "logits", work / "base.gguf"
    if not (sources / "convert_lora_to_gguf.py").is_file():
        _call(["git", "clone", "--quiet", str(folder / BUNDLE), str(sources)])
    headers = [f"-I{sources / one}" for one in ("include", "ggml/include")]
    names = [
        f"-l:{one.name}"
        for one in sorted(libraries.glob("lib*.so"))
        if one.name.startswith(("libllama.", "libggml.", "libggml-base."))
    ]
    search = [f"-L{libraries}", *names, f"-Wl,-rpath,{libraries}"]
    _call(["gcc", "-O1", *headers, str(HERE / "llama_logits.c"), "-o", str(program), *search])
    _call([sys.executable, str(HERE / "run_llamacpp_base.py"), str(sources), str(base), str(model)])
    return LlamaCpp(sources, libraries, program, base, model)


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-4000:]}")
