"""Real PEFT: a repaired adapter loads without a warning, and computes the base plus the new updates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import open_adapter, restore
from s3lora.rewrite.factors import NewFactor, NewFactors, rounded
from s3lora.rewrite.repair_record import RepairFields
from s3lora.rewrite.repaired import write_repaired
from s3lora.rewrite.truncate import truncate
from tests.peft_models import difference, gpt2, llama, load, logits, save, torch, warnings_as_errors
from tests.planning import config_of

TOLERANCE = 1e-5
TARGETS = {"target_modules": ["q_proj", "v_proj", "down_proj"]}
PATTERNS = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.v_proj": 5}}
HOW = RepairFields(method="patch", strength=1.0)


def patched(folder: Path, more: int = 2, every: int = 1) -> tuple[NewFactors, dict[str, np.ndarray]]:
    """Return random factors beside those of the adapter, for one of `every` modules, and ΔW′ of all in float64."""
    random = np.random.default_rng(5)
    made: dict[str, NewFactor] = {}
    updates = {}
    with open_adapter(folder) as adapter:
        for i, module in enumerate(adapter.modules):
            a, b = module.A.array().astype(np.float64), module.B.array().astype(np.float64)
            if i % every == 0:
                a = np.vstack((a, 0.3 * random.standard_normal((more, module.n))))
                b = np.hstack((b, 0.3 * random.standard_normal((module.m, more))))
                made[module.path] = rounded(module, a, b)
                a, b = made[module.path].A.astype(np.float64), made[module.path].B.astype(np.float64)
            updates[module.path] = module.scaling.value * b @ a
    return NewFactors(made), updates


def expected(updates: Mapping[str, np.ndarray]) -> Any:
    """Return the logits of the base with the updates added to its weights in float64, rounded to float32."""
    model = llama()
    for path, update in updates.items():
        weight = model.get_submodule(path).weight
        weight.data = (weight.data.double() + torch.from_numpy(update)).float()
    return logits(model)


def write(folder: Path, made: NewFactors, out: Path, **keywords: Any) -> Path:
    with open_adapter(folder) as adapter:
        write_repaired(adapter, made, HOW, out, **keywords)
    return out


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, PATTERNS, {**PATTERNS, "use_rslora": True}])
def test_a_patch_of_rank_2_loads_and_computes(tmp_path: Path, config, every: int):
    full = save(tmp_path / "full", llama, **TARGETS, **config)
    made, updates = patched(full, every=every)
    out = write(full, made, tmp_path / "out")
    wanted = expected(updates)
    for low in (False, True):
        model = load(out, llama, low_cpu_mem_usage=low)
        assert difference(logits(model), wanted) < TOLERANCE
    assert difference(logits(load(full, llama)), wanted) > 100 * TOLERANCE  # the test can see the patch
    assert difference(logits(load(out, llama).merge_and_unload()), wanted) < TOLERANCE
    with warnings_as_errors():
        load(out, llama).save_pretrained(tmp_path / "again")
        other = llama()
        other.load_adapter(str(out))
    assert difference(logits(load(tmp_path / "again", llama)), wanted) < TOLERANCE
    assert difference(logits(other), wanted) < TOLERANCE


def test_an_alpha_that_is_no_whole_number(tmp_path: Path):
    full = save(tmp_path / "full", llama, **TARGETS, r=6, lora_alpha=4)
    made, updates = patched(full)
    out = write(full, made, tmp_path / "out")
    assert config_of(out)["lora_alpha"] == pytest.approx(16 / 3)
    assert difference(logits(load(out, llama)), expected(updates)) < TOLERANCE


@pytest.mark.parametrize("loader", ["peft", "vllm", "llamacpp"])
def test_a_baked_patch(tmp_path: Path, loader: str):
    full = save(tmp_path / "full", llama, **TARGETS, **PATTERNS)
    fields = config_of(full) | {"base_model_name_or_path": "some/model"}
    (full / "adapter_config.json").write_text(json.dumps(fields))
    made, updates = patched(full, every=2)
    out = write(full, made, tmp_path / "out", loader=loader, bake=True)
    assert difference(logits(load(out, llama)), expected(updates)) < TOLERANCE


def test_the_same_rank_swaps_into_a_running_model(tmp_path: Path):
    from peft.utils.hotswap import hotswap_adapter

    full = save(tmp_path / "full", llama, **TARGETS)
    made, _ = patched(full)
    with open_adapter(full) as adapter:
        kept, lost = truncate(made, adapter)
        updates = {
            m.path: m.scaling.value * kept.modules[m.path].B.astype(float) @ kept.modules[m.path].A.astype(float)
            for m in adapter.modules
        }
    assert 0 < lost < 0.5
    out = write(full, kept, tmp_path / "out")
    assert config_of(out) == config_of(full)
    model = load(full, llama)
    hotswap_adapter(model, str(out), adapter_name="default")
    assert difference(logits(model), expected(updates)) < TOLERANCE


def test_a_bias_and_a_head_come_along(tmp_path: Path):
    full = save(tmp_path / "full", gpt2, target_modules=["c_attn"], lora_bias=True, modules_to_save=["ln_f"])
    made, _ = patched(full)
    halved = NewFactors({path: NewFactor(new.A, new.B, 0.5) for path, new in made.modules.items()})
    model, before = load(write(full, halved, tmp_path / "out"), gpt2), load(full, gpt2)
    layers = {path: model.base_model.model.get_submodule(path) for path in made.modules}
    for path, layer in layers.items():
        old = before.base_model.model.get_submodule(path).lora_B["default"].bias
        assert torch.equal(layer.lora_B["default"].bias, old * 0.5)
        assert layer.lora_A["default"].weight.shape[0] == made.modules[path].rank
    heads = [one.base_model.model.transformer.ln_f.modules_to_save["default"].weight for one in (model, before)]
    assert torch.equal(*heads)


def test_some_modules_back_load_and_compute(tmp_path: Path):
    full = save(tmp_path / "full", llama, **TARGETS)
    made, updates = patched(full)
    out = write(full, made, tmp_path / "out")
    path = "model.layers.1.self_attn.v_proj"
    restore(out, full, tmp_path / "some", modules=[path])
    with open_adapter(full) as adapter:
        module = next(one for one in adapter.modules if one.path == path)
        updates[path] = module.scaling.value * module.B.array().astype(float) @ module.A.array().astype(float)
    assert difference(logits(load(tmp_path / "some", llama)), expected(updates)) < TOLERANCE


def test_orthogonal_beginnings_load_at_an_odd_rank(tmp_path: Path):
    full = save(tmp_path / "full", llama, **TARGETS, init_lora_weights="orthogonal")
    made, updates = patched(full, more=1)
    assert difference(logits(load(write(full, made, tmp_path / "out"), llama)), expected(updates)) < TOLERANCE
