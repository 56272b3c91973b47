"""Parquet by pyarrow, in bounded memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from s3lora.evaluate.data import parquet
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.parquet import parquet_rows
from s3lora.evaluate.prompts import Request, read_prompts
from s3lora.evaluate.references import read_references
from s3lora.needs import MissingPackageError

arrow = pytest.importorskip("pyarrow")
write_table = pytest.importorskip("pyarrow.parquet").write_table


def write(path: Path, table: Any, **options: Any) -> Path:
    write_table(table if isinstance(table, arrow.Table) else arrow.Table.from_pylist(table), path, **options)
    return path


def test_texts_lists_and_objects(tmp_path: Path) -> None:
    rows = [
        {"question_id": n, "turns": [f"Open {n}", "Again"], "category": {"theft": n > 0, "fraud": False}}
        for n in range(600)
    ]
    found = read_prompts(write(tmp_path / "p.parquet", rows))
    assert len(found) == 600
    assert found.requests[:2] == (Request("Open 0", "", "0"), Request("Open 1", "theft", "1"))
    mmlu = [{"question": "Which?", "choices": ["a", "b"], "answer": 1, "subject": "x"}]
    [example] = read_references(write(tmp_path / "m", mmlu)).examples
    assert example.references == ("B", "b")


def test_all_the_ways_to_store_a_text(tmp_path: Path) -> None:
    texts = ["Open it", "Close it", "Open it", "Grün"] * 100
    for kind in (arrow.string(), arrow.large_string()):
        for options in ({"compression": "gzip"}, {"use_dictionary": False}, {"row_group_size": 7}, {"version": "1.0"}):
            table = arrow.table({"prompt": arrow.array(texts, kind)})
            found = read_prompts(write(tmp_path / "p", table, **options))
            assert [r.text for r in found.requests] == texts


def test_without_a_known_column(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", [{"topic": "x", "wording": "Open it"}])
    with pytest.raises(DataFileError, match="row 1 has no prompt; its columns are topic, wording"):
        read_prompts(path)


@pytest.mark.parametrize("cut", [4, 5, 100, -1, -9])
def test_damaged_files(cut: int, tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", [{"prompt": "Open it"}] * 50)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataFileError, match=r"p\.parquet: is parquet that cannot be read \("):
        read_prompts(path)


def test_bytes_that_are_changed(tmp_path: Path) -> None:
    whole = write(tmp_path / "p.parquet", [{"prompt": f"Open it {n}", "n": n} for n in range(50)]).read_bytes()
    for i in range(4, len(whole), 7):
        changed = bytearray(whole)
        changed[i] ^= 0x55
        (tmp_path / "q.parquet").write_bytes(changed)
        try:
            read_prompts(tmp_path / "q.parquet")
        except DataFileError:
            continue


def test_what_repeats_is_counted(tmp_path: Path) -> None:
    """A text that is stored once can stand for gigabytes: 64 KB, 100,000 times."""
    once = arrow.DictionaryArray.from_arrays(arrow.array([0] * 100_000, arrow.int32()), arrow.array(["x" * 2**16]))
    path = write(tmp_path / "p.parquet", arrow.table({"prompt": once}))
    assert path.stat().st_size < 10_000
    before = arrow.total_allocated_bytes()
    with pytest.raises(DataFileError, match="unpacks to more than 67,108,864 bytes; cut it"):
        read_prompts(path)
    assert arrow.total_allocated_bytes() - before < 2**24


def test_what_is_compressed_is_not_unpacked(tmp_path: Path) -> None:
    texts = arrow.array(["x" * 2**20] * 100)
    path = write(tmp_path / "p.parquet", arrow.table({"prompt": texts}), compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 2**20
    peak = arrow.default_memory_pool().max_memory()
    with pytest.raises(DataFileError, match="unpacks to more than"):
        read_prompts(path)
    assert arrow.default_memory_pool().max_memory() == peak


def test_long_cells_and_many_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "p.parquet", [{"prompt": "x" * (2**20 + 1)}])
    with pytest.raises(DataFileError, match="holds a cell of more than 1,048,576 bytes"):
        read_prompts(path)
    monkeypatch.setattr(parquet, "MAX_VALUES", 99)
    with pytest.raises(DataFileError, match="holds more than 99 values in a column"):
        read_prompts(write(tmp_path / "p.parquet", [{"prompt": "x"}] * 100))


def test_lists_are_unpacked_a_few_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_AT_ONCE", 3_000)
    rows = [{"turns": [f"{n} " + "x" * 500]} for n in range(20)]
    data = write(tmp_path / "p.parquet", rows, use_dictionary=False, compression="none").read_bytes()
    assert [row for _, row in parquet_rows(data, "p", 2**20)] == rows


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "p.parquet", [{"prompt": "Open it"}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match="package pyarrow"):
        read_prompts(path)
