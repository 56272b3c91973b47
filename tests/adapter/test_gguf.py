"""GGUF adapters: read as they are, refused where they lie, and written with the same keys."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import s3lora
from s3lora.adapter.factors import DerivedFactor
from s3lora.adapter.formats.gguf import llama_name
from s3lora.adapter.gguf import read_gguf
from s3lora.adapter.model import Adapter, Scaling
from s3lora.adapter.open import open_adapter
from s3lora.errors import AdapterFileError, NothingToAuditError, UnsupportedAdapterError
from tests.gguf_files import ADAPTER, gguf_bytes, quantised, text
from tests.reference.dense import delta, singular_values
from tests.support import factors

Tensors = Mapping[str, np.ndarray[Any, Any]]
A, B = factors(16, 64, 4)
Q = "blk.3.attn_q.weight"


def pair(path: str = Q, a: Any = A, b: Any = B) -> dict[str, np.ndarray[Any, Any]]:
    return {f"{path}.lora_a": a, f"{path}.lora_b": b}


def opened(folder: Path, tensors: Tensors, keys: Mapping[str, Any] = ADAPTER, **how: Any) -> Adapter:
    path = folder / "adapter.gguf"
    path.write_bytes(gguf_bytes(tensors, keys, **how))
    return open_adapter(path)


def product(module: Any) -> np.ndarray[Any, Any]:
    return np.asarray(module.B.array()).astype(np.float64) @ np.asarray(module.A.array()).astype(np.float64)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_factors_lie_as_they_are(tmp_path: Path, dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    adapter = opened(tmp_path, pair(a=A.astype(kind), b=B.astype(kind)))
    (module,) = adapter.modules
    assert (adapter.format, adapter.removable, module.dtype) == ("gguf", True, dtype)
    assert (module.path, module.layer, module.projection) == ("model.layers.3.self_attn.q_proj", 3, "q_proj")
    assert module.scaling == Scaling(2.0, "metadata")
    np.testing.assert_array_equal(product(module), B.astype(kind).astype(float) @ A.astype(kind).astype(float))


def test_spectra_are_those_of_the_dense_update(tmp_path: Path) -> None:
    opened(tmp_path, pair()).close()
    scan = s3lora.scan(tmp_path / "adapter.gguf", "svd")
    np.testing.assert_allclose(scan.modules[0].sigma, singular_values(delta(A, B, 2.0))[:4], rtol=1e-10)


def test_a_folder_with_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "lora.gguf").write_bytes(gguf_bytes(pair()))
    with open_adapter(tmp_path) as adapter:
        assert adapter.entry == tmp_path / "lora.gguf"


NAMES = {
    "blk.0.attn_k.weight": "model.layers.0.self_attn.k_proj",
    "blk.0.attn_output.weight": "model.layers.0.self_attn.o_proj",
    "blk.11.ffn_down.weight": "model.layers.11.mlp.down_proj",
    "output.weight": "lm_head",
    "blk.0.ssm_in.weight": "blk.0.ssm_in",
}


def test_modules_have_the_names_of_transformers(tmp_path: Path) -> None:
    tensors = {name: one for path in NAMES for name, one in pair(path).items()}
    with opened(tmp_path, tensors) as adapter:
        assert {module.path for module in adapter.modules} == set(NAMES.values())
    with opened(tmp_path, pair(), {**ADAPTER, "general.architecture": "gpt2"}) as adapter:
        assert adapter.modules[0].path == "blk.3.attn_q"


@pytest.mark.parametrize(("kind", "part"), [("qwen2moe", "shared_expert"), ("deepseek2", "shared_experts")])
def test_shared_experts_have_the_names_of_the_model(tmp_path: Path, kind: str, part: str) -> None:
    gguf = pytest.importorskip("gguf")
    ends = {f"blk.2.ffn_{name}_shexp": f"model.layers.2.mlp.{part}.{name}_proj" for name in ("gate", "up", "down")}
    if kind == "qwen2moe":
        ends["blk.2.ffn_gate_inp_shexp"] = "model.layers.2.mlp.shared_expert_gate"
    theirs = gguf.get_tensor_name_map(next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == kind), 4)
    assert {name: theirs.get_name(path) for name, path in ends.items()} == {name: name for name in ends}
    tensors = {key: one for name in ends for key, one in pair(f"{name}.weight").items()}
    with opened(tmp_path, tensors, {**ADAPTER, "general.architecture": kind}) as adapter:
        assert {module.path for module in adapter.modules} == set(ends.values())
    assert {llama_name(path) for path in ends.values()} == set(ends)
    with opened(tmp_path, tensors, {**ADAPTER, "general.architecture": "hunyuan-moe"}) as adapter:
        assert {module.path for module in adapter.modules} == set(ends)


def test_embeddings_lie_turned(tmp_path: Path) -> None:
    (module,) = opened(tmp_path, pair("token_embd.weight", np.ascontiguousarray(A.T))).modules
    assert (module.path, module.kind, module.m, module.n) == ("model.embed_tokens", "embedding", 16, 64)
    np.testing.assert_array_equal(product(module), B.astype(float) @ A.astype(float))


def test_stacked_experts(tmp_path: Path) -> None:
    a, b = np.stack([A, A + 1, A + 2]), np.stack([B, B - 1, B - 2])
    adapter = opened(tmp_path, pair("blk.1.ffn_up_exps.weight", a, b))
    assert [module.path for module in adapter.modules] == [f"model.layers.1.mlp.experts.{e}.up_proj" for e in range(3)]
    assert {module.scaling for module in adapter.modules} == {Scaling(2.0, "metadata")}
    assert {module.group for module in adapter.modules} == {"model.layers.1.mlp.experts"}
    for expert, module in enumerate(adapter.modules):
        np.testing.assert_array_equal(product(module), b[expert].astype(float) @ a[expert].astype(float))


def permuted(matrix: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Order the rows as llama.cpp's converter does: of each head, first rows of both halves, then second rows, …"""
    size = len(matrix) // heads
    order = [h * size + half * (size // 2) + i for h in range(heads) for i in range(size // 2) for half in (0, 1)]
    return matrix[order]


@pytest.mark.parametrize(("name", "heads"), [("attn_q", 4), ("attn_k", 2)])
def test_rows_in_pairs_are_put_back(tmp_path: Path, name: str, heads: int) -> None:
    keys = {**ADAPTER, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2}
    stored = pair(f"blk.0.{name}.weight", b=permuted(B, heads))
    (module,) = opened(tmp_path, stored, keys).modules
    assert isinstance(module.B, DerivedFactor)
    np.testing.assert_array_equal(module.B.array(), B)
    (back,) = module.B.write_back(B.astype(float))
    np.testing.assert_array_equal(back, permuted(B, heads))


def test_heads_of_a_configuration_of_the_base_beside_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_attention_heads": 4, "num_key_value_heads": 2}')
    adapter = opened(tmp_path, {**pair("blk.0.attn_q.weight", b=permuted(B, 4)),
                                **pair("blk.0.attn_k.weight", b=permuted(B, 2))})  # fmt: skip
    for module in adapter.modules:
        np.testing.assert_array_equal(module.B.array(), B)
    assert adapter.warnings == ()
    for bad in ("{", "[]", "{}", '{"num_attention_heads": true}', '{"num_attention_heads": -4}'):
        (tmp_path / "config.json").write_text(bad)
        assert any("by pairs" in warning for warning in opened(tmp_path, pair()).warnings)


def test_rows_in_pairs_are_told_of_where_nothing_says_how_many_heads(tmp_path: Path) -> None:
    adapter = opened(tmp_path, pair())
    assert any("by pairs" in warning for warning in adapter.warnings)
    assert not opened(tmp_path, pair(), {**ADAPTER, "general.architecture": "qwen2"}).warnings
    assert not opened(tmp_path, pair("blk.0.attn_v.weight")).warnings
    with pytest.raises(AdapterFileError, match="16 rows, which 3 heads do not share"):
        opened(tmp_path, pair(), {**ADAPTER, "llama.attention.head_count": 3})


@pytest.mark.parametrize(
    ("alpha", "scaling"),
    [(4.0, Scaling(1.0, "metadata")), (0.0, Scaling(1.0, "metadata")), (None, Scaling(1.0, "unknown"))],
)
def test_alpha_is_one_for_all(tmp_path: Path, alpha: float | None, scaling: Scaling) -> None:
    keys = {key: one for key, one in ADAPTER.items() if key != "adapter.lora.alpha"}
    adapter = opened(tmp_path, pair(), keys if alpha is None else {**keys, "adapter.lora.alpha": alpha})
    assert adapter.modules[0].scaling == scaling
    assert any("scaling is unknown" in warning for warning in adapter.warnings) == (alpha is None)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), -1.0, "eight"])
