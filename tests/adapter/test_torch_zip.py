from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.adapter.open import open_adapter
from s3lora.adapter.tensors import WeightsFile
from s3lora.adapter.torch_pickle import PickleError, read_pickle
from s3lora.adapter.torch_zip import read_torch
from s3lora.errors import UnsupportedAdapterError
from tests.examples import examples
from tests.support import shared
from tests.torch_files import DATA, Global, archive, op, program, refused, storage, tensor


def test_a_hand_made_checkpoint_is_read_lazily(tmp_path: Path) -> None:
    code = program({"a": tensor(), "b": tensor((2,), (1,), offset=4), "s": tensor((), (), 5), "epoch": 3})
    file = read_torch(archive(tmp_path / "x.bin", code))
    assert list(file.tensors) == ["a", "b", "s"]
    view = file.tensors["a"].array()
    assert (view.dtype.name, view.flags.owndata, view.flags.writeable) == ("float32", False, False)
    np.testing.assert_array_equal(view, DATA.reshape(2, 3))
    np.testing.assert_array_equal(file.tensors["b"].array(), DATA[4:])
    assert file.tensors["s"].array() == DATA[5]


def test_a_state_dict_may_be_nested_once(tmp_path: Path) -> None:
    nested = program({"state_dict": {"a": tensor()}, "epoch": 1})
    file = read_torch(archive(tmp_path / "x.bin", nested))
    assert list(file.tensors) == ["a"]
    assert file.warnings == ("x.bin holds its tensors under `state_dict`, where PEFT does not look",)
    twice = program({"state_dict": {"state_dict": {"a": tensor()}}})
    assert "holds no dictionary of tensors" in refused(archive(tmp_path / "y.bin", twice))


AMBIGUOUS: dict[str, tuple[dict[str, Any], str]] = {
    "a decoy": ({"a": tensor(), "state_dict": {"a": tensor()}}, "the file itself, `state_dict`"),
    "of another name": ({"a": tensor(), "module": {"b": tensor()}}, "the file itself, `module`"),
    "two inside": ({"state_dict": {"a": tensor()}, "lora": {"a": tensor()}}, "`state_dict`, `lora`"),
    "inside the inner": ({"state_dict": {"a": tensor(), "model": {"a": tensor()}}}, "the file itself, `model`"),
}


