from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.model import Factor, LoraModule, Scaling
from s3lora.adapter.tensor import ArrayTensor
from s3lora.base.weights import BaseWeights
from s3lora.errors import AdapterFileError, ModelError, S3LoRAError, UnsupportedAdapterError, UsageError
from tests.repair.pairs import model_folder
from tests.support import dtype_of, factors, write_safetensors


def module(path: str, m: int, n: int) -> LoraModule:
    a, b = factors(m, n, 1)
    return LoraModule(
        path, Factor(ArrayTensor("a", a), (1, n)), Factor(ArrayTensor("b", b), (m, 1)), Scaling(1.0, "memory")
    )


def weight(m: int = 3, n: int = 4, dtype: str = "float32") -> Any:
    return np.arange(m * n).reshape(m, n).astype(dtype_of(dtype))


@pytest.mark.parametrize("stored", ["model.layers.0.q", "layers.0.q", "language_model.model.layers.0.q"])
@pytest.mark.parametrize("asked", ["model.layers.0.q", "layers.0.q"])
def test_a_part_before_the_name_may_be_there_or_not(tmp_path: Path, stored: str, asked: str) -> None:
    folder = model_folder(tmp_path, {f"{stored}.weight": weight(), "other.weight": weight(2, 2)})
    with BaseWeights(folder) as base:
        if asked.count(".") + 1 < stored.count("."):
            with pytest.raises(UnsupportedAdapterError, match="no weight of this name"):
                base.matrix(module(asked, 3, 4))
        else:
            assert np.array_equal(base.matrix(module(asked, 3, 4)), weight())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_weights_are_read_in_their_dtype(tmp_path: Path, dtype: str) -> None:
    with BaseWeights(model_folder(tmp_path, {"a.weight": weight(dtype=dtype)})) as base:
        found = base.matrix(module("a", 3, 4))
        assert found.dtype == dtype_of(dtype)
        assert np.array_equal(found.astype(np.float64), weight().astype(np.float64))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int8", "uint8"])
def test_weights_that_need_scales_are_refused(tmp_path: Path, dtype: str) -> None:
    folder = model_folder(tmp_path, {"a.weight": weight(dtype=dtype)})
    with BaseWeights(folder) as base, pytest.raises(UnsupportedAdapterError, match=f"a .*stored as {dtype}; give"):
        base.matrix(module("a", 3, 4))


def test_of_several_weights_that_may_be_meant_none_is_taken(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {"text.layers.0.q.weight": weight(), "image.layers.0.q.weight": weight()})
    with BaseWeights(folder) as base, pytest.raises(UnsupportedAdapterError, match="2 weights that may be meant"):
        base.matrix(module("layers.0.q", 3, 4))


def test_a_fused_weight_and_another_shape_name_the_module(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"num_attention_heads": 1, "hidden_size": 4, "model_type": "unheard-of"}
    folder = model_folder(tmp_path, {"layers.0.qkv_proj.weight": weight(9, 4)}, **fields)
    with BaseWeights(folder) as base:
        with pytest.raises(UnsupportedAdapterError, match=r"layers\.0\.q_proj .*is not known of unheard-of"):
            base.matrix(module("layers.0.q_proj", 3, 4))
        with pytest.raises(UnsupportedAdapterError, match=r"layers\.0\.o_proj.*no weight of this name"):
            base.matrix(module("layers.0.o_proj", 3, 4))
        with pytest.raises(UnsupportedAdapterError, match=r"qkv_proj \(9 × 4\): .*changes one of 3 × 4"):
            base.matrix(module("layers.0.qkv_proj", 3, 4))


def test_weights_stored_the_other_way_are_turned(tmp_path: Path) -> None:
    weights = {"a.weight": weight(4, 3), "b.weight": weight(3, 3)}
    for kind, square in (("llama", weight(3, 3)), ("gpt2", weight(3, 3).T), (["gpt2"], weight(3, 3))):
        with BaseWeights(model_folder(tmp_path, weights, model_type=kind)) as base:
            assert np.array_equal(base.matrix(module("a", 3, 4)), weight(4, 3).T)
            assert np.array_equal(base.matrix(module("b", 3, 3)), square)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("path", ["layers.0.mlp.experts.1.down_proj", "layers.0.mlp.experts.down_proj.1"])
