"""What a file remembers of what was read: no more than its bound, however often and whatever is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3lora.adapter import regular
from s3lora.adapter.regular import RegularFile
from s3lora.errors import AdapterFileError


def test_a_file_remembers_no_more_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regular, "RECENT", 100)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4)
    with RegularFile.opened(path) as file:
        for offset in (*range(0, 900, 30), *range(890, 0, -70)):
            assert file.range(offset, 30).tobytes() == path.read_bytes()[offset : offset + 30]
            kept = sum(one.nbytes for one in file._recent.values())
            assert kept == file._remembered
            assert kept <= 100
        assert file.range(0, 1024) is file.range(0, 1024)  # longer than the bound, and still of the last two
        file.close()
    assert file._remembered == 0


def test_a_file_is_closed_where_reading_it_raises_and_stays_open_where_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345678")
    with RegularFile.opened(path) as file:
        pass
    assert file.bytes(0, 4) == b"1234"
    file.close()
    with pytest.raises(KeyboardInterrupt), RegularFile.opened(path) as file:
        raise KeyboardInterrupt
    with pytest.raises(AdapterFileError, match="was closed"):
        file.bytes(0, 4)
