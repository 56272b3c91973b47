"""What a data file is, is told from its content, within bounds."""

from __future__ import annotations

import gzip
import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from s3lora.evaluate.data.content import DataFileError, read_content, read_text
from s3lora.evaluate.planning.loader import read_tasks
from s3lora.evaluate.prompts import read_prompts
from s3lora.evaluate.references import read_references


def workbook() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


BINARY = {
    "a zip archive, as Excel writes its workbooks": workbook(),
    "a Python pickle, which is never opened": pickle.dumps(["goal", "a"]),
    "a NumPy array": array(),
    "a PNG picture": b"\x89PNG\r\n\x1a\n",
    "a JPEG picture": b"\xff\xd8\xff\xe0",
    "an Arrow file": b"ARROW1\0\0",
    "a bzip2 file": b"BZh91AY",
    "an xz file": b"\xfd7zXZ\0",
    "a Zstandard file": b"\x28\xb5\x2f\xfd",
    "an SQLite database": b"SQLite format 3\0",
    "a PDF file": b"%PDF-1.7\n",
    "text in UTF-16": "goal\nOpen it".encode("utf-16"),
    "a web page": b"<!DOCTYPE html>\n<html>goal,target</html>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "is no text (a zero byte in line 2)": b"goal\nopen\0it\n",
}


@pytest.mark.parametrize("read", [read_prompts, read_references, read_tasks])
@pytest.mark.parametrize(("kind", "content"), BINARY.items(), ids=BINARY)
@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.txt", "p"])
def test_what_is_no_text_is_named(read: object, kind: str, content: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataFileError) as caught:
        read(path)  # type: ignore[operator]
    assert kind in str(caught.value)
    assert str(path) in str(caught.value)


def test_gzip_is_unpacked_whatever_its_name(tmp_path: Path) -> None:
    table = b"goal,target\nOpen it,Sure\n"
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(table))
    (tmp_path / "a.csv").write_bytes(gzip.compress(table[:12]) + gzip.compress(table[12:]) + b"\0" * 512)
    (tmp_path / "b.csv").write_bytes(table)
    found = [read_prompts(tmp_path / name) for name in ("a.csv.gz", "a.csv", "b.csv")]
    assert [[r.text for r in one.requests] for one in found] == [["Open it"]] * 3
    assert len({one.sha256 for one in found}) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (gzip.compress(b"goal\na\n", mtime=0)[:-1], "gzip that is cut off"),
        (gzip.compress(b"goal\na\n", mtime=0)[:5], "gzip that is cut off"),
        (b"\x1f\x8b" + b"x" * 40, "gzip that is damaged"),
        (gzip.compress(b"goal\na\n", mtime=0) + b"more", "gzip that is damaged"),
        (gzip.compress(gzip.compress(b"goal\na\n", mtime=0), mtime=0), "is a gzip file"),
        (gzip.compress(b"\x89PNG", mtime=0), "a PNG picture"),
    ],
)
def test_gzip_that_cannot_be_read(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(content)
    with pytest.raises(DataFileError, match=problem):
        read_prompts(tmp_path / "a.csv.gz")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    # 300 KB that stand for 300 MB, in one member and in many.
    for content in (gzip.compress(bytes(300 * 2**20), 9), gzip.compress(bytes(2**20), 9) * 300):
        (tmp_path / "a.gz").write_bytes(content)
        tracemalloc.start()
        with pytest.raises(DataFileError, match="unpacks to more than 1,048,577 bytes; cut it"):
            read_content(tmp_path / "a.gz", 2**20 + 1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20 * 2**20


def test_text_is_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes("\ufeffgrün".encode())
    assert read_text(path, 100) == "grün"
    path.write_bytes(b"a\nb\xe9")
    with pytest.raises(DataFileError, match="line 2 is not UTF-8; save"):
        read_text(path, 100)
