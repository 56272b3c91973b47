"""`s3lora fleet`, its commands as they are typed."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from s3lora.cli.fleet import progress as showing
from s3lora.fleet.results.queries import SAVED
from s3lora.fleet.run import FleetProgress
from s3lora.report.schemas import schema
from tests.command import Result, call, process
from tests.hostile import bad_files as bad
from tests.support import make_adapter

pytest.importorskip("pyarrow")
jsonschema = pytest.importorskip("jsonschema")

SHAPES = {f"model.layers.{i}.self_attn.{name}": (12, 10, 3) for i in range(3) for name in ("q_proj", "v_proj")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three adapters, a copy of one, and a pointer."""
    made = tmp_path_factory.mktemp("fleet") / "in"
    for number in (0, 1, 2):
        make_adapter(made / f"a{number}", SHAPES, seed=number)
    make_adapter(made / "copy", SHAPES, seed=1, config={"lora_alpha": 64})
    (made / "pointer").mkdir()
    (made / "pointer" / "adapter_model.safetensors").write_bytes(bad.POINTER)
    return made


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Path:
    out = folder.parent / "results"
    assert process("fleet", "scan", folder, "--out", out, "--quiet").status == 0
    return out


def test_scan(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "fleet", "scan", folder, "--out", tmp_path / "out", "--workers", "1")
    assert (result.status, result.err) == (0, "")
    assert "4 adapters, 24 modules" in result.out
    assert "1 with the factors of another adapter" in result.out
    assert "Git LFS pointer" in result.out
    assert "s3lora fleet report" in result.out
    again = call(capsys, "fleet", "scan", folder, "--out", tmp_path / "out", "--format", "json", "--workers", "1")
    document = json.loads(again.out)
    assert document["counts"] == {
        "adapters": 4,
        "modules": 24,
        "duplicates": 1,
        "errors": {"AdapterFile": 1},
        "skipped": {},
        "inside": {},
    }
    assert again.out.encode() == (tmp_path / "out" / "fleet.json").read_bytes()
    jsonschema.validate(document, json.loads(schema("fleet")))


