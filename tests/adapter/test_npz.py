"""NPZ archives: read member by member, never as a pickle, and written as MLX reads them."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import s3lora
from s3lora.adapter.inventory.inventory import inventory_of
from s3lora.adapter.npz import read_npz
from s3lora.adapter.open import open_adapter
from s3lora.errors import AdapterFileError, UnsupportedAdapterError
from tests.reference.dense import delta, singular_values
from tests.support import factors

A, B = factors(12, 20, 3)
Q = "model.layers.0.self_attn.q_proj"
TENSORS = {f"{Q}.lora_a": np.ascontiguousarray(A.T), f"{Q}.lora_b": np.ascontiguousarray(B.T)}
CONFIG = {"lora_parameters": {"rank": 3, "scale": 20.0, "dropout": 0.0}, "num_layers": 1}


def folder_with(folder: Path, raw: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapters.npz").write_bytes(raw)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    return folder


def npz(save: Callable[..., None] = np.savez, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def headed(size: str) -> bytes:
    """Return the array format with a header of one's own."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size},), }}"
    head = text.encode() + b" " * (-(len(text) + 13) % 64) + b"\n"
    return b"\x93NUMPY\2\0" + len(head).to_bytes(4, "little") + head


def archive(members: Mapping[str, bytes], packed: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packed) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return buffer.getvalue()


def npy(values: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_it_is_scanned_as_mlx_is(tmp_path: Path, save: Callable[..., None]) -> None:
    scan = s3lora.scan(folder_with(tmp_path / "x", npz(save, **TENSORS)), "svd")
    assert (scan.source.format, [module.path for module in scan.modules]) == ("mlx", [Q])
    assert (scan.modules[0].scaling, scan.modules[0].scaling_origin) == (20.0, "config scale")
    np.testing.assert_allclose(scan.modules[0].sigma, singular_values(delta(A, B, 20.0))[:3], rtol=1e-10)


@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    dtype=st.sampled_from(["<f4", ">f4", "<f2", "<f8", ">f8", "i1", "<i4", ">i8", "?", "<c8"]),
    order=st.sampled_from("CF"),
    packed=st.booleans(),
)
def test_arrays_are_those_that_numpy_reads(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], dtype: str, order: Any, packed: bool
) -> None:
    values = np.asarray(np.random.default_rng(0).normal(size=shape) * 9, order=order).astype(dtype, order="K")
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    path.write_bytes(npz(np.savez_compressed if packed else np.savez, a=values, b=np.ones(3)))
    file = read_npz(path)
    found = file.tensors["a"]
    assert (found.shape, found.array().shape) == (values.shape, values.shape)
    np.testing.assert_array_equal(found.array(), values)
    assert b"".join(bytes(piece) for piece in found.chunks()) == np.ascontiguousarray(found.array()).tobytes()
    file.close()


def test_bfloat16_as_mlx_writes_it(tmp_path: Path) -> None:
    header = b"{'descr': '<V2', 'fortran_order': False, 'shape': (2, 2, )}"
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    content = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + b"\x80\x3f\0\x40\0\xc0\0\0"
    (tmp_path / "x.npz").write_bytes(archive({"a.npy": content}))
    file = read_npz(tmp_path / "x.npz")
    assert file.tensors["a"].array().astype(float).tolist() == [[1.0, 2.0], [-2.0, 0.0]]
    file.close()


class Call:
    def __reduce__(self) -> Any:
        return print, ("this must not be run",)


LIES: dict[str, tuple[bytes, str]] = {
    "objects": (npz(a=np.array([Call()], object)), "holds Python objects, which only a pickle could read"),
    "fields": (npz(a=np.zeros(2, [("x", "f4"), ("y", "f4")])), "holds no numbers"),
    "texts": (npz(a=np.array(["a"])), "holds no numbers"),
    "fields of objects": (npz(a=np.array([(1, Call())], [("x", "f4"), ("y", "O")])), "Python objects"),
    "long numbers": (npz(a=np.zeros(2, "c16")), "of a type that is not read"),
    "another member": (archive({"a.txt": b"x"}), r"holds a member that is no array: a\.txt"),
    "no array": (archive({"a.npy": b"x" * 64}), "is no array of NumPy"),
    "a pickle": (archive({"a.npy": b"\x80\x04N."}), "is no array of NumPy"),
    "too few values": (archive({"a.npy": npy(np.ones(9))[:-8]}), "has 64 bytes of values, and its shape needs 72"),
    "too many values": (archive({"a.npy": npy(np.ones(9)) + b"x"}), "bytes of values"),
    "a long header": (archive({"a.npy": b"\x93NUMPY\x02\0" + b"\xff" * 4 + bytes(64)}), "claims a header of 4,294"),
    "another header": (archive({"a.npy": npy(np.ones(1)).replace(b"'descr'", b"'DESCR'")}), "does not write"),
    "a number of many digits": (archive({"a.npy": headed("9" * 5000)}), "impossible shape"),
    "a shape of 2^80": (
        archive({"a.npy": npy(np.ones(1)).replace(b"(1,), }" + b" " * 26, b"(1099511627776, 1099511627776), }")}),
        "impossible shape",
    ),
    "a name that no model has": (archive({"../a.npy": npy(np.ones(1))}), "whose name no model"),
    "not zip": (b"PK\x03\x04" + bytes(100), "is no readable zip archive"),
    "a text behind it": (archive({"a.npy": npy(np.ones(1))}) + b"x", "is no readable zip archive"),
    "bzip2": (archive({"a.npy": npy(np.ones(1))}, zipfile.ZIP_BZIP2), "in a way that is not read"),
    "a bomb": (archive({f"{i}.npy": npy(np.zeros(2**23, np.int8)) for i in range(9)}, zipfile.ZIP_DEFLATED),
               "claims 75,498,624 bytes of arrays"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], lie: str) -> None:
    raw, words = LIES[lie]
    (tmp_path / "x.npz").write_bytes(raw)
    with pytest.raises((AdapterFileError, UnsupportedAdapterError), match=words):
        open_adapter(tmp_path / "x.npz")
    assert capsys.readouterr().out == ""


