"""The zip archive of a torch checkpoint: only the form that every reader takes for the same."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.adapter.torch_zip import MAX_PICKLE, read_torch
from s3lora.errors import AdapterFileError
from tests.examples import examples
from tests.torch_files import DATA, archive, program, refused, tensor


def test_archives_that_torch_never_writes(tmp_path: Path) -> None:
    path, code = tmp_path / "x.bin", program({"a": tensor()})
    assert "is compressed" in refused(archive(path, code, compression=zipfile.ZIP_DEFLATED))
    assert "name no model can have" in refused(archive(path, code, {"../../data/0": b""}))
    archive(path, code)
    path.write_bytes(path.read_bytes().replace(b"data.pkl", b"data.pkx"))
    assert "repeats or overlaps" not in refused(path)
    assert "holds no data.pkl" in refused(path)
    archive(path, code)
    path.write_bytes(path.read_bytes().replace(b"x/data/0", b"x/data/1", 1))  # the member's own header comes first
    assert "called otherwise" in refused(path)
    assert "is a TorchScript program" in refused(archive(path, code, {"constants.pkl": b""}))
    assert "is not little-endian" in refused(archive(path, code, {"data/0": DATA.tobytes(), "byteorder": b"big"}))
    assert f"has a pickle of {MAX_PICKLE + 1:,} bytes" in refused(archive(path, b"N" * (MAX_PICKLE + 1)))
    path.write_bytes(archive(path, code).read_bytes()[:-40])
    assert "is no readable zip archive" in refused(path)
    with zipfile.ZipFile(archive(path, code), "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("x/data.pkl", code)
    assert "repeats or overlaps another member" in refused(path)
    with zipfile.ZipFile(archive(path, code), "a") as file:
        file.writestr("x/DATA.pkl", code)
    assert "repeats or overlaps another member" in refused(path)
    with zipfile.ZipFile(archive(path, code), "a") as file:
        file.writestr("y/data.pkl", code)
    assert "has members outside of one folder" in refused(path)
    for folder, reason in [("y/", "has members outside of one folder"), ("x/data", "is marked as a folder")]:
        with zipfile.ZipFile(archive(path, code), "a") as file:
            entry = zipfile.ZipInfo(folder)
            entry.external_attr = 0x10
            file.writestr(entry, b"")
        assert reason in refused(path)
    with zipfile.ZipFile(archive(path, code), "a") as file:
        file.comment = b"hello"
    assert "it does not end with the end of a directory" in refused(path)


@pytest.mark.parametrize(
    ("field", "number", "reason"),
    [
        (38, 0x10, "is marked as a folder"),
        (8, 0x1, "is compressed or encrypted"),
        (8, 0x20, "is compressed or encrypted"),
        (8, 0x2000, "is compressed or encrypted"),
        (34, 1, "lie in another volume"),
    ],
)
def test_a_member_has_no_mark_that_loaders_heed(tmp_path: Path, field: int, number: int, reason: str) -> None:
    path = archive(tmp_path / "x.bin", program({"a": tensor()}))
    content = bytearray(path.read_bytes())
    at = content.rfind(b"x/data/0") - 46
    struct.pack_into("<H", content, at + field, number)
    path.write_bytes(content)
    assert reason in refused(path)


@pytest.mark.parametrize(
    ("field", "number", "reason"),
    [
        (4, 1, "one volume of several"),
        (6, 1, "one volume of several"),
        (8, 2, "one volume of several"),
        (16, 40, "does not reach"),
        (12, 40, "does not reach"),
        (20, 3, "its end is damaged"),
    ],
)
def test_the_end_of_the_directory_tells_of_one_volume(tmp_path: Path, field: int, number: int, reason: str) -> None:
    path = archive(tmp_path / "x.bin", program({"a": tensor()}))
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, len(content) - 22 + field, number)
    path.write_bytes(content)
    assert reason in refused(path)


def test_an_archive_with_64_bit_numbers_and_folders_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with zipfile.ZipFile(path, "w") as file:
        file.mkdir("x") if hasattr(file, "mkdir") else file.writestr("x/", b"")
        for name, data in {"data.pkl": program({"a": tensor()}), "version": b"3\n", "data/0": DATA.tobytes()}.items():
            with file.open(f"x/{name}", "w", force_zip64=True) as member:
                member.write(data)
    assert read_torch(path).tensors["a"].array().tolist() == DATA.reshape(2, 3).tolist()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("version", b"0"),
        ("version", b"11"),
        ("version", b"3x"),
        ("version", b""),
        (".data/version", b"99"),
        ("byteorder", b"littlexx"),
        (".storage_alignment", b"6\x01"),
        (".data/serialization_id", b"\xff"),
    ],
)
def test_what_torch_reads_beside_the_tensors_is_as_torch_writes_it(tmp_path: Path, name: str, content: bytes) -> None:
    message = refused(archive(tmp_path / "x.bin", program({"a": tensor()}), {name: content}))
    assert f"has a record {name} that torch does not write" in message


def test_an_archive_has_a_version(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", program({"a": tensor()}))
        file.writestr("x/data/0", DATA.tobytes())
    assert "lacks the version" in refused(path)


def test_members_that_overlap_cannot_add_up_to_more_than_the_file(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.bin", program({"a": tensor()}), {"data/0": bytes(600), "data/1": bytes(600)})
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
    content = bytearray(path.read_bytes())
    for entry in entries:  # let each member of the directory claim nearly the whole file
        at = content.rfind(entry.filename.encode()) - 46
        size = len(content) - entry.header_offset - 60
        content[at + 20 : at + 28] = struct.pack("<LL", size, size)
    path.write_bytes(content)
    assert "repeats or overlaps" in refused(path)


@settings(max_examples=examples(200))
@given(data=st.data())
def test_damaged_archives_raise_our_errors_or_are_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    content = bytearray(archive(path, program({"a": tensor()})).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: len(content) - data.draw(st.sampled_from([0, 0, 0, 1, 22, 100]))])
    try:
        file = read_torch(path)
    except AdapterFileError:
        return
    assert sum(tensor.array().nbytes for tensor in file.tensors.values()) <= len(content)
