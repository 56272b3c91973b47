"""Weights that a base stores as parts of larger ones, or under other names; against how the models' code splits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.base.weights import BaseWeights
from s3lora.errors import UnsupportedAdapterError
from tests.base.test_weights import module
from tests.repair.pairs import model_folder

HEADS, KV, SIZE = 4, 2, 3
HIDDEN = HEADS * SIZE
Parts = dict[str, Any]


def parts(kv: int) -> Parts:
    """Return the rows of q, k and v, each number its own."""
    numbers = iter(range(10_000))
    counts = {"q": HEADS, "k": kv, "v": kv}
    return {
        part: np.array([next(numbers) for _ in range(count * SIZE * HIDDEN)], np.float32).reshape(-1, HIDDEN)
        for part, count in counts.items()
    }


def whole(made: Parts) -> Any:
    return np.concatenate([made[part] for part in "qkv"])


def by_head(made: Parts) -> Any:
    heads = [made[part].reshape(HEADS, SIZE, HIDDEN) for part in "qkv"]
    return np.concatenate([one[i] for i in range(HEADS) for one in heads])


def by_group(made: Parts) -> Any:
    q, k, v = (made[part].reshape(-1, SIZE, HIDDEN) for part in "qkv")
    each = HEADS // KV
    groups = [[*q[g * each : (g + 1) * each], k[g], v[g]] for g in range(KV)]
    return np.concatenate([head for group in groups for head in group])


CONFIG = {"num_attention_heads": HEADS, "hidden_size": HIDDEN}
FALCON = {**CONFIG, "model_type": "falcon"}
CASES: dict[str, tuple[dict[str, Any], str, int, Any]] = {
    "phi3": ({**CONFIG, "model_type": "phi3", "num_key_value_heads": KV}, "qkv_proj", KV, whole),
    "gpt2": ({"model_type": "gpt2", "n_head": HEADS, "n_embd": HIDDEN}, "c_attn", HEADS, lambda made: whole(made).T),
    "mpt": ({"model_type": "mpt", "n_heads": HEADS, "d_model": HIDDEN}, "Wqkv", HEADS, whole),
    "gpt_neox": ({**CONFIG, "model_type": "gpt_neox"}, "query_key_value", HEADS, by_head),
    "bloom": ({"model_type": "bloom", "n_head": HEADS, "hidden_size": HIDDEN}, "query_key_value", HEADS, by_head),
    "falcon, one": (FALCON, "query_key_value", 1, whole),
    "falcon, all": ({**FALCON, "multi_query": False}, "query_key_value", HEADS, by_head),
    "falcon, new": (
        {**FALCON, "new_decoder_architecture": True, "num_kv_heads": KV}, "query_key_value", KV, by_group,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_q_k_and_v_of_a_fused_weight(tmp_path: Path, case: str) -> None:
    config, name, kv, joined = CASES[case]
    made = parts(kv)
    stored = np.ascontiguousarray(joined(made))
    with BaseWeights(model_folder(tmp_path, {f"h.0.attn.{name}.weight": stored}, **config)) as base:
        for part, rows in made.items():
            for path in (f"h.0.attn.{part}_proj", f"h.0.attn.{name}.{part}"):
                assert np.array_equal(base.matrix(module(path, len(rows), HIDDEN))[:], rows), path
    short = model_folder(tmp_path / "b", {f"h.0.attn.{name}.weight": stored[:-1, :-1]}, **config)
    told = r"of \d+ rows, where the configuration tells"
    with BaseWeights(short) as base, pytest.raises(UnsupportedAdapterError, match=told):
        base.matrix(module("h.0.attn.q_proj", HIDDEN, HIDDEN))


def test_the_code_of_falcon_and_bloom_splits_so() -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    rows = {kind: torch.from_numpy(CASES[kind][3](parts(CASES[kind][2]))[:, 0]) for kind in CASES}
    for kind in ("falcon, one", "falcon, all", "falcon, new"):
        config = transformers.FalconConfig(**{**CASES[kind][0], "vocab_size": 5, "num_hidden_layers": 1})
        layer = transformers.models.falcon.modeling_falcon.FalconAttention(config, layer_idx=0)
        for part, found in zip("qkv", layer._split_heads(rows[kind][None, None]), strict=True):
            heads = found[0, 0].reshape(-1, SIZE).numpy()
            wanted = parts(CASES[kind][2])[part][:, 0].reshape(-1, SIZE)
            for head in heads:  # the new architecture repeats k and v for each head of q
                assert (head == wanted).all(axis=1).any()
    config = transformers.BloomConfig(hidden_size=HIDDEN, n_head=HEADS, vocab_size=5, n_layer=1)
    layer = transformers.models.bloom.modeling_bloom.BloomAttention(config, layer_idx=0)
    for part, found in zip("qkv", layer._reshape(rows["bloom"][None, None]), strict=True):
        assert np.array_equal(found.reshape(HEADS, SIZE).numpy(), parts(HEADS)[part][:, 0].reshape(HEADS, SIZE))


E, F, H = 3, 4, 5


@pytest.mark.parametrize("kind", ["qwen3_moe", "llama4", "gpt_oss", "unheard-of"])
@pytest.mark.parametrize("square", [False, True])
def test_gate_and_up_of_fused_experts(tmp_path: Path, kind: str, square: bool) -> None:
    hidden = 2 * F if square else H
    gate, up = np.arange(2 * E * F * hidden, dtype=np.float32).reshape(2, E, F, hidden)
    both = np.concatenate([gate, up], axis=1)
    if kind == "gpt_oss":
        both = np.stack([gate, up], axis=2).reshape(E, 2 * F, hidden)
    stored = both if kind in ("qwen3_moe", "unheard-of") else np.ascontiguousarray(both.swapaxes(1, 2))
    tensors = {"model.layers.0.mlp.experts.gate_up_proj": stored}
    with BaseWeights(model_folder(tmp_path, tensors, model_type=kind)) as base:
        for name, wanted in (("gate_proj", gate), ("w1", gate), ("up_proj", up), ("w3", up)):
            for container in ("experts", "switch_mlp"):
                path = f"model.layers.0.mlp.{container}.1.{name}"
                asked = dataclasses.replace(module(path, F, hidden), expert=1)
                if kind == "unheard-of":
                    with pytest.raises(UnsupportedAdapterError, match="is not known of unheard-of"):
                        base.matrix(asked)
                else:
                    assert np.array_equal(base.matrix(asked)[:], wanted[1]), path


def test_a_gate_and_up_that_are_one_layer(tmp_path: Path) -> None:
    both = np.arange(2 * F * H, dtype=np.float32).reshape(2 * F, H)
    for kind, known in (("phi3", True), ("unheard-of", False)):
        with BaseWeights(model_folder(tmp_path / kind, {"mlp.gate_up_proj.weight": both}, model_type=kind)) as base:
            for name, wanted in (("gate_proj", both[:F]), ("up_proj", both[F:])):
                if known:
                    assert np.array_equal(base.matrix(module(f"mlp.{name}", F, H))[:], wanted)
                else:
                    with pytest.raises(UnsupportedAdapterError, match="gate_up_proj, in an order that is not known"):
                        base.matrix(module(f"mlp.{name}", F, H))


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        ("model.layers.0.mlp.switch_mlp.2.down_proj", "model.layers.0.mlp.experts.2.down_proj"),
        ("model.layers.0.mlp.experts.2.w2", "model.layers.0.mlp.experts.2.down_proj"),
        ("model.layers.0.mlp.experts.2.gate_proj", "model.layers.0.block_sparse_moe.experts.2.w1"),
        ("transformer.h.3.attn.qkv.k", "model.layers.3.self_attn.k_proj"),
        ("transformer.h.3.attn.proj", "model.layers.3.self_attn.o_proj"),
        ("transformer.h.3.mlp.fc_2", "model.layers.3.mlp.up_proj"),
        ("transformer.h.3.mlp.fc", "gpt_neox.layers.3.mlp.dense_h_to_4h"),
    ],
)
def test_other_names_of_a_weight(tmp_path: Path, path: str, stored: str) -> None:
    matrix = np.arange(20, dtype=np.float32).reshape(4, 5)
    with BaseWeights(model_folder(tmp_path, {f"{stored}.weight": matrix})) as base:
        assert np.array_equal(base.matrix(module(path, 4, 5))[:], matrix)
