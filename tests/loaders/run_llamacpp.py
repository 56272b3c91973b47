"""Make a GGUF of an adapter of PEFT with llama.cpp's own converter, and give the logits that its library computes.

A folder with `adapter.gguf` goes to the library as it is. The library runs in a process of its own, since it may abort.
"""

from __future__ import annotations

import logging
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from worker import serve

#: What the program says by its exit status.
STOPS = {2: "the library cannot load the base", 3: "the library cannot load the adapter", 4: "decoding fails"}


class Last(logging.Handler):
    """Keeps the first error that the converter logs."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR and not self.text:
            self.text = record.getMessage()


def converted(given: Any, adapter: str, out: Path) -> None:
    """Run llama.cpp's converter as a command."""
    script, last, before = Path(given["sources"], "convert_lora_to_gguf.py"), Last(), (sys.argv, [*sys.path])
    logging.getLogger().addHandler(last)
    sys.argv = [str(script), "--base", given["base"], "--outfile", str(out), adapter]
    sys.path.insert(0, given["sources"])
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f"the converter exits with {stop.code}: {last.text}") from None
    finally:
        logging.getLogger().removeHandler(last)
        sys.argv, sys.path[:] = before


def job(given: Any, one: Any) -> tuple[Any, Any]:
    with tempfile.TemporaryDirectory() as folder:
        adapter, out = Path(one["adapter"], "adapter.gguf"), Path(folder, "logits")
        if not adapter.exists():
            adapter = Path(folder, "adapter.gguf")
            converted(given, one["adapter"], adapter)
        if "keep" in one:
            Path(one["keep"]).write_bytes(adapter.read_bytes())
        tokens = [str(token) for token in given["tokens"]]
        command = [given["program"], given["libraries"], given["model"], str(out), str(adapter), *tokens]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
        if done.returncode < 0:
            said = next((line for line in done.stderr.splitlines() if "GGML_ASSERT" in line or "terminate" in line), "")
            raise RuntimeError(f"the library aborts: {said.rpartition('/')[2]}")
        if done.returncode:
            raise RuntimeError(STOPS.get(done.returncode, f"the program exits with {done.returncode}"))
        return {"logits": np.fromfile(out, dtype=np.float32).reshape(len(tokens), -1)}, {}


serve(job)
