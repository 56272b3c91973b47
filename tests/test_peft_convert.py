"""Real PEFT: a converted adapter loads without a warning, and computes what the original does."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3lora
from tests.peft_models import difference, gpt2, layers, llama, load, logits, peft, qwen3_moe, save, torch
from tests.rewrite.converting import stored
from tests.rewrite.test_convert_products import kohya, products, update
from tests.support import write_safetensors

TOLERANCE = 1e-5
MIXED = {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 5},
         "use_rslora": True}  # fmt: skip


def convert_to(source: Path, out: Path, to: str = "peft", **wishes: Any) -> Path:
    with s3lora.open_adapter(source) as adapter:
        s3lora.write_converted(s3lora.convert(adapter, to, **wishes), out)
    return out


@pytest.mark.parametrize("wishes", [{}, {"bake": True}, {"pad": 0}, {"pad": 6, "bake": True}], ids=str)
def test_mixed_ranks(tmp_path: Path, wishes: dict[str, Any]):
    full = save(tmp_path / "full", llama, **MIXED)
    expected = logits(load(full, llama))
    model = load(convert_to(full, tmp_path / "out", **wishes), llama)
    assert difference(logits(model), expected) < TOLERANCE
    assert difference(logits(llama()), expected) > 100 * TOLERANCE


def test_nothing_is_built_that_the_file_lacks(tmp_path: Path):
    """Of a layer that was not trained PEFT would leave the factors without values, where it loads without a copy."""
    full = save(tmp_path / "full", llama, target_modules=["q_proj"], layers_to_transform=[0], layers_pattern="layers")
    out = convert_to(convert_to(full, tmp_path / "mlx", "mlx"), tmp_path / "out")
    model = load(out, llama, low_cpu_mem_usage=True)
    assert layers(model) == {"model.layers.0.self_attn.q_proj"}
    assert not [name for name, one in model.named_parameters() if one.device.type == "meta"]
    assert difference(logits(model), logits(load(full, llama))) < TOLERANCE


def test_conv1d_with_bias(tmp_path: Path):
    full = save(tmp_path / "full", gpt2, target_modules=["c_attn"], lora_bias=True, fan_in_fan_out=True)
    model = load(convert_to(full, tmp_path / "out", bake=True), gpt2)
    assert difference(logits(model), logits(load(full, gpt2))) < TOLERANCE


@pytest.mark.parametrize("wishes", [{}, {"bake": True}, {"pad": 6}], ids=str)
def test_fused_experts(tmp_path: Path, wishes: dict[str, Any]):
    names = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    full = save(tmp_path / "full", qwen3_moe, target_modules=["q_proj"], target_parameters=names)
    expected = logits(load(full, qwen3_moe))
    model = load(convert_to(full, tmp_path / "out", **wishes), qwen3_moe)
    assert difference(logits(model), expected) < TOLERANCE


def test_fused_experts_of_mlx_are_what_peft_merges(tmp_path: Path):
    names = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    full = save(tmp_path / "full", qwen3_moe, target_modules=["q_proj"], target_parameters=names)
    base = qwen3_moe()
    base.config.save_pretrained(tmp_path / "base")
    merged = load(full, qwen3_moe).merge_and_unload()
    out = convert_to(full, tmp_path / "mlx", "mlx", base=tmp_path / "base")
    tensors = stored(out / "adapters.safetensors")
    scale = json.loads((out / "adapter_config.json").read_text())["lora_parameters"]["scale"]
    for i, (before, after) in enumerate(zip(base.model.layers, merged.model.layers, strict=True)):
        for name in ("gate_up_proj", "down_proj"):
            change = (getattr(after.mlp.experts, name) - getattr(before.mlp.experts, name)).detach().numpy()
            parts = ("gate_proj", "up_proj") if name == "gate_up_proj" else (name,)
            keys = [f"model.layers.{i}.mlp.switch_mlp.{part}" for part in parts]
            found = np.concatenate([scale * tensors[f"{k}.lora_b"] @ tensors[f"{k}.lora_a"] for k in keys], axis=1)
            assert np.abs(change).max() > 100 * TOLERANCE
            assert np.allclose(found, change, atol=TOLERANCE)


def test_dora_by_way_of_mlx(tmp_path: Path):
    full = save(tmp_path / "full", llama, target_modules=["q_proj", "down_proj"], use_dora=True)
    model = load(convert_to(convert_to(full, tmp_path / "mlx", "mlx"), tmp_path / "out"), llama)
    assert difference(logits(model), logits(load(full, llama))) < TOLERANCE
    plain = load(
        convert_to(save(tmp_path / "plain", llama, target_modules=["q_proj", "down_proj"]), tmp_path / "lora"), llama
    )
    assert difference(logits(model), logits(plain)) > 100 * TOLERANCE


def test_another_format(tmp_path: Path):
    full = save(tmp_path / "full", llama, target_modules=["q_proj", "down_proj"])
    folder = tmp_path / "mlx"
    folder.mkdir()
    with s3lora.open_adapter(full) as adapter:
        tensors = {}
        for module in adapter.modules:
            tensors[f"{module.path}.lora_a"] = np.ascontiguousarray(module.A.array().T)
            tensors[f"{module.path}.lora_b"] = np.ascontiguousarray(module.B.array().T)
    write_safetensors(folder / "adapters.safetensors", tensors)
    config = {"lora_parameters": {"rank": 4, "scale": 2.0}, "num_layers": 3}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    model = load(convert_to(folder, tmp_path / "out"), llama)
    assert difference(logits(model), logits(load(full, llama))) < TOLERANCE
    assert len(layers(model)) == 6


def test_loha_of_lycoris(tmp_path: Path):
    attention = torch.nn.ModuleDict({f"to_{name}": torch.nn.Linear(20, 12, bias=False) for name in "qkv"})
    blocks = torch.nn.ModuleList([torch.nn.ModuleDict({"attn1": attention})])
    attentions = torch.nn.ModuleList([torch.nn.ModuleDict({"transformer_blocks": blocks})])
    unet = torch.nn.ModuleDict({"mid_block": torch.nn.ModuleDict({"attentions": attentions})})
    before = {name: value.detach().clone() for name, value in unet.named_parameters()}
    made = products("loha")
    convert_to(kohya(tmp_path / "in.safetensors", made, 5), tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged = peft.PeftModel.from_pretrained(unet, tmp_path / "out").merge_and_unload()
    after = dict(merged.named_parameters())
    for path, parts in made.items():
        name = f"{path.removeprefix('unet.')}.weight"
        wanted = 5 / len(parts["hada_w1_b"]) * update(parts)
        assert np.allclose((after[name] - before[name]).detach().numpy(), wanted, atol=TOLERANCE)