def test_damage_within_what_is_compressed(tmp_path: Path) -> None:
    raw = bytearray(npz(np.savez_compressed, **TENSORS))
    at = raw.index(b"PK\x03\x04", 10)  # the end of the first array, in front of the second
    raw[at - 12] ^= 0xFF
    with pytest.raises(AdapterFileError, match="is damaged where it is compressed"):
        s3lora.scan(folder_with(tmp_path / "x", bytes(raw)))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("mode", [s3lora.Remove(), s3lora.Zero()])
def test_pruning_writes_npz_again(tmp_path: Path, save: Callable[..., None], mode: s3lora.Mode) -> None:
    more = {
        f"model.layers.1.mlp.up_proj.lora_{half}": values + 1 for half, values in zip("ab", (A.T, B.T), strict=True)
    }
    source = folder_with(tmp_path / "x", npz(save, **TENSORS, **more, scale=np.float32(3.0)))
    with open_adapter(source) as adapter:
        scan = s3lora.scan(adapter)
        for out in ("one", "two"):
            pruned = s3lora.prune(adapter, s3lora.select(scan, s3lora.Top(1)), mode)
            record, _ = s3lora.write_pruned(pruned, scan, tmp_path / out)
    assert (tmp_path / "one" / "adapters.npz").read_bytes() == (tmp_path / "two" / "adapters.npz").read_bytes()
    (gone,) = [module.path for module in record.modules]
    with np.load(tmp_path / "one" / "adapters.npz", allow_pickle=False) as result:
        kept = {name for name in {**TENSORS, **more} if not (mode.name == "remove" and name.startswith(gone))}
        assert set(result) == kept | {"scale"}
        for name in kept - {f"{gone}.lora_b"}:
            np.testing.assert_array_equal(result[name], {**TENSORS, **more}[name])
        if mode.name == "zero":
            assert not result[f"{gone}.lora_b"].any()
    s3lora.restore(tmp_path / "one", source, tmp_path / "back")
    assert (tmp_path / "back" / "adapters.npz").read_bytes() == (source / "adapters.npz").read_bytes()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_is_no_factor_is_told_alike_however_it_lies(tmp_path: Path, save: Callable[..., None]) -> None:
    more = {"model.norm.weight": np.array([1.0, -7.0, np.nan], np.float32), "empty": np.zeros((0, 3), np.float32)}
    scan = s3lora.scan(folder_with(tmp_path / "x", npz(save, **TENSORS, **more)))
    found = {tensor.name: tensor for tensor in scan.inventory.tensors if tensor.name in more}
    norm, empty = found["model.norm.weight"], found["empty"]
    digest = hashlib.sha256(more["model.norm.weight"].tobytes()).hexdigest()
    assert (norm.finite, norm.largest, norm.sha256, norm.bytes) == (False, 7.0, digest, 12)
    assert (empty.finite, empty.largest) == (True, None)
    with open_adapter(tmp_path / "x") as adapter:
        (told,) = [tensor for tensor in inventory_of(adapter).tensors if tensor.name == "model.norm.weight"]
    assert (told.finite, told.largest) == (False, 7.0)


def test_what_has_to_be_held_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3lora.adapter.npz.MAX_DECODED", 200)
    with open_adapter(folder_with(tmp_path / "x", npz(**TENSORS))) as adapter:
        assert adapter.modules
    packed = folder_with(tmp_path / "y", npz(np.savez_compressed, **TENSORS))
    with pytest.raises(UnsupportedAdapterError, match="too much to hold"):
        open_adapter(packed)