def test_an_expert_is_found_in_the_weight_of_all(tmp_path: Path, path: str, turned: bool) -> None:
    whole = np.arange(3 * 4 * 5).reshape(3, 4, 5).astype(np.float32)
    stored = whole.transpose(0, 2, 1).copy() if turned else whole
    asked = dataclasses.replace(module(path, 4, 5), expert=1)
    with BaseWeights(model_folder(tmp_path, {"model.layers.0.mlp.experts.down_proj": stored})) as base:
        assert np.array_equal(base.matrix(asked), whole[1])
        far = dataclasses.replace(module(path.replace("1", "7"), 4, 5), expert=7)
        with pytest.raises(UnsupportedAdapterError, match="no weight of this name"):
            base.matrix(far)
    stored = np.arange(3 * 4 * 4).reshape(3, 4, 4).astype(np.float32)
    asked = dataclasses.replace(module(path, 4, 4), expert=1)
    for kind, wanted in (("qwen3_moe", stored[1]), ("llama4", stored[1].T)):
        square = model_folder(tmp_path / kind, {"layers.0.mlp.experts.down_proj": stored}, model_type=kind)
        with BaseWeights(square) as base:
            assert np.array_equal(base.matrix(asked), wanted)
    square = model_folder(tmp_path / "square", {"layers.0.mlp.experts.down_proj": stored}, model_type="unheard-of")
    with (
        BaseWeights(square) as base,
        pytest.raises(UnsupportedAdapterError, match="way they lie is not known of"),
    ):
        base.matrix(asked)


def test_language_models_within_others_are_found(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {"model.language_model.layers.0.q.weight": weight()})
    with BaseWeights(folder) as base:
        assert np.array_equal(base.matrix(module("model.layers.0.q", 3, 4)), weight())


def test_kohyas_names_and_convolutions_are_found(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {"down.0.conv_in.weight": weight(3, 8).reshape(3, 2, 2, 2)})
    with BaseWeights(folder) as base:
        asked = dataclasses.replace(module("lora_unet_down_0_conv_in", 3, 8), kind="conv")
        assert np.array_equal(base.matrix(asked), weight(3, 8))


def test_a_real_gpt2_is_turned_as_its_layers_multiply(tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path)
    x = torch.arange(8.0)
    with BaseWeights(str(tmp_path)) as base:
        for name, m in (("attn.c_proj", 8), ("attn.c_attn", 24)):
            layer = model.get_submodule(f"transformer.h.0.{name}")
            with torch.no_grad():
                expected = (layer(x[None]) - layer.bias)[0].numpy()
            found = base.matrix(module(f"transformer.h.0.{name}", m, 8))
            assert np.allclose(found @ x.numpy(), expected, atol=1e-5), name


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    table = {"a.weight": "one.safetensors", "b.weight": "two.safetensors"}
    write_safetensors(tmp_path / "one.safetensors", {"a.weight": weight()})
    write_safetensors(tmp_path / "two.safetensors", {"b.weight": weight(2, 5)})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    with BaseWeights(str(tmp_path)) as base:
        assert np.array_equal(base.matrix(module("b", 2, 5)), weight(2, 5))
        assert np.array_equal(base.matrix(module("a", 3, 4)), weight())


@pytest.mark.parametrize("place", ["../model.safetensors", "/etc/passwd"])
def test_an_index_names_no_file_outside(tmp_path: Path, place: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a.weight": place}}))
    with pytest.raises(AdapterFileError, match="outside the folder"):
        BaseWeights(str(tmp_path))


def test_a_damaged_file_is_refused_and_closed(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {"a.weight": weight()})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(AdapterFileError, match="truncated"):
        BaseWeights(folder)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(AdapterFileError, match="Git LFS pointer"):
        BaseWeights(folder)


def test_a_name_is_looked_for_in_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    model_folder(snapshot, {"a.weight": weight()})
    refs = tmp_path / "models--some--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with BaseWeights("some/model") as base:
        assert np.array_equal(base.matrix(module("a", 3, 4)), weight())
    with pytest.raises(ModelError, match=r"some/other: .*not in the cache.*hf download some/other"):
        BaseWeights("some/other")


@pytest.mark.parametrize(
    ("base", "error", "says"),
    [
        ("", UsageError, "empty name"),
        ("demo", ModelError, "GGUF"),
        ("no/such/folder", ModelError, "no model folder is there"),
        ("x.gguf", ModelError, "GGUF"),
        ("\0", ModelError, "no model folder is there"),
    ],
)
def test_what_is_no_model_folder_is_one_sentence(base: str, error: type[S3LoRAError], says: str) -> None:
    with pytest.raises(error, match=says):
        BaseWeights(base)


def test_a_folder_without_weights_says_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"model\.safetensors or model\.safetensors\.index\.json"):
        BaseWeights(str(tmp_path))


def test_a_long_matrix_is_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3lora.adapter.tensors.LONG", 40)
    folder = model_folder(tmp_path, {"a.weight": weight(5, 4), "b.weight": weight(4, 5)})
    with BaseWeights(folder) as base:
        for name, whole in (("a", weight(5, 4)), ("b", weight(4, 5).T)):
            found = base.matrix(module(name, 5, 4))
            assert not isinstance(found, np.ndarray)
            assert np.array_equal(found[1:3], whole[1:3])
            assert np.array_equal(np.asarray(found), whole)
