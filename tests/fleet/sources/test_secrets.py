"""What a URL says to be let in is used, and kept nowhere; names of a fleet are shown as those of a scan are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s3lora.fleet.results.dataset import read_table
from s3lora.fleet.run import fleet_scan
from tests.command import call
from tests.fleet.inline import Inline, check_consistent, rows
from tests.fleet.sources.web import Site
from tests.hostile.test_names_in_logs import check, check_cells, write
from tests.support import make_adapter

pytest.importorskip("pyarrow")

MODULES = {f"model.layers.{i}.self_attn.q_proj": (8, 6, 2) for i in range(2)}


def everything(out: Path) -> str:
    """Return all that a dataset holds, as text."""
    tables = [read_table(out, table).to_pylist() for table in ("adapters", "modules", "errors")]
    return json.dumps(tables, default=str) + (out / "fleet.json").read_text()


def test_no_secret_of_a_url_is_in_a_dataset(
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = {"base_model_name_or_path": "https://me:geheim@example.org/base?token=geheim"}
    site.add(make_adapter(tmp_path / "one", MODULES, config=base), "one")
    host = site.url.removeprefix("http://")
    inputs = [f"http://me:geheim@{host}/{name}?token=geheim&part=1" for name in ("one", "gone")]
    out = tmp_path / "out"
    fleet_scan(inputs, out, engine=Inline)
    found = f"http://…@{host}/one?token=…&part=1", f"http://…@{host}/gone?token=…&part=1"
    assert check_consistent(out) == ({found[0]}, {found[1]})
    assert "geheim" not in everything(out)
    assert {told for _, told in site.told} == {"Basic bWU6Z2VoZWlt"}, "it was used"
    assert all("token=geheim" in path for path, _ in site.told)

    read = len([path for path, _ in site.told])
    summary = fleet_scan([one.replace("geheim", "other") for one in inputs[:1]] + inputs[:1], out, engine=Inline)
    assert summary.counts.adapters == 1
    assert check_consistent(out) == ({found[0]}, {found[1]}), "the same adapter, let in by another password"
    assert len(site.told) > read

    for command in (
        ("fleet", "scan", *inputs, "--out", tmp_path / "new", "--workers", "1"),
        ("fleet", "query", out, "SELECT uri, reason FROM errors"),
        ("fleet", "query", out, "SELECT uri, base_model FROM adapters", "--format", "csv"),
        ("fleet", "report", out, "--format", "json"),
        ("scan", inputs[0]),
        ("fleet", "scan", "http://me:geheim@[", "--out", tmp_path / "none"),
    ):
        result = call(capsys, *command)
        assert "geheim" not in result.out + result.err, command
    assert "geheim" not in everything(tmp_path / "new")


def test_what_a_dataset_holds_is_not_asked_for_without_its_secret(site: Site, tmp_path: Path) -> None:
    site.add(make_adapter(tmp_path / "one", MODULES), "one")
    out = tmp_path / "out"
    fleet_scan([f"{site.url}/one?token=geheim"], out, engine=Inline)
    (kept,) = (row["uri"] for row in rows(out, "adapters"))
    asked = len(site.asked)
    fleet_scan([kept], tmp_path / "again", engine=Inline)
    (error,) = rows(tmp_path / "again", "errors")
    assert "had credentials in its address" in error["reason"]
    assert len(site.asked) == asked


def test_names_of_a_fleet_are_neither_commands_nor_formulas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for at, name in enumerate(("::error::x", "##vso[task.x]", "=1+1", "##teamcity[x]")):
        write(Path("in") / f"{at}" / name, [name, f"{'x' * 70} ::error::"])
    (Path("in") / "::error::").mkdir()
    (Path("in") / "::error::" / "adapter_model.safetensors").write_bytes(b"nothing")
    monkeypatch.chdir(tmp_path / "in")
    for command in (
        ("fleet", "scan", ".", "--out", "../out", "--workers", "1"),
        ("fleet", "scan", ".", "--out", "../out", "--workers", "1", "--format", "json"),
        ("fleet", "query", "../out", "SELECT path, uri FROM modules"),
        ("fleet", "query", "../out", "SELECT path, uri FROM modules", "--format", "json"),
        ("fleet", "report", "../out", "--format", "json"),
        ("fleet", "report", "../out"),
    ):
        check(call(capsys, *command))
    for table in ("adapters", "modules", "errors"):
        result = call(capsys, "fleet", "query", "../out", f'SELECT *, 1 AS "=1+1" FROM {table}', "--format", "csv")
        assert result.status == 0, result.err
        check_cells(result)