def test_an_alpha_that_is_none(tmp_path: Path, alpha: Any) -> None:
    with pytest.raises(AdapterFileError, match=r"`adapter\.lora\.alpha` is .*, not a positive number"):
        opened(tmp_path, pair(), {**ADAPTER, "adapter.lora.alpha": alpha})


def test_q8_0_is_read_as_what_it_stands_for(tmp_path: Path) -> None:
    stored = f"{Q}.lora_a"
    adapter = opened(tmp_path, pair(), q8_0=(stored,))
    raw = np.frombuffer(quantised(A), np.uint8).reshape(-1, 34)
    scales = raw[:, :2].copy().view(np.float16).astype(np.float32)
    wanted = (scales * raw[:, 2:].copy().view(np.int8).astype(np.float32)).reshape(A.shape)
    np.testing.assert_array_equal(adapter.modules[0].A.array(), wanted)
    np.testing.assert_allclose(wanted, A, atol=0.02)


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q4_K", "Q6_K"])
def test_other_types_are_read_by_the_package_gguf(tmp_path: Path, kind: str) -> None:
    gguf = pytest.importorskip("gguf")
    number = gguf.GGMLQuantizationType[kind]
    a = np.random.default_rng(0).integers(0, 256, (4, gguf.GGML_QUANT_SIZES[number][1])).astype(np.uint8)
    a[:, :] %= 64  # no scale is NaN
    width = gguf.GGML_QUANT_SIZES[number][0]
    raw = bytearray(gguf_bytes({f"{Q}.lora_a": np.zeros((4, width), np.int8), f"{Q}.lora_b": B}))
    head = text(f"{Q}.lora_a")
    at = raw.index(head) + len(head) + 4 + 16
    raw[at : at + 4] = struct.pack("<I", int(number))
    # As bytes the tensor is of another length: what follows it moves.
    plain, packed = 4 * width, a.size
    start = len(raw) - (-(-plain // 32) * 32) - (-(-B.nbytes // 32) * 32)
    second = raw.index(text(f"{Q}.lora_b")) + len(text(f"{Q}.lora_b")) + 4 + 16 + 4
    raw[second : second + 8] = struct.pack("<Q", -(-packed // 32) * 32)
    data = a.tobytes() + bytes(-packed % 32) + B.tobytes()
    (tmp_path / "x.gguf").write_bytes(bytes(raw[:start]) + data + bytes(-len(data) % 32))
    with open_adapter(tmp_path / "x.gguf") as adapter:
        wanted = gguf.quants.dequantize(a, number)
        np.testing.assert_array_equal(adapter.modules[0].A.array(), wanted)


def test_a_quantised_tensor_without_numbers_is_read(tmp_path: Path) -> None:
    raw = bytearray(gguf_bytes({f"{Q}.lora_a": A, f"{Q}.lora_b": B, "output.lora_a": np.zeros((4, 0), np.float32)}))
    at = raw.index(text("output.lora_a")) + len(text("output.lora_a")) + 4 + 16
    raw[at : at + 4] = struct.pack("<I", 12)  # Q4_K
    (tmp_path / "x.gguf").write_bytes(bytes(raw))
    file = read_gguf(tmp_path / "x.gguf")
    assert file.tensors["output.lora_a"].array().shape == (4, 0)
    file.close()


def test_what_is_no_lora(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedAdapterError, match="of the type control_vector"):
        opened(tmp_path, pair(), {**ADAPTER, "adapter.type": "control_vector"})
    with pytest.raises(NothingToAuditError, match=r"none of its 1 tensors .*it holds `blk\.0\.attn_q\.weight`"):
        opened(tmp_path, {"blk.0.attn_q.weight": A}, {"general.architecture": "llama", "general.type": "model"})
    with pytest.raises(NothingToAuditError, match="holds no LoRA module"):
        opened(tmp_path, {})
    with pytest.raises(AdapterFileError, match=r"blk\.3\.attn_q: has lora_a but no lora_b"):
        opened(tmp_path, {f"{Q}.lora_a": A})


def bent(at: int, form: str, *numbers: int) -> bytes:
    raw = bytearray(gguf_bytes(pair()))
    raw[at : at + struct.calcsize(form)] = struct.pack(form, *numbers)
    return bytes(raw)


NAME = gguf_bytes(pair()).index(text(f"{Q}.lora_a"))
SHAPE = NAME + len(text(f"{Q}.lora_a"))
LIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is truncated within its header"),
    "another file": (b"GGML" + bytes(60), "is no GGUF file"),
    "version 1": (bent(4, "<I", 1), "GGUF of version 1; 2 and 3 are read"),
    "big-endian": (bent(4, ">I", 3), "is a big-endian GGUF file"),
    "2^62 tensors": (bent(8, "<Q", 2**62), r"claims 4,611,686,018,427,387,904 tensors"),
    "2^62 keys": (bent(16, "<Q", 2**62), r"claims 4,611,686,018,427,387,904 keys"),
    "a text of 2^62 bytes": (bent(24, "<Q", 2**62), "claims a text of"),
    "2^31 dimensions": (bent(SHAPE, "<I", 2**31), "dimensions"),
    "a shape of 2^80": (bent(SHAPE + 4, "<QQ", 2**40, 2**40), "impossible shape"),
    "a tensor beyond the end": (bent(SHAPE + 4, "<QQ", 64, 2**20), "is truncated: it should end at"),
    "a type that is none": (bent(SHAPE + 20, "<I", 250), "of type 250"),
    "an offset elsewhere": (bent(SHAPE + 24, "<Q", 32), "should begin at byte 0"),
    "an offset of 2^63": (bent(SHAPE + 24, "<Q", 2**63), "should begin at byte 0"),
    "rows of half a block": (bent(SHAPE + 4, "<QQI", 65, 4, 8), "no whole blocks of 32"),
    "a key twice": (
        gguf_bytes(pair()).replace(text("adapter.type"), text("general.type")),
        r"has the key general\.type twice",
    ),
    "an alignment of 3": (gguf_bytes(pair(), {**ADAPTER, "general.alignment": "3"}), "alignment of 3"),
    "an alignment of many digits": (gguf_bytes(pair(), {**ADAPTER, "general.alignment": "9" * 9000}), "alignment of 9"),
    "a tensor twice": (gguf_bytes(pair()).replace(b".lora_b", b".lora_a"), "is in its header twice"),
    "a name that no model has": (gguf_bytes(pair()).replace(b"blk.3.attn_q", b"../../../../"), "whose name no model"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused(tmp_path: Path, lie: str) -> None:
    raw, words = LIES[lie]
    (tmp_path / "x.gguf").write_bytes(raw)
    with pytest.raises((AdapterFileError, UnsupportedAdapterError), match=words):
        open_adapter(tmp_path / "x.gguf")


def test_an_array_of_2_62_elements(tmp_path: Path) -> None:
    for kind in (4, 8, 9):
        keys = struct.pack("<IIQ", 9, kind, 2**62)
        raw = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + text("tokenizer.ggml.tokens") + keys + bytes(1000)
        (tmp_path / "x.gguf").write_bytes(raw)
        with pytest.raises(AdapterFileError, match="claims an array of 4,611,686,018,427,387,904 elements"):
            open_adapter(tmp_path / "x.gguf")


def test_keys_of_every_type(tmp_path: Path) -> None:
    keys = {**ADAPTER, "a.text": "x\ny", "a.list": ["a", "b"], "a.numbers": [1, 2, 3], "a.truth": True, "a.count": 7}
    (tmp_path / "x.gguf").write_bytes(gguf_bytes(pair(), keys, version=2))
    file = read_gguf(tmp_path / "x.gguf")
    wanted = {"a.text": "x\ny", "a.list": "[2]", "a.numbers": "[3]", "a.truth": "true", "a.count": "7"}
    assert {key: file.metadata[key] for key in wanted} == wanted
    assert file.metadata["adapter.lora.alpha"] == "8.0"
    file.close()


def written(folder: Path, adapter: Adapter, mode: s3lora.Mode, top: int = 1) -> Path:
    scan = s3lora.scan(adapter)
    pruned = s3lora.prune(adapter, s3lora.select(scan, s3lora.Top(top)), mode)
    s3lora.write_pruned(pruned, scan, folder / "pruned")
    return folder / "pruned"


@pytest.mark.parametrize("mode", [s3lora.Remove(), s3lora.Zero(), s3lora.Scale(0.5)])
def test_pruning_writes_gguf_again(tmp_path: Path, mode: s3lora.Mode) -> None:
    tensors = {**pair(), **pair("blk.4.attn_v.weight", A + 1, B - 1)}
    keys = {**ADAPTER, "general.alignment": 64, "general.name": "mine", "a.list": ["x", "y"]}
    adapter = opened(tmp_path, tensors, keys, q8_0=("blk.3.attn_q.weight.lora_a", "blk.4.attn_v.weight.lora_a"))
    folder = written(tmp_path, adapter, mode)
    before, after = read_gguf(tmp_path / "adapter.gguf"), read_gguf(folder / "adapter.gguf")
    assert after.metadata == before.metadata
    assert len(after.tensors) == (2 if mode.name == "remove" else 4)
    record = s3lora.read_provenance(folder)
    (gone,) = [module.path for module in record.modules]
    with open_adapter(folder) as result:
        for module in result.modules:
            source = next(one for one in adapter.modules if one.path == module.path)
            factor = {"zero": 0.0, "scale": 0.5}[mode.name] if module.path == gone else 1.0
            np.testing.assert_array_equal(product(module), factor * product(source))
    s3lora.restore(folder, tmp_path / "adapter.gguf", tmp_path / "back")
    assert (tmp_path / "back" / "adapter.gguf").read_bytes() == (tmp_path / "adapter.gguf").read_bytes()


def test_what_is_written_is_what_the_package_gguf_reads(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    adapter = opened(tmp_path, {**pair(), **pair("blk.4.attn_v.weight", A + 1, B - 1)})
    folder = written(tmp_path, adapter, s3lora.Remove())
    reader = gguf.GGUFReader(folder / "adapter.gguf")
    ours = read_gguf(folder / "adapter.gguf")
    assert {tensor.name: tuple(tensor.shape.tolist())[::-1] for tensor in reader.tensors} == {
        name: tensor.shape for name, tensor in ours.tensors.items()
    }
    for tensor in reader.tensors:
        np.testing.assert_array_equal(tensor.data, ours.tensors[tensor.name].array())
    assert reader.fields["adapter.lora.alpha"].contents() == 8.0


@given(
    rank=st.integers(1, 4),
    m=st.integers(1, 9),
    n=st.integers(1, 9),
    dtype=st.sampled_from(["float32", "float16", "float64"]),
    alignment=st.sampled_from([8, 32, 256]),
)
def test_any_shape_comes_back(tmp_path_factory: pytest.TempPathFactory, rank: int, m: int, n: int, dtype: str,
                              alignment: int) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("gguf")
    a, b = factors(m, n, rank, dtype=dtype)
    with opened(folder, pair(a=a, b=b), {**ADAPTER, "general.alignment": alignment}) as adapter:
        np.testing.assert_array_equal(adapter.modules[0].A.array(), a)
        np.testing.assert_array_equal(adapter.modules[0].B.array(), b)
