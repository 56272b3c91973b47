"""The recipe for an engine: a toy that works in the driver's process, through the commands of fleets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import Result
from tests.hostile import bad_files as bad
from tests.recipes.recipe import Copy, follow
from tests.support import make_adapter

for package in ("pyarrow", "duckdb"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return follow("An engine", tmp_path_factory.mktemp("recipe"))


@pytest.fixture
def population(tmp_path: Path) -> Path:
    """Return a folder with nine adapters, of which one is a copy of another and one is damaged."""
    for number in range(8):
        make_adapter(tmp_path / "in" / f"{number}", bad.MODULES, seed=number % 7)
    bad.weights(b"")(tmp_path / "in" / "8")
    return tmp_path / "in"


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a dataset but for its lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def scan(engine: str, population: Path, out: Path) -> list[object]:
    return ["fleet", "scan", population, "--engine", engine, "--batch", "2", "--out", out, "--quiet"]


def test_the_dataset_is_that_of_the_local_engine(copy: Copy, population: Path, tmp_path: Path) -> None:
    local, toy = tmp_path / "local", tmp_path / "toy"
    asked = ["fleet", "report", "--format", "json"], ["fleet", "query", "--saved", "errors"]
    first, again, *answers = copy.run(
        scan("backwards", population, toy), scan("backwards", population, toy), *([*words, toy] for words in asked)
    )
    assert (first.status, again.status) == (0, 0), first.err
    one, *expected = copy.run(
        [*scan("local", population, local), "--workers", "1"], *([*words, local] for words in asked)
    )
    assert one.status == 0
    assert len(list((toy / "parts").iterdir())) == 5
    assert contents(toy) == contents(local)
    assert [told(answer) for answer in answers] == [told(answer) for answer in expected]


def told(answer: Result) -> object:
    assert answer.status == 0, answer.err
    if not answer.out.startswith("{"):
        return answer.out
    found = json.loads(answer.out)
    assert found.pop("name") in ("local", "toy")
    assert found["unusual"].pop("reference") in ("local", "toy")
    return found


def test_help_and_options(copy: Copy, population: Path, tmp_path: Path) -> None:
    shown, refused = copy.run(
        ["fleet", "scan", "--help"], [*scan("backwards", population, tmp_path / "out"), "--workers", "2"]
    )
    assert "[local|ray|backwards]" in shown.out
    assert "this process, backwards." in " ".join(shown.out.split())
    assert (refused.status, refused.err) == (2, "s3lora: --workers does nothing without --engine local\n")
    assert not (tmp_path / "out").exists()
