"""Modules that lie in the working directory are not imported: whoever sent an adapter may have put them there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import SOURCE, environment
from tests.hostile import bad_files as bad
from tests.watched import PATIENCE

#: Modules of Python and of others that s3lora imports, and none that Python itself imports before `-m` begins.
NAMES = (
    *("numpy", "click", "msgspec", "rich", "jinja2", "ml_dtypes", "threadpoolctl", "pyarrow", "torch"),
    *("json", "typing", "gc", "signal", "threading", "hashlib", "tempfile", "struct", "__future__"),
    *("multiprocessing", "pickle", "socket"),
)
SCRIPT = "import sys; sys.path.pop(0); from s3lora.__main__ import main; main()"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return a working directory with an adapter, and a module of each name that leaves a mark when it is imported."""
    bad.good(tmp_path / "adapter")
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'a').write('{name} ')\n")
    return tmp_path


def run(here: Path, *arguments: str, **more: str) -> tuple[int, str]:
    """Run Python in the directory; return its status and the names that were imported from it."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=here,
        env=environment(more),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    mark = here / "mark"
    return done.returncode, mark.read_text() if mark.exists() else ""


def test_the_marks_are_left_where_modules_are_imported(here: Path) -> None:
    status, marks = run(here, "-c", "import click, jinja2")
    assert status == 0
    assert {"click", "jinja2"} <= set(marks.split())


@pytest.mark.parametrize(
    "command",
    [("--version",), ("scan", "adapter"), ("scan", "adapter", "--format", "html"), ("prune", "adapter", "-o", "out")],
    ids=" ".join,
)
def test_python_m_imports_nothing_from_there(here: Path, command: tuple[str, ...]) -> None:
    assert run(here, "-m", "s3lora", *command) == (0, "")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH is of 3.11")
@pytest.mark.parametrize("how", [("-m", "s3lora"), ("-c", SCRIPT)], ids=["-m", "script"])
def test_workers_import_nothing_from_there(here: Path, how: tuple[str, ...]) -> None:
    pytest.importorskip("pyarrow")
    assert run(here, *how, "fleet", "scan", "adapter", "--out", "results", "--workers", "1") == (0, "")
    assert list((here / "results").rglob("adapters.parquet"))


def test_what_pythonpath_names_stays(here: Path) -> None:
    path = os.pathsep.join((str(SOURCE), str(here)))
    status, marks = run(here, "-m", "s3lora", "--version", PYTHONPATH=path)
    assert status != 0
    assert marks, "who sets PYTHONPATH means it"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="-P is of 3.11")
def test_nothing_is_taken_away_where_python_put_nothing(here: Path) -> None:
    path = os.pathsep.join((str(here), str(SOURCE)))
    assert run(here, "-P", "-m", "s3lora", "--version", PYTHONPATH=path)[1]
    assert run(here, "-P", "-m", "s3lora", "--version") == run(here, "-m", "s3lora", "--version", PYTHONSAFEPATH="1")


def test_a_checkout_of_s3lora_runs_from_within_and_its_workers_too(here: Path) -> None:
    pytest.importorskip("pyarrow")
    shutil.copytree(SOURCE / "s3lora", here / "s3lora", ignore=shutil.ignore_patterns("__pycache__"))
    command = ("-m", "s3lora", "fleet", "scan", "adapter", "--out", "results", "--workers", "1")
    status, marks = run(here, *command, PYTHONPATH="")
    assert (status, marks) == (0, ""), "what is installed comes first, and s3lora is found"