def test_a_summary_tells_what_is_skipped_and_what_is_not_lora(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = make_adapter(tmp_path / "in" / "a", SHAPES)
    (adapter / "load.py").write_text("import os\n")
    (tmp_path / "in" / "npz").mkdir()
    for name in ("npz/adapters.npz", "weights.pt", "model.onnx"):
        (tmp_path / "in" / name).write_bytes(b"PK")
    make_adapter(tmp_path / "in" / "loose", SHAPES)
    (tmp_path / "in" / "loose" / "adapter_model.safetensors").rename(tmp_path / "in" / "loose" / "one.safetensors")
    (tmp_path / "in" / "loose" / "adapter_config.json").unlink()
    result = call(capsys, "fleet", "scan", tmp_path / "in", "--out", tmp_path / "out", "--workers", "1", "--quiet")
    shown = " ".join(result.out.split())
    assert "skipped format that is not read 1, torch or NumPy file whose name tells of no adapter 1" in shown
    assert "not LoRA 1 with code: fleet query --saved not-lora" in shown
    assert "not seen what lies beside 1 adapter" in shown
    assert "errors 1:" in shown
    assert "no readable zip archive" in shown
    answer = call(capsys, "fleet", "query", tmp_path / "out", "--saved", "not-lora")
    assert "1 code" in answer.out


def test_wrong_use(folder: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(status: int, message: str, *arguments: object) -> None:
        result = call(capsys, "fleet", *arguments)
        assert (result.status, result.out) == (status, "")
        assert message in result.err
        assert len(result.err.splitlines()) == 1

    out = ("--out", tmp_path / "out")
    fails(2, "--address does nothing without --engine ray", "scan", folder, *out, "--address", "x:1")
    fails(2, "--workers does nothing without --engine local", "scan", folder, *out, "--engine", "ray", "--workers", "2")
    fails(2, "holds results of other settings (method mas-svd)", "scan", folder, "--out", dataset, "--method", "svd")
    fails(2, "holds no results of a fleet", "scan", folder, "--out", folder)
    (tmp_path / "none.txt").write_text("")
    fails(3, "no adapter was found", "scan", tmp_path / "none.txt", *out)
    fails(2, "holds no results of a fleet", "query", tmp_path, "SELECT 1")
    fails(2, "holds no results of a fleet", "report", tmp_path / "none.txt")
    fails(2, "give either SQL or --saved NAME", "query", dataset)
    fails(2, "give either SQL or --saved NAME", "query", dataset, "SELECT 1", "--saved", "errors")
    fails(2, "holds no results of a fleet", "reference", "build", tmp_path, "-o", tmp_path / "ref.parquet")
    fails(2, "cannot be read as a reference", "reference", "show", tmp_path / "none.txt")


def test_nothing_that_could_be_read_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "fleet", "scan", tmp_path / "missing", "--out", tmp_path / "out", "--quiet")
    assert result.status == 2
    assert "errors 1: Input 1" in result.out
    # A long name of a temporary folder is broken over two lines.
    assert result.out.replace("\n", "").count("missing") == 1, "the input is not named twice"


def test_the_status_is_that_of_this_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = ("fleet", "scan", "--out", tmp_path / "out", "--workers", "1", "--quiet")
    assert call(capsys, *scan, folder / "a0").status == 0
    assert call(capsys, *scan, tmp_path / "missing").status == 2
    assert call(capsys, *scan, folder / "pointer").status == 2
    assert call(capsys, *scan, folder / "pointer").status == 2, "an error that was left alone is one"
    assert call(capsys, *scan, folder / "a0", folder / "pointer").status == 0


def test_a_damaged_part_is_one_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert call(capsys, "fleet", "scan", folder, "--out", out, "--workers", "1", "--quiet").status == 0
    next(out.glob("parts/*/adapters.parquet")).write_bytes(b"x" * 200)
    for command in (("query", out, "SELECT 1"), ("reference", "build", out, "-o", tmp_path / "ref"), ("report", out)):
        result = call(capsys, "fleet", *command)
        assert (result.status, result.out) == (2, "")
        assert "cannot be read as a dataset" in result.err
        assert len(result.err.splitlines()) == 1


def ask(capsys: pytest.CaptureFixture[str], dataset: Path, *arguments: object) -> Any:
    result = call(capsys, "fleet", "query", dataset, *arguments, "--format", "json")
    assert (result.status, result.err) == (0, "")
    return json.loads(result.out)


def test_query(folder: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, dataset, "SELECT count(*) AS n, max(rank) AS r FROM modules") == [{"n": 24, "r": 3}]
    joined = "SELECT a.name, count(*) AS n FROM adapters a JOIN modules USING (uri) GROUP BY 1 ORDER BY 1"
    assert [row["name"] for row in ask(capsys, dataset, joined)] == ["a0", "a1", "a2", "copy"]
    assert ask(capsys, dataset, "SELECT uri FROM errors") == [{"uri": f"{folder}/pointer"}]
    text = call(capsys, "fleet", "query", dataset, "SELECT name, rank_max, NULL AS nothing FROM adapters ORDER BY 1")
    assert [line.split() for line in text.out.splitlines()][:2] == [["name", "rank_max", "nothing"], ["a0", "3", "–"]]
    table = call(capsys, "fleet", "query", dataset, "SELECT '=1+1' AS formula, [1, 2] AS list", "--format", "csv")
    assert list(csv.reader(io.StringIO(table.out))) == [["formula", "list"], ["'=1+1", "[1, 2]"]]
    many = call(capsys, "fleet", "query", dataset, "SELECT * FROM range(60)")
    assert "… and 10 more rows" in many.out
    twice = "SELECT a.uri, b.uri FROM adapters a JOIN adapters b USING (uri) LIMIT 1"
    assert [*ask(capsys, dataset, twice)[0]] == ["uri", "uri_2"]


@pytest.mark.parametrize("table", ["adapters", "modules"])
def test_more_columns_than_fit_are_shown_below_each_other(
    table: str, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(capsys, "fleet", "query", dataset, f"SELECT * FROM {table} ORDER BY uri LIMIT 1").out.splitlines()
    (row,) = ask(capsys, dataset, f"SELECT * FROM {table} ORDER BY uri LIMIT 1")
    assert [line.split()[0] for line in shown if line[:1].strip()] == [*row]
    assert not any(line.endswith(" ") and len(line) > 80 for line in shown)


def test_saved_queries(folder: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(SAVED) == {"sharpest", "duplicates", "not-lora", "errors"}
    sharpest = ask(capsys, dataset, "--saved", "sharpest")
    assert len(sharpest) == 4
    assert [row["normalised_ssi"] for row in sharpest] == sorted((r["normalised_ssi"] for r in sharpest), reverse=True)
    top = ask(capsys, dataset, "SELECT path FROM modules ORDER BY normalised_ssi DESC, uri LIMIT 1")[0]["path"]
    assert sharpest[0]["module"] == top
    assert ask(capsys, dataset, "--saved", "duplicates") == [
        {"adapters": 2, "scalings": 2, "first": f"{folder}/a1", "others": [f"{folder}/copy"]}
    ]
    (row,) = ask(capsys, dataset, "--saved", "errors")
    assert (row["kind"], row["inputs"], row["may_pass"]) == ("AdapterFile", 1, False)
    assert "Git LFS pointer" in row["example"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY (SELECT 1) TO 'stolen.csv'",
        "ATTACH 'other.db'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT * FROM '../*.parquet'",
        "SELEC 1",
        "SELECT nothing FROM adapters",
    ],
)
def test_a_query_reads_this_dataset_and_writes_nothing(
    sql: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(capsys, "fleet", "query", dataset, sql)
    assert (result.status, result.out) == (2, "")
    guard = "DuckDB refuses this query" if sql.startswith("SELEC") else "a query is one SELECT"
    assert guard in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{}/parts/000000/adapters.parquet'",
        "COPY (SELECT 1) TO '{}/parts/stolen.csv'",
        "SELECT 1; COPY (SELECT 1) TO '{}/parts/stolen.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{}/parts/stolen.csv'",
        "ATTACH '{}/parts/new.db'",
        "EXPORT DATABASE '{}/parts/all'",
        "CREATE TABLE mine AS SELECT 1",
        "",
    ],
)
def test_a_query_writes_nothing_into_the_dataset_either(
    sql: str, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    result = call(capsys, "fleet", "query", dataset, sql.format(dataset))
    assert (result.status, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == before


def test_a_dataset_in_a_folder_with_pattern_characters(folder: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "it's [a] *?"
    assert call(capsys, "fleet", "scan", folder, "--out", out, "--workers", "1").status == 0
    assert ask(capsys, out, "SELECT count(*) AS n FROM adapters") == [{"n": 4}]


def test_reference(folder: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ref.parquet"
    built = call(capsys, "fleet", "reference", "build", dataset, "-o", file, "--name", "ours")
    assert (built.status, built.err) == (0, "")
    for part in ("reference ours", "3 adapters, 18 modules", "1 copies of these", "fewer than 20 adapters"):
        assert part in built.out
    shown = call(capsys, "fleet", "reference", "show", file)
    assert shown.out == built.out
    facts = json.loads(call(capsys, "fleet", "reference", "show", file, "--format", "json").out)
    assert (facts["name"], facts["adapters"], facts["families"]) == ("ours", 3, {"base-model": 3})


def test_a_line_every_half_minute_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with showing.watching(quiet=False) as watch:
        assert watch is not None
        for second in range(0, 200, 10):
            now[0] = float(second)
            watch(FleetProgress(total=6000, done=second * 10, errors=second // 60))
    assert capsys.readouterr().err.splitlines() == [
        "s3lora: 300 of 6,000 adapters, 10.0/s, 10 min left",
        "s3lora: 600 of 6,000 adapters, 10.0/s, 1 error, 9 min left",
        "s3lora: 900 of 6,000 adapters, 10.0/s, 1 error, 8 min left",
        "s3lora: 1,200 of 6,000 adapters, 10.0/s, 2 errors, 8 min left",
        "s3lora: 1,500 of 6,000 adapters, 10.0/s, 2 errors, 8 min left",
        "s3lora: 1,800 of 6,000 adapters, 10.0/s, 3 errors, 7 min left",
    ]
    with showing.watching(quiet=True) as watch:
        assert watch is None


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_a_bar_on_a_terminal(folder: Path, tmp_path: Path) -> None:
    shown = on_a_terminal("fleet", "scan", folder, "--out", tmp_path / "out", "--batch", "1")
    assert "scanning" in shown.err
    assert "5/5" in shown.err
    assert "1 error" in shown.err
    assert "/s" in shown.err
    assert shown.status == 0


def on_a_terminal(*arguments: object) -> Result:
    """Run a command whose standard error is a terminal, and return what it drew there."""
    import pty
    import subprocess

    from tests.command import environment

    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "s3lora", *map(str, arguments)],
        env=environment({"TERM": "xterm", "COLUMNS": "100"}),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end has closed
            break
        if not piece:
            break
        drawn += piece
    os.close(ours)
    return Result(running.wait(30), "", drawn.decode(errors="replace"))
