from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.adapter.regular import RegularFile
from s3lora.adapter.tensors import (
    DTYPES,
    MAX_HEADER,
    SAFETENSORS_NAME,
    LongMatrix,
    check_name,
    possible_shape,
    read_safetensors,
)
from s3lora.errors import AdapterFileError, UnsupportedAdapterError
from tests.support import CODES, dtype_of, safetensors_bytes, write_safetensors


def raw_file(path: Path, header: str | bytes, data: bytes = b"") -> Path:
    text = header.encode() if isinstance(header, str) else header
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str, shape: list[int], *offsets: int) -> str:
    return json.dumps({"dtype": dtype, "shape": shape, "data_offsets": list(offsets)})


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("pad", [1, 8])
def test_every_dtype_is_read_bit_for_bit_wherever_the_header_ends(tmp_path: Path, name: str, pad: int) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype_of(name))
    # A name of odd length before it makes the data start at an odd byte when nothing is padded.
    tensors = {"x" * length: values for length in (1, 2, 4)}
    path = write_safetensors(tmp_path / "w.safetensors", tensors, pad=pad)
    file = read_safetensors(path)
    for tensor_name, tensor in file.tensors.items():
        assert (tensor.name, tensor.dtype, tensor.shape, tensor.code) == (tensor_name, name, (2, 3), CODES[name])
        array = tensor.array()
        assert array.dtype == values.dtype
        assert array.tobytes() == values.tobytes() == b"".join(tensor.chunks())
        assert not array.flags.writeable


def test_the_dtype_table_agrees_with_the_one_of_the_tests() -> None:
    for name, code in CODES.items():
        bits, known = DTYPES[code]
        assert known == name
        assert bits == dtype_of(name).itemsize * 8
        assert SAFETENSORS_NAME[name] == code


def test_several_dtypes_and_metadata_in_file_order(tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "b": np.ones(3, np.float16),
        "a": np.zeros((2, 2), np.float64),
        "c": np.array(7.0, np.float32),
    }
    file = read_safetensors(write_safetensors(tmp_path / "w.safetensors", tensors, {"format": "pt"}))
    assert list(file.tensors) == ["b", "a", "c"]
    assert [tensor.dtype for tensor in file.tensors.values()] == ["float16", "float64", "float32"]
    assert file.metadata == {"format": "pt"}
    assert file.tensors["c"].array().item() == 7.0


def test_metadata_may_be_missing_or_null_and_tensors_empty(tmp_path: Path) -> None:
    assert read_safetensors(raw_file(tmp_path / "a", "{}")).metadata == {}
    assert read_safetensors(raw_file(tmp_path / "b", '{"__metadata__": null}')).metadata == {}
    file = read_safetensors(raw_file(tmp_path / "c", f'{{"e": {entry("F32", [0, 5], 0, 0)}}}'))
    assert file.tensors["e"].array().shape == (0, 5)


def test_files_of_the_reference_writer_are_read(tmp_path: Path) -> None:
    reference = pytest.importorskip("safetensors.numpy")
    tensors = {"a": np.arange(12.0).reshape(3, 4), "b": np.arange(4, dtype=np.float16)}
    reference.save_file(tensors, tmp_path / "w.safetensors", metadata={"k": "v"})
    file = read_safetensors(tmp_path / "w.safetensors")
    assert file.metadata == {"k": "v"}
    for name, values in tensors.items():
        np.testing.assert_array_equal(file.tensors[name].array(), values)


