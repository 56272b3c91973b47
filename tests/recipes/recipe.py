"""Follow a recipe of CONTRIBUTING.md to the letter, on a copy of the package, and run commands of that copy.

A recipe is a heading `### A thing` with blocks of Python below it. The first line of a block names a file, as
`# src/s3lora/spectrum/indices.py`: the rest is put at the end of that file, or makes a new one.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.command import PROGRESS, SOURCE, Result, environment
from tests.watched import PATIENCE

PAGE = SOURCE.parent / "CONTRIBUTING.md"
_BLOCK = re.compile(r"^```python\n# (src/s3lora/\S+\.py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

#: Runs each command of a JSON array in turn, in one process, and prints (status, out, err) of each as JSON.
_DRIVER = """
import contextlib, io, json, sys
from s3lora.cli.main import run
results = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(arguments)
    out.flush()
    results.append((status, out.buffer.getvalue().decode("utf-8", "backslashreplace"), err.getvalue()))
print(json.dumps(results))
"""


@dataclass(frozen=True)
class Copy:
    """The package with a recipe followed; `source` is the folder to import it from."""

    source: Path

    def run(self, *commands: Sequence[object]) -> list[Result]:
        """Run commands of the copy, one after the other in one process; `internal error` becomes a traceback."""
        given = json.dumps([[str(word) for word in command] for command in commands])
        done = subprocess.run(
            [sys.executable, "-c", _DRIVER, given],
            capture_output=True,
            env=environment({"PYTHONPATH": str(self.source), "S3LORA_DEBUG": "1"}),
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        results = [Result(*result) for result in json.loads(done.stdout.decode().splitlines()[-1])]
        return [replace(result, err=PROGRESS.sub("", result.err)) for result in results]

    def python(self, code: str, *arguments: object) -> str:
        """Run code with the copy, and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            env=environment({"PYTHONPATH": str(self.source), "S3LORA_DEBUG": "1"}),
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()


def blocks(title: str) -> list[tuple[str, str]]:
    """Return (file, code) of the blocks below the heading `### title`."""
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE)
    assert found is not None, f"CONTRIBUTING.md has no recipe for: {title}"
    return _BLOCK.findall(found[1])


def follow(title: str, folder: Path) -> Copy:
    """Copy the package into `folder` and do what the recipe says."""
    source = folder / "src"
    shutil.copytree(SOURCE / "s3lora", source / "s3lora", ignore=shutil.ignore_patterns("__pycache__"))
    found = blocks(title)
    assert found, f"the recipe for {title} has no code"
    for name, code in found:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        file.write_text(f"{before}\n\n{code}" if before else code, encoding="utf-8")
    return Copy(source)
