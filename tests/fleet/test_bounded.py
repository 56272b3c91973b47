"""Parquet files of others that stand for more than anybody has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s3lora.errors import AdapterFileError
from s3lora.fleet import bounded
from s3lora.fleet.bounded import refuse_large
from s3lora.fleet.results.dataset import read_table
from s3lora.fleet.sources.lists import read_list
from tests.command import call

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


def write(path: Path, text: str, rows: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"uri": pa.array([text] * rows), "n": pa.array(range(rows))}), path)
    return path


@pytest.mark.parametrize(("text", "rows"), [("x" * 10_000, 6), ("", 6), ("é" * 10, 1000), ("x" * 1000, 59)])
def test_what_is_small_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, rows: int) -> None:
    monkeypatch.setattr(bounded, "BYTES", 60_000)
    refuse_large(write(tmp_path / "x.parquet", text, rows), "x")


def test_a_text_that_stands_there_often_counts_as_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "BYTES", 60_000)
    path = write(tmp_path / "x.parquet", "x" * 10_000, 7)
    assert path.stat().st_size < 10_000
    with pytest.raises(AdapterFileError, match="x: unpacks to more than 60,000 bytes"):
        refuse_large(path, "x")


@pytest.mark.parametrize("kind", ["list", "list of lists", "structure", "fixed length"])
def test_texts_within_others_count_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(bounded, "BYTES", 60_000)
    text = "x" * 10_000
    column = {
        "list": lambda: pa.array([[text] * 4, [text] * 4], pa.list_(pa.string())),
        "list of lists": lambda: pa.array([[[text]] * 4] * 2),
        "structure": lambda: pa.array([{"a": text, "b": 1}] * 8),
        "fixed length": lambda: pa.array([text.encode()] * 8, pa.binary(10_000)),
    }[kind]()
    pq.write_table(pa.table({"uri": pa.array(["a"] * len(column)), "more": column}), tmp_path / "x.parquet")
    with pytest.raises(AdapterFileError, match="x: unpacks to more than 60,000 bytes"):
        refuse_large(tmp_path / "x.parquet", "x")
    refuse_large(tmp_path / "x.parquet", "x", {"uri"})
    with pytest.raises(AdapterFileError, match="unpacks to more"):
        refuse_large(tmp_path / "x.parquet", "x", {"more"})
    pq.write_table(pa.table({"a.b": pa.array([text] * 8)}), tmp_path / "y.parquet")
    with pytest.raises(AdapterFileError, match="unpacks to more"):
        list(read_list(str(tmp_path / "y.parquet")))
    monkeypatch.setattr(bounded, "BYTES", 200_000)
    refuse_large(tmp_path / "x.parquet", "x")


def test_rows_and_values_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", "x", 7)
    for name in ("ROWS", "VALUES"):
        with monkeypatch.context() as patch:
            patch.setattr(bounded, name, 6)
            with pytest.raises(AdapterFileError, match="x: holds more than"):
                refuse_large(path, "x")


def test_every_file_of_others_is_looked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bounded, "BYTES", 60_000)
    path = write(tmp_path / "x.parquet", "x" * 10_000, 700)
    with pytest.raises(AdapterFileError, match="unpacks to more than"):
        list(read_list(str(path)))
    write(tmp_path / "dataset" / "parts" / "000000" / "adapters.parquet", "x" * 10_000, 700)
    with pytest.raises(AdapterFileError, match="unpacks to more than"):
        read_table(tmp_path / "dataset", "adapters")
    result = call(capsys, "fleet", "scan", path, "--out", tmp_path / "out")
    assert result.status == 2
    assert "unpacks to more than 60,000 bytes" in result.out