BAD: list[tuple[str, bytes | str, bytes, str]] = [
    ("hole", f'{{"a": {entry("F32", [1], 0, 4)}, "b": {entry("F32", [1], 8, 12)}}}', bytes(12), "leaves a hole"),
    ("overlap", f'{{"a": {entry("F32", [2], 0, 8)}, "b": {entry("F32", [1], 4, 8)}}}', bytes(8), "overlaps"),
    ("late start", f'{{"a": {entry("F32", [1], 4, 8)}}}', bytes(8), "leaves a hole"),
    ("truncated", f'{{"a": {entry("F32", [4], 0, 16)}}}', bytes(12), "is truncated"),
    ("trailing bytes", f'{{"a": {entry("F32", [1], 0, 4)}}}', bytes(5), "1 bytes after its last tensor"),
    ("wrong size", f'{{"a": {entry("F32", [3], 0, 8)}}}', bytes(8), "needs 12 bytes as F32"),
    ("half a byte", f'{{"a": {entry("F4", [3], 0, 2)}}}', bytes(2), "needs 2 bytes as F4"),
    ("reversed", f'{{"a": {entry("F32", [1], 4, 0)}}}', bytes(4), "impossible data_offsets"),
    ("negative", f'{{"a": {entry("F32", [1], -4, 0)}}}', bytes(4), "impossible data_offsets"),
    ("digits", f'{{"a": {entry("F32", [1], 0, 1)[:-2]}{"0" * 4290}]}}}}', b"", "impossible data_offsets"),
    ("dtype", f'{{"a": {entry("F33", [1], 0, 4)}}}', bytes(4), "dtype F33"),
    ("shape", f'{{"a": {entry("F32", [-1], 0, 4)}}}', bytes(4), "impossible shape"),
    ("empty but huge", f'{{"a": {entry("F32", [0, 2**40, 2**40], 0, 0)}}}', b"", "impossible shape"),
    ("dimensions", f'{{"a": {entry("F32", [1] * 9, 0, 4)}}}', bytes(4), "impossible shape"),
    ("float shape", '{"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}', bytes(4), "header is not valid"),
    ("unknown field", '{"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4], "x": 1}}', bytes(4), "not valid"),
    ("metadata", '{"__metadata__": {"a": 1}}', b"", "header is not valid"),
    ("list", "[]", b"", "header is not valid"),
    ("nesting", b"[" * 100_000, b"", "header is not valid"),
    ("not UTF-8", b'{"\xff": 1}', b"", "header is not valid"),
    ("path", f'{{"../a": {entry("F32", [1], 0, 4)}}}', bytes(4), "name no model can have"),
    ("escape sequence", f'{{"a\\u001b[2J": {entry("F32", [1], 0, 4)}}}', bytes(4), "name no model can have"),
]


def test_a_truncated_file_is_told_its_whole_size(tmp_path: Path) -> None:
    """Not the end of the first tensor that is cut, of two that should have 32 bytes."""
    header = f'{{"a": {entry("F32", [4], 0, 16)}, "b": {entry("F32", [4], 16, 32)}}}'
    path = raw_file(tmp_path / "bad.safetensors", header, bytes(12))
    size = path.stat().st_size
    with pytest.raises(AdapterFileError, match=f"it should have {size + 20:,} bytes and has {size:,}"):
        read_safetensors(path)


