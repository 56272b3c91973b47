"""Fleets with adapters that store their updates in other forms than LoRA: columns, pages, and older datasets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import s3lora
from tests.command import call
from tests.forms import PATHS, peft_adapter
from tests.support import make_adapter

duckdb = pytest.importorskip("duckdb")
pq = pytest.importorskip("pyarrow.parquet")

FORMS = {"loha": "LoHa", "lokr": "LoKr", "adalora": "AdaLoRA", "vera": "VeRA", "qalora": "QALoRA", "lora": "LoRA"}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in FORMS:
        if name != "lora":
            peft_adapter(tmp_path / "all" / name, name)
    make_adapter(tmp_path / "all" / "lora", dict.fromkeys(PATHS, (12, 20, 3)))
    assert call(capsys, "fleet", "scan", "all", "--out", "fleet", "--quiet").status == 0
    return tmp_path / "fleet"


def parts(fleet: Path, table: str) -> list[Path]:
    return sorted(fleet.glob(f"parts/*/{table}.parquet"))


def test_the_columns_say_what_a_scan_says(fleet: Path) -> None:
    adapters = [row for file in parts(fleet, "adapters") for row in pq.read_table(file).to_pylist()]
    assert {row["name"]: row["form"] for row in adapters} == FORMS
    modules = [row for file in parts(fleet, "modules") for row in pq.read_table(file).to_pylist()]
    for row in modules:
        record = s3lora.scan(row["uri"])[row["path"]]
        assert (row["form"], row["rank"], row["parameters"]) == (record.form, record.rank, record.parameters)
        assert row["ssi"] == pytest.approx(record.indices["ssi"], rel=1e-9)


def test_the_page_and_the_json_tell_of_forms(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(call(capsys, "fleet", "report", "fleet", "--format", "json").out)
    assert document["forms"] == dict.fromkeys(FORMS.values(), len(PATHS))
    assert {one["form"] for one in document["recipes"]} == set(FORMS.values())
    assert {one["name"]: one["form"] for one in document["unusual"]["most"]} == FORMS
    page = call(capsys, "fleet", "report", "fleet").out
    assert "<dt>stored as</dt>" in page
    assert '<th scope="col" class="name">form</th>' in page
    assert "rank 9, LoHa" in page


def test_a_fleet_of_lora_says_nothing_of_forms(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "fleet", "scan", "all/lora", "--out", "plain", "--quiet").status == 0
    page = call(capsys, "fleet", "report", "plain").out
    assert "stored as" not in page
    assert ">form<" not in page


def test_datasets_of_older_versions_have_no_such_column(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for table in ("adapters", "modules"):
        for file in parts(fleet, table):
            old = pq.read_table(file).drop_columns(["form"])
            pq.write_table(old, file)
    result = call(capsys, "fleet", "report", "fleet", "--format", "json")
    assert result.status == 0, result.err
    document = json.loads(result.out)
    assert document["forms"] == {}
    assert {one["form"] for one in document["recipes"]} == {None}
    assert call(capsys, "fleet", "report", "fleet").status == 0
    assert call(capsys, "fleet", "reference", "build", "fleet", "-o", "ref.parquet").status == 0
    (fleet.parent / "more").mkdir()
    make_adapter(fleet.parent / "more/new", dict.fromkeys(PATHS, (12, 20, 3)), seed=9)
    assert call(capsys, "fleet", "scan", "all", "more", "--out", "fleet", "--quiet", "--resume").status == 0
    mixed = json.loads(call(capsys, "fleet", "report", "fleet", "--format", "json").out)
    assert mixed["forms"] == {"LoRA": len(PATHS)}, "the new part has the column"
