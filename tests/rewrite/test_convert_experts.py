"""Experts, fused or not, for MLX and llama.cpp: held against each expert's weight, made here from what the file has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import UnsupportedAdapterError, convert, open_adapter, resize, write_converted, write_sum
from tests.rewrite.converting import PREFIX, UPDATE, converted, gguf_content, peft_folder
from tests.rewrite.converting import stored as tensors_of
from tests.support import make_adapter, write_safetensors

E, F, H, R = 3, 10, 12, 2  # experts, rows of gate and of up, hidden size, rank
LAYER = "model.layers.0.mlp.experts"
CONFIG: dict[str, Any] = {
    "model_type": "qwen3_moe", "hidden_size": H, "intermediate_size": 16, "moe_intermediate_size": F,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "vocab_size": 20,
    "num_experts": E, "num_local_experts": E,
}  # fmt: skip


def base(folder: Path, **fields: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **fields}))
    return folder


def fused(folder: Path, *, turned: bool = False, both: bool = True, sizes: tuple[int, int] = (F, H)) -> UPDATE:
    """Write an adapter of PEFT's `target_parameters`; return what it adds to gate, up and down of each expert.

    lora_A (r·E, n) has one expert after the other, lora_B (m, r·E) the expert fastest; `turned` as PEFT takes the
    sizes of a weight of (E, outputs, inputs) for (E, inputs, outputs).
    """
    rows, columns = sizes
    rng = np.random.default_rng(5)
    tensors, updates = {}, {}
    names = {"gate_up_proj": (2 * rows, columns), "down_proj": (columns, rows)}
    for name, (m, n) in names.items():
        if name == "gate_up_proj" and not both:
            continue
        m, n = (n, m) if turned else (m, n)
        a = rng.standard_normal((R * E, n)).astype(np.float32)
        b = rng.standard_normal((m, R * E)).astype(np.float32)
        inner = f"{PREFIX}{LAYER}.base_layer" if name == "gate_up_proj" else f"{PREFIX}{LAYER}"
        tensors |= {f"{inner}.lora_A.weight": a, f"{inner}.lora_B.weight": b}
        for i in range(E):
            found = 3 / R * b.reshape(m, R, E)[:, :, i].astype(np.float64) @ a[i * R : (i + 1) * R]
            found = found.T if turned else found
            halves = {"gate_proj": found[:rows], "up_proj": found[rows:]} if name == "gate_up_proj" else {name: found}
            updates.update({f"{i}.{half}": update for half, update in halves.items()})
    folder.mkdir(parents=True)
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    targets = [f"mlp.experts.{name}" for name in names if both or name == "down_proj"]
    config = {"peft_type": "LORA", "r": R, "lora_alpha": 3, "target_modules": [], "target_parameters": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return updates


def in_mlx(folder: Path, layer: str = "model.layers.0.mlp") -> UPDATE:
    tensors = tensors_of(folder / "adapters.safetensors")
    scale = json.loads((folder / "adapter_config.json").read_text())["lora_parameters"]["scale"]
    found = {}
    for name, a in tensors.items():
        if name.endswith(".lora_a"):
            assert name.startswith(f"{layer}.switch_mlp.")
            b = tensors[f"{name[:-1]}b"].astype(np.float64)
            found.update({f"{i}.{name.split('.')[-2]}": scale * b[i] @ a[i] for i in range(len(a))})
    return found


def in_gguf(folder: Path, architecture: str) -> UPDATE:
    keys, tensors = gguf_content(folder / "adapter.gguf")
    assert keys["general.architecture"] == architecture
    found = {}
    for half, name in (("gate_proj", "ffn_gate_exps"), ("up_proj", "ffn_up_exps"), ("down_proj", "ffn_down_exps")):
        if f"blk.0.{name}.weight.lora_a" in tensors:
            a, b = (tensors[f"blk.0.{name}.weight.lora_{side}"] for side in "ab")
            scale = keys["adapter.lora.alpha"] / a.shape[1]
            found.update({f"{i}.{half}": scale * b[i].astype(np.float64) @ a[i] for i in range(len(a))})
    return found


def same(found: UPDATE, wanted: UPDATE) -> None:
    assert found.keys() == wanted.keys()
    for name, update in wanted.items():
        assert np.linalg.norm(found[name] - update) < 1e-6 * np.linalg.norm(update), name


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("both", [False, True])
def test_fused_experts(tmp_path: Path, turned: bool, both: bool):
    updates = fused(tmp_path / "in", turned=turned, both=both)
    config = base(tmp_path / "base")
    assert converted(tmp_path / "in", tmp_path / "mlx", "mlx", base=config).difference < 1e-6
    same(in_mlx(tmp_path / "mlx"), updates)
    record = converted(tmp_path / "in", tmp_path / "gguf", "gguf", base=config)
    assert record.difference < 1e-6
    assert record.modules == (2 * E if both else E)
    same(in_gguf(tmp_path / "gguf", "qwen3moe"), updates)
    converted(tmp_path / "gguf", tmp_path / "back", "mlx")
    same(in_mlx(tmp_path / "back"), updates)


def test_mixtral_has_other_names_in_mlx_and_its_old_names_are_known(tmp_path: Path):
    updates = fused(tmp_path / "in")
    config = base(tmp_path / "base", model_type="mixtral", intermediate_size=F)
    converted(tmp_path / "in", tmp_path / "mlx", "mlx", base=config)
    same(in_mlx(tmp_path / "mlx", "model.layers.0.block_sparse_moe"), updates)
    converted(tmp_path / "in", tmp_path / "gguf", "gguf", base=config)
    same(in_gguf(tmp_path / "gguf", "llama"), updates)
    old = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    ranks = {f"model.layers.0.block_sparse_moe.experts.{i}.{name}": R + i for i in range(E) for name in old}
    source, made = peft_folder(tmp_path / "old", ranks)
    wanted = {f"{path.split('.')[5]}.{old[path.rpartition('.')[2]]}": update for path, update in made.items()}
    converted(source, tmp_path / "old-mlx", "mlx")
    same(in_mlx(tmp_path / "old-mlx", "model.layers.0.block_sparse_moe"), wanted)
    converted(source, tmp_path / "old-gguf", "gguf", base=config)
    same(in_gguf(tmp_path / "old-gguf", "llama"), wanted)


@pytest.mark.parametrize("to", ["mlx", "gguf"])
def test_experts_without_an_update_are_zeros_where_their_number_is_known(tmp_path: Path, to: str):
    source, made = peft_folder(tmp_path / "in", {f"{LAYER}.1.up_proj": 4})
    record = converted(source, tmp_path / "out", to, base=base(tmp_path / "base"))
    found = in_mlx(tmp_path / "out") if to == "mlx" else in_gguf(tmp_path / "out", "qwen3moe")
    assert (record.difference, len(found)) == (0, E)
    assert np.linalg.norm(found.pop("1.up_proj") - made[f"{LAYER}.1.up_proj"]) < 1e-6
    assert not any(update.any() for update in found.values())


def test_what_a_file_does_not_say_is_refused(tmp_path: Path):
    fused(tmp_path / "both")
    fused(tmp_path / "one", both=False)
    fused(tmp_path / "square", both=False, sizes=(H, H))
    fused(tmp_path / "odd", sizes=(F + 1, H))
    qwen, oss = base(tmp_path / "base"), base(tmp_path / "oss", model_type="gpt_oss", intermediate_size=F)
    square = base(tmp_path / "squares", moe_intermediate_size=H)
    many, _ = peft_folder(tmp_path / "many", {f"{LAYER}.{i}.up_proj": 2 for i in range(E + 1)})
    for name, config, why in (
        ("both", None, "nothing says which rows are which"),
        ("one", None, "nothing says which way it lies"),
        ("square", square, "is fused and square"),
        ("odd", qwen, "which the base's 20 × 12 is not either way"),
        ("both", oss, "in an order that is not known of gpt_oss"),
        ("many", qwen, "is no expert of the base, which has 3"),
    ):
        with pytest.raises(UnsupportedAdapterError, match=why) as refused:
            converted(tmp_path / name, tmp_path / "out", "mlx", base=config)
        assert not (tmp_path / "out").exists()
        assert (config is None) == ("base=" in str(refused.value.fix))
    assert many.exists()


@pytest.mark.parametrize("turned", [False, True])
def test_fused_experts_become_one_each_in_peft(tmp_path: Path, turned: bool):
    """They then add up, and get another rank."""
    updates = fused(tmp_path / "in", turned=turned)
    config = base(tmp_path / "base")
    record = converted(tmp_path / "in", tmp_path / "out", "peft", base=config)
    assert (record.difference < 1e-6, record.modules) == (True, 2 * E)
    with open_adapter(tmp_path / "out") as adapter:
        assert all(module.group is None for module in adapter.modules)
        assert "target_parameters" not in (adapter.config or {})
        found = {module.path.partition(".experts.")[2]: module for module in adapter.modules}
        made = {name: one.scaling.value * one.B.array().astype(float) @ one.A.array() for name, one in found.items()}
    same(made, updates)
    resize(tmp_path / "out", tmp_path / "small", rank=1)
    with open_adapter(tmp_path / "small") as adapter:
        assert {module.rank for module in adapter.modules} == {1}
    write_sum([tmp_path / "out", tmp_path / "out"], tmp_path / "sum")
    for refused in (resize, lambda path, out, rank: write_sum([path, path], out)):
        with pytest.raises(UnsupportedAdapterError, match=r"one each first: .*convert .*--to peft --base FOLDER"):
            refused(tmp_path / "in", tmp_path / "no", rank=1)
    assert converted(tmp_path / "in", tmp_path / "kept", "peft").modules == 2 * E
    fused(tmp_path / "square", both=False, sizes=(H, H))
    with pytest.raises(UnsupportedAdapterError, match="fused and square"):
        converted(tmp_path / "square", tmp_path / "no", "peft", base=base(tmp_path / "other", moe_intermediate_size=H))


def test_baking_never_gives_experts_the_rank_of_others(tmp_path: Path) -> None:
    """Newer loaders stack experts by the rank of the whole configuration."""
    paths = {f"{LAYER}.{i}.{name}": (F, H, R) for i in range(E) for name in ("gate_proj", "up_proj")}
    more = {"model.layers.0.self_attn.q_proj": (H, H, 4)}
    source = make_adapter(tmp_path / "a", {**paths, **more}, config={"r": R, "rank_pattern": {"q_proj": 4}})
    with pytest.raises(UnsupportedAdapterError, match="one update an expert"):
        convert(source, "peft", bake=True)
    made = write_converted(convert(source, "peft", bake=True, pad=4), tmp_path / "b")
    assert made
    with open_adapter(tmp_path / "b") as adapter:
        assert {module.rank for module in adapter.modules} == {4}


def test_an_output_layer_that_is_tied_has_no_place_in_llama_cpp(tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a", {"model.layers.0.self_attn.q_proj": (18, H, R), "lm_head": (20, H, R)})
    apart = base(tmp_path / "apart", tie_word_embeddings=False)
    assert convert(source, "gguf", base=apart)
    with pytest.raises(UnsupportedAdapterError, match="is tied to the embeddings"):
        convert(source, "gguf", base=base(tmp_path / "tied", tie_word_embeddings=True))


def test_a_sum_never_gives_experts_several_ranks(tmp_path: Path) -> None:
    paths = {f"{LAYER}.{i}.down_proj": (H, F, R) for i in range(E)}
    make_adapter(tmp_path / "a", paths)
    make_adapter(tmp_path / "b", dict([*paths.items()][1:]), seed=1)
    with pytest.raises(UnsupportedAdapterError, match="one update an expert"):
        write_sum([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    write_sum([tmp_path / "a", tmp_path / "b"], tmp_path / "out", rank=R)
    with open_adapter(tmp_path / "out") as adapter:
        assert {module.rank for module in adapter.modules} == {R}