@pytest.mark.parametrize(("header", "data", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_malformed_headers_are_refused_with_the_reason(
    tmp_path: Path, header: str | bytes, data: bytes, reason: str
) -> None:
    path = raw_file(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(AdapterFileError, match=r"^bad\.safetensors") as caught:
        read_safetensors(path)
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


ONE = entry("F32", [1], 0, 4)
REPEATS = [
    f'{{"a": {ONE}, "a": {ONE}}}',
    f'{{"a": {ONE}, "a": {entry("I32", [1], 0, 4).replace("a_o", "a_" + chr(92) + "u006f")}}}',
    f'{{"a": {ONE}, "{chr(92)}u0061": {ONE}}}',
    '{"a": {"dtype": "F32", "dtype": "I32", "shape": [1], "data_offsets": [0, 4]}}',
    f'{{"__metadata__": {{"k": "1"}}, "__metadata__": {{}}, "a": {ONE}}}',
    f'{{"__metadata__": {{"k": "1", "k": "2", "x": "{chr(92)}n"}}, "a": {ONE}}}',
]


@pytest.mark.parametrize("header", REPEATS)
def test_a_key_that_stands_twice_is_refused_however_it_is_spelled(tmp_path: Path, header: str) -> None:
    with pytest.raises(AdapterFileError, match="names this twice"):
        read_safetensors(raw_file(tmp_path / "w.safetensors", header, bytes(4)))


def test_a_tensor_named_like_a_header_field_is_no_repetition(tmp_path: Path) -> None:
    tensors = {"data_offsets": np.ones(1, np.float32), "dtype": np.ones(1, np.float32)}
    assert set(read_safetensors(write_safetensors(tmp_path / "w", tensors)).tensors) == set(tensors)


def test_a_repeated_name_among_many_is_found_in_linear_time(tmp_path: Path) -> None:
    empty = entry("F32", [0], 0, 0)
    header = "{" + ", ".join(f'"{i}": {empty}' for i in range(60_000)) + f', "7": {empty}}}'
    with pytest.raises(AdapterFileError, match=r"^w 7: names this twice"):  # minutes if it were quadratic
        read_safetensors(raw_file(tmp_path / "w", header))


def test_sizes_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for content, reason in [
        (b"", "0 bytes cannot hold a header"),
        (b"\1\2\3", "3 bytes cannot hold a header"),
        (struct.pack("<Q", MAX_HEADER + 1) + b"{}", "claims a header of 33,554,433 bytes"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "claims a header"),
        (struct.pack("<Q", 10) + b"{}", "is truncated"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
    ]:
        path.write_bytes(content)
        with pytest.raises(AdapterFileError) as caught:
            read_safetensors(path)
        assert reason in str(caught.value)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(AdapterFileError, match="not a regular file"):
            read_safetensors(tmp_path / name)
    with pytest.raises(AdapterFileError, match="cannot be opened"):
        read_safetensors(tmp_path / "missing")


def test_dtypes_without_an_array_type_say_so_only_when_read(tmp_path: Path) -> None:
    file = read_safetensors(raw_file(tmp_path / "w", f'{{"a": {entry("F4", [4], 0, 2)}}}', b"\1\2"))
    assert file.tensors["a"].dtype == "F4"
    with pytest.raises(UnsupportedAdapterError, match="dtype F4 has no array type"):
        file.tensors["a"].array()


def test_a_closed_file_does_not_pretend_to_hold_zeros(tmp_path: Path) -> None:
    values = np.arange(4, dtype=np.float32)
    file = read_safetensors(write_safetensors(tmp_path / "w", {"a": values}))
    view = file.tensors["a"].array()
    file.close()
    np.testing.assert_array_equal(view, values)  # what was read stays
    with pytest.raises(AdapterFileError, match="was closed"):
        file.tensors["a"].array()


def test_a_long_matrix_is_read_in_the_rows_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(7 * 5, dtype=np.float32).reshape(7, 5)
    tensor = read_safetensors(write_safetensors(tmp_path / "w", {"a": values}, pad=1)).tensors["a"]
    assert isinstance(tensor.matrix(), np.ndarray)
    monkeypatch.setattr("s3lora.adapter.tensors.LONG", 8)
    matrix = tensor.matrix()
    assert isinstance(matrix, LongMatrix)
    for ours, theirs in ((matrix, values), (matrix.T, values.T), (matrix.T.T, values)):
        assert ours.shape == theirs.shape
        for rows in (slice(0, 3), slice(2, 2), slice(4, 99), slice(None), [3, 1], slice(0, 5, 2)):
            np.testing.assert_array_equal(ours[rows], theirs[rows])
        np.testing.assert_array_equal(np.asarray(ours), theirs)
        np.testing.assert_array_equal(ours.astype(np.float64), theirs)


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    content = bytes(range(256)) * 40_000  # more than one chunk
    (tmp_path / "f").write_bytes(content)
    assert RegularFile(tmp_path / "f").sha256() == hashlib.sha256(content).hexdigest()


@given(cut=st.integers(0, 300), flip=st.integers(0, 299), value=st.integers(0, 255))
def test_damaged_files_raise_our_errors_or_are_read(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int, value: int
) -> None:
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "a.lora_A.weight": np.ones((2, 3), np.float32),
        "b": np.ones(2, np.float16),
    }
    content = bytearray(safetensors_bytes(tensors, {"format": "pt"}))
    content[flip % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content[: len(content) - cut] if cut < len(content) else b"")
    try:
        file = read_safetensors(path)
    except AdapterFileError:
        return
    assert sum(tensor.nbytes for tensor in file.tensors.values()) == 28


@pytest.mark.parametrize("name", ["", "a/../b", "..", "/a", "\\a", "a\x00b", "a\nb", "x" * 513, "..\\a", "a\u202eb"])
def test_names_that_no_model_has(name: str) -> None:
    with pytest.raises(AdapterFileError, match="name no model can have"):
        check_name(name, Path("w"))


@pytest.mark.parametrize("name", ["model.layers.0.lora_A.weight", "unet:9:down", "<s1>", "a..b", "x" * 512])
def test_names_that_models_have(name: str) -> None:
    check_name(name, Path("w"))


def test_possible_shapes() -> None:
    good: list[list[int]] = [[], [0], [1] * 8, [4096, 4096]]
    bad: list[Any] = [[1] * 9, [-1], [2**30, 2**30], [0, 2**60]]
    assert [possible_shape(shape) for shape in good + bad] == [True] * 4 + [False] * 4