@pytest.mark.parametrize(("value", "places"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_several_dictionaries_of_tensors_are_refused(tmp_path: Path, value: dict[str, Any], places: str) -> None:
    message = refused(archive(tmp_path / "x.bin", program(value)))
    assert f"holds several dictionaries of tensors ({places}), and loaders differ in which they take" in message


def test_views_of_one_storage_do_not_add_up_to_much_more_than_the_file(tmp_path: Path) -> None:
    data = {"data/0": bytes(24_000)}
    whole = tensor((6000,), (1,), source=storage(count=6000))
    tied = program(dict.fromkeys("abc", whole))
    assert len(read_torch(archive(tmp_path / "x.bin", tied, data)).tensors) == 3
    many = program(dict.fromkeys(map(str, range(40)), whole))
    assert "describes tensors of 960,000 bytes in a file of" in refused(archive(tmp_path / "y.bin", many, data))


def test_code_in_a_pickle_never_runs(tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return os.system, (f"touch {witness}",)

    code = pickle.dumps({"a": Attack()}, protocol=2)
    message = refused(archive(tmp_path / "x.bin", code))
    assert f"names {os.name}.system: loading it with pickle would run code" in message
    later = pickle.dumps({"a": Attack()}, protocol=4)
    assert "is pickled by protocol 4, which torch.load refuses" in refused(archive(tmp_path / "x.bin", later))
    assert not witness.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins.eval", "builtins.getattr", "torch.load", "torch._utils._rebuild_sparse_tensor", "collections.Counter"],
)
def test_every_other_name_is_refused(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    code = program({"a": op(Global(module, attribute)) + b")R"})
    assert f"names {name}: loading it with pickle would run code" in refused(archive(tmp_path / "x.bin", code))


EMPTY_DICT_CALL = op(Global("collections", "OrderedDict")) + b")R"
HOSTILE: dict[str, tuple[bytes, str]] = {
    "instance opcode": (program(b"(ios\nsystem\n"), "has the pickle opcode b'i'"),
    "newobj": (program(op(Global("torch", "Size")) + b")\x81"), "has the pickle opcode b'\\x81'"),
    "extension": (program(b"\x82\x01"), "has the pickle opcode b'\\x82'"),
    "long text number": (program(b"L" + b"9" * 100_000 + b"L\n"), "has the pickle opcode b'L'"),
    "persistent text": (program(b"P0\n"), "has the pickle opcode b'P'"),
    "build a tensor": (program({"a": tensor() + b"}b"}), "sets the state of something that is no OrderedDict"),
    "build a plain dictionary": (program(b"}}b"), "sets the state of something that is no OrderedDict"),
    "build with a method": (program(EMPTY_DICT_CALL + op({"items": 1}) + b"b"), "sets a state that torch does not"),
    "build with nothing": (program(EMPTY_DICT_CALL + b"Nb"), "sets a state that torch does not write"),
    "sizes that are none": (program(op(Global("torch", "Size")) + op(((-1,),)) + b"R"), "calls torch.Size in a form"),
    "two kinds of a storage": (
        program({"a": tensor(), "b": tensor(source=storage(kind="IntStorage"))}),
        "describes storage 0 in two ways",
    ),
    "key of a storage": (program({"a": tensor(source=storage("0.debug_pkl"))}), "refers to a storage in a form"),
    "storage without values": (
        program({"a": tensor(source=op(("storage", Global("torch", "FloatStorage"), "0", "meta", 6)) + b"Q")}),
        "refers to a storage in a form",
    ),
    "tuple keys": (program(b"}(" + op((1, 2)) + b"Nu"), "keys are not all text"),
    "odd items": (program(b"}(" + op("a") + b"u"), "no dictionary"),
    "items of a list": (program(b"](" + op("a") + b"Nu"), "no dictionary"),
    "append to a dictionary": (program(b"}Na"), "appends to something that is no list"),
    "call a dictionary": (program(b"})R"), "calls something that is no function"),
    "call with a list": (program(op(Global("torch", "Size")) + b"]R"), "calls something that is no function"),
    "call a storage": (program(op(Global("torch", "FloatStorage")) + b")R"), "calls torch.FloatStorage in a form"),
    "dictionary of a list": (program(op(Global("collections", "OrderedDict")) + op(("a",)) + b"R"), "in a form"),
    "negative size": (program({"a": tensor((-1, 3))}), "are no sizes"),
    "size is a truth value": (program({"a": tensor((True, 3))}), "are no sizes"),
    "dimensions": (program({"a": tensor((1,) * 9, (1,) * 9)}), "no possible shape"),
    "strides": (program({"a": tensor((2, 3), (1,))}), "no possible shape"),
    "unknown storage": (program({"a": tensor(source=storage(kind="QInt8Storage"))}), "names torch.QInt8Storage"),
    "storage of a function": (
        program({"a": tensor(source=op(("storage", Global("torch", "Size"), "0", "cpu", 6)) + b"Q")}),
        "refers to a storage in a form",
    ),
    "other persistent id": (program({"a": op("0") + b"Q"}), "refers to a storage in a form"),
    "empty stack": (b"\x80\x02.", "unfinished value"),
    "mark left": (b"\x80\x02(.", "unfinished value"),
    "pop of a mark": (b"\x80\x02(\x85.", "takes a value that its pickle never made"),
    "no mark": (b"\x80\x02t.", "closes a list that its pickle never opened"),
    "memo": (b"\x80\x02h\x07.", "recalls a value"),
    "cut text": (b"\x80\x02X\xff\xff\xff\x7fabc", "ends in the middle of its pickle"),
    "cut": (b"\x80\x02", "ends in the middle of its pickle"),
    "name without end": (b"\x80\x02c" + b"a" * 1000, "has a name without an end"),
    "text": (program(b"X\x01\x00\x00\x00\xff"), "is not UTF-8"),
    "a list": (program(b"]"), "holds no dictionary of tensors"),
    "no tensors": (program({"a": 1}), "holds no dictionary of tensors"),
}


@pytest.mark.parametrize(("code", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_pickles_that_are_no_checkpoint(tmp_path: Path, code: bytes, reason: str) -> None:
    assert reason in refused(archive(tmp_path / "x.bin", code))


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(b"\x80\x02" + b"(" * 5_000_000, id="five million marks"),
        pytest.param(b"\x80\x02)" + b"\x85" * 1_500_000 + b".", id="nested too deep for recursion"),
        pytest.param(b"\x80\x02(" + b"N" * 500_000 + b"tq\x00" + EMPTY_DICT_CALL.replace(b")R", b"h\x00R") * 30_000,
                     id="one long tuple as the arguments of many calls"),
        pytest.param(b"\x80\x02(" + b"K\x01" * 500_000 + b"tq\x00(" + tensor(source=storage()).replace(
                     op((2, 3)), b"h\x00").replace(op((3, 1)), b"h\x00") * 30_000,
                     id="one long tuple as the shape of many tensors"),
        pytest.param(b"\x80\x02]q\x00(" + b"h\x00" * 20 + b"e(" + b"h\x00" * 900_000, id="a list in itself"),
    ],
)  # fmt: skip
def test_time_and_memory_stay_bounded(code: bytes) -> None:
    began = time.process_time()
    with contextlib.suppress(PickleError):
        read_pickle(code)
    assert time.process_time() - began < 20


@settings(max_examples=examples(300))
@given(data=st.data())
def test_damaged_pickles_raise_our_error_or_give_a_value(data: st.DataObject) -> None:
    code = bytearray(program({"a": tensor(), "b": {"c": tensor((2,), (1,), offset=4)}}))
    for _ in range(data.draw(st.integers(1, 4))):
        code[data.draw(st.integers(0, len(code) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PickleError):
        read_pickle(bytes(code))


TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "beyond the storage": ({"shape": (3, 3)}, "needs bytes up to 36 of a storage of 24"),
    "beyond by its offset": ({"offset": 1}, "needs bytes up to 28 of a storage of 24"),
    "transposed": ({"strides": (1, 2)}, "is not stored row by row (strides [1, 2])"),
    "expanded": ({"strides": (0, 1)}, "is not stored row by row"),
    "storage missing": ({"source": storage("7")}, "lacks the 24 bytes of storage 7"),
    "storage short": ({"source": storage(count=7)}, "has 24 bytes instead of the 28 bytes of storage 0"),
    "storage long": ({"source": storage(count=5), "shape": (1,), "strides": (1,)}, "has 24 bytes instead of the 20"),
    "empty but huge": ({"shape": (0, 2**61), "strides": (1, 1)}, "has an impossible shape"),
}


@pytest.mark.parametrize(("options", "reason"), TENSORS.values(), ids=TENSORS)
def test_tensors_stay_inside_their_storage(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    message = refused(archive(tmp_path / "x.bin", program({"w": tensor(**options)})))
    assert reason in message


CALL_V2 = op(Global("torch._utils", "_rebuild_tensor_v2"))
HOOKS = EMPTY_DICT_CALL
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "no gradient and hooks": (),
    "no hooks": (False,),
    "a number for the gradient": (0, HOOKS),
    "a list of hooks": (False, b"]"),
    "a negation": (False, HOOKS, {"neg": True}),
    "too many": (False, HOOKS, None, None),
}


@pytest.mark.parametrize("rest", ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_tensor_is_made_by_the_arguments_that_torch_writes(tmp_path: Path, rest: tuple[Any, ...]) -> None:
    made = CALL_V2 + op((storage(), 0, (2, 3), (3, 1), *rest)) + b"R"
    assert "calls torch._utils._rebuild_tensor_v2 in a form" in refused(
        archive(tmp_path / "x.bin", program({"a": made}))
    )
    good = CALL_V2 + op((storage(), 0, (2, 3), (3, 1), True, HOOKS, {})) + b"R"
    assert list(read_torch(archive(tmp_path / "x.bin", program({"a": good}))).tensors) == ["a"]


@pytest.mark.parametrize(("gradient", "read"), [(False, True), (True, False)])
def test_a_tensor_of_fp8_has_no_gradient(tmp_path: Path, gradient: bool, read: bool) -> None:
    source = storage(kind="CharStorage", count=24).replace(b"ctorch\nCharStorage", b"ctorch.storage\nUntypedStorage")
    rest = (gradient, HOOKS, Global("torch", "float8_e4m3fn"))
    made = op(Global("torch._utils", "_rebuild_tensor_v3")) + op((source, 0, (4, 6), (6, 1), *rest)) + b"R"
    path = archive(tmp_path / "x.bin", program({"a": made}))
    if read:
        assert read_torch(path).tensors["a"].dtype == "float8_e4m3fn"
    else:
        assert "calls torch._utils._rebuild_tensor_v3 in a form" in refused(path)


def test_whole_numbers_have_no_gradient(tmp_path: Path) -> None:
    made = CALL_V2 + op((storage(kind="IntStorage"), 0, (2, 3), (3, 1), True, HOOKS)) + b"R"
    assert "wants a gradient of a tensor of I32" in refused(archive(tmp_path / "x.bin", program({"a": made})))


def test_a_tensor_that_is_not_kept_must_lie_in_its_storage_too(tmp_path: Path) -> None:
    made = program({"a": tensor(), "l": (tensor((9, 9), (9, 1)),)})
    assert "needs bytes up to 324 of a storage of 24" in refused(archive(tmp_path / "x.bin", made))
    lost = program({"a": tensor(), "l": (storage("4"),)})
    assert "lacks the 24 bytes of storage 4" in refused(archive(tmp_path / "x.bin", lost))


def test_the_remedies_for_other_shapes_of_file_work(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path, new = tmp_path / "x.pt", tmp_path / "adapter_model.bin"
    for value in ([torch.ones(2, 3), torch.zeros(4)], {"module": {"a": torch.ones(2, 3), "b": torch.zeros(4)}}):
        torch.save(value, path)
        code = refused(path).partition("torch.save(")
        snippet = (code[1] + code[2]).replace('"x.pt"', repr(str(path))).replace('"adapter_model.bin"', repr(str(new)))
        exec(snippet, {"torch": torch, "names": ["a", "b"]})
        assert {name: one.shape for name, one in read_torch(new).tensors.items()} == {"a": (2, 3), "b": (4,)}


def test_strides_of_single_rows_do_not_matter(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.bin", program({"w": tensor((1, 6), (99, 1)), "e": tensor((0, 4), (7, 7))}))
    assert read_torch(path).tensors["w"].array().tolist() == [DATA.tolist()]
    assert read_torch(path).tensors["e"].array().shape == (0, 4)


def test_names_are_checked_as_elsewhere(tmp_path: Path) -> None:
    assert "name no model can have" in refused(archive(tmp_path / "x.bin", program({"../a": tensor()})))


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    for content, reason in [
        (legacy + bytes(100), "written by torch < 1.6; load and save it again with a newer torch"),
        (pickle.dumps({"a": 1}, protocol=2), "it is a bare pickle"),
        (b"", "it is not a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ]:
        path.write_bytes(content)
        assert reason in refused(path)


def saved(path: Path, value: Any, **options: Any) -> WeightsFile:
    torch = pytest.importorskip("torch")
    torch.save(value, path, **options)
    return read_torch(path)


@pytest.mark.parametrize(
    "name",
    ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int64", "int32", "int16", "int8",
     "uint8", "uint16", "bool", "complex64"],
)  # fmt: skip
def test_what_torch_saves_is_read_bit_for_bit(tmp_path: Path, name: str) -> None:
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, name)
    values = torch.arange(24).reshape(4, 6).to(dtype)
    state = collections.OrderedDict(a=values, b=values[1:3], c=torch.nn.Parameter(values, False), d=values[0, 0])
    file = saved(tmp_path / "adapter_model.bin", state)
    for key, expected in state.items():
        tensor = file.tensors[key]
        assert (tensor.dtype, tensor.shape) == (name, tuple(expected.shape))
        assert tensor.array().tobytes() == expected.detach().flatten().view(torch.uint8).numpy().tobytes()


def test_torch_protocols_buffers_and_nesting(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict()  # carries _metadata
    for protocol in (2, 3):
        file = saved(tmp_path / "x.pt", {"state_dict": state, "lr": 0.1, "who": None}, pickle_protocol=protocol)
        assert list(file.tensors) == list(state)
        for key, expected in state.items():
            np.testing.assert_array_equal(file.tensors[key].array(), expected.numpy())
    buffer = io.BytesIO()
    torch.save(state, buffer)
    (tmp_path / "y.pt").write_bytes(buffer.getvalue())
    assert list(read_torch(tmp_path / "y.pt").tensors) == list(state)


def test_what_torch_saves_otherwise_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.bin"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert "legacy format, written by torch < 1.6" in refused(path)
    torch.save({"a": torch.ones(2)}, path, pickle_protocol=4)
    assert "save it again with torch.save, without pickle_protocol" in refused(path)
    torch.save({"a": torch._neg_view(torch.ones(2))}, path)
    assert "in a form torch does not write for a plain tensor" in refused(path)
    torch.save({"a": torch.ones(2, 3).T}, path)
    assert "save it again after .contiguous()" in refused(path)
    torch.save(torch.nn.Linear(2, 2), path)
    assert "names torch.nn.modules.linear.Linear: loading it with pickle would run code" in refused(path)


def test_a_bin_adapter_is_an_adapter(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = {
        "base_model.model.x.lora_A.weight": torch.ones(2, 5),
        "base_model.model.x.lora_B.weight": torch.ones(4, 2),
    }
    torch.save(tensors, tmp_path / "adapter_model.bin")
    (module,) = open_adapter(tmp_path).modules
    assert (module.path, module.m, module.n) == ("x", 4, 5)
    assert (module.B.array() @ module.A.array()).tolist() == [[2.0] * 5] * 4


def test_the_published_bin_is_read_and_its_merged_projection_refused() -> None:
    folder = shared() / "adapters" / "bloom-fused-qkv-bin"
    file = read_torch(folder / "adapter_model.bin")
    assert len(file.tensors) == 48
    assert {(tensor.dtype, tensor.shape) for tensor in file.tensors.values()} == {
        ("float32", (16, 1024)),
        ("float32", (2048, 8, 1)),
    }
    assert all(np.isfinite(tensor.array()).all() for tensor in file.tensors.values())
    with pytest.raises(
        UnsupportedAdapterError, match=r"lora_B\.weight \(2048 × 8 × 1\): .*3 dimensions is not one matrix"
    ):
        open_adapter(folder)


def test_files_that_loaders_refuse_or_read_otherwise_are_refused() -> None:
    cases = shared() / "cases"
    paths = [
        *sorted((cases / "torch_refuses").glob("*.bin")),
        cases / "zip_directory_bit.bin",
        cases / "list_of_tensors.pt",
    ]
    assert len(paths) > 10
    for path in [*paths, cases / "decoy_nested_state_dict" / "adapter_model.bin"]:
        refused(path)
