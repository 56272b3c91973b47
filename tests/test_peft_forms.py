"""Real PEFT: LoHa, LoKr, AdaLoRA and VeRA, read as PEFT computes them, and pruned so that it loads them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import Remove, Scale, Zero, convert, open_adapter, scan, write_converted
from s3lora.adapter.memory import from_model
from tests.peft_models import difference, llama, logits, peft, torch, warnings_as_errors
from tests.planning import PREFIX, prune_to

QV = {"target_modules": ["q_proj", "v_proj"]}
Q0, V2 = "model.layers.0.self_attn.q_proj", "model.layers.2.self_attn.v_proj"
KINDS = {
    "loha": lambda: peft.LoHaConfig(r=3, alpha=6, init_weights=False, **QV),
    "loha-patterns": lambda: peft.LoHaConfig(
        r=3,
        alpha=6,
        init_weights=False,
        rank_pattern={"v_proj": 7},
        alpha_pattern={"layers.2.self_attn.v_proj": 5},
        **QV,
    ),
    "lokr": lambda: peft.LoKrConfig(r=2, alpha=6, init_weights=False, **QV),
    "lokr-both": lambda: peft.LoKrConfig(r=1, alpha=3, init_weights=False, decompose_both=True, **QV),
    "lokr-whole": lambda: peft.LoKrConfig(r=16, alpha=6, init_weights=False, **QV),
    "adalora": lambda: peft.AdaLoraConfig(init_r=4, target_r=2, lora_alpha=8, total_step=10, **QV),
    "vera": lambda: peft.VeraConfig(r=4, **QV),
    "vera-wide": lambda: peft.VeraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"]),
}


def filled(kind: str) -> Any:
    """Return a model with an adapter whose trainable parameters are random."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(llama(), KINDS[kind]()).eval()
    random = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=random)
            if "lora_E" in name:
                parameter.data[1] = 0.0
    return model


def saved(kind: str, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filled(kind).save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    with warnings_as_errors():
        # PEFT 0.21 takes AdaLoRA's own rank_pattern for one of LoRA when it looks for entries that match nothing.
        warnings.filterwarnings("ignore", "The following rank_pattern keys did not match", RuntimeWarning)
        return peft.PeftModel.from_pretrained(llama(), folder).eval()


def deltas(model: Any) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """Return ΔW of every layer as PEFT computes it."""
    layers = {
        name.removeprefix(PREFIX): layer for name, layer in model.named_modules() if hasattr(layer, "get_delta_weight")
    }
    return {
        path: layer.get_delta_weight("default").detach().double().numpy()
        for path, layer in layers.items()
        if any("default" in getattr(layer, name) for name in layer.adapter_layer_names)
    }


def ours(folder: Path) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    with open_adapter(folder) as adapter:
        return {
            module.path: module.scaling.value * module.B.array().astype(float) @ module.A.array().astype(float)
            for module in adapter.modules
        }


def same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for path, matrix in wanted.items():
        np.testing.assert_allclose(found[path], matrix, atol=1e-5 * max(1e-3, np.abs(matrix).max()), err_msg=path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_update_is_that_of_peft(tmp_path: Path, kind: str) -> None:
    folder = saved(kind, tmp_path / "a")
    model = load(folder)
    same(ours(folder), deltas(model))
    found = scan(folder)
    assert not found.inventory.dead
    for module in found:
        assert module.indices["frobenius"] == pytest.approx(np.linalg.norm(deltas(model)[module.path]), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", [Remove(), Zero(), Scale(0.5)], ids=lambda mode: mode.name)
def test_peft_loads_what_was_pruned(tmp_path: Path, kind: str, mode: Any) -> None:
    folder = saved(kind, tmp_path / "a")
    out = prune_to(folder, tmp_path / "b", [Q0, V2], mode)
    model = load(folder)
    wanted = deltas(model)
    times = mode.factor if isinstance(mode, Scale) else 0.0
    for path in (Q0, V2):
        wanted[path] = wanted[path] * times
    pruned = load(out)
    found = deltas(pruned)
    removed = isinstance(mode, Remove) and not kind.startswith("vera")
    assert (wanted.keys() - found.keys()) == ({Q0, V2} if removed else set())
    same(found, {path: wanted[path] for path in found})
    base = model.unload()
    with torch.no_grad():
        for path, matrix in wanted.items():
            base.get_submodule(path).weight += torch.from_numpy(matrix).float()
    assert difference(logits(pruned), logits(base)) < 1e-4


def test_adalora_after_its_training(tmp_path: Path) -> None:
    """PEFT cuts modules down to the directions that are left, and keeps the scaling of the rank it began with."""
    model = filled("adalora")
    left = [True, False, True, True]
    paths = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(3) for name in "qv"]
    model.peft_config["default"].rank_pattern = {f"{path}.lora_E": left for path in paths}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path / "a")
    same(ours(tmp_path / "a"), deltas(load(tmp_path / "a")))
    assert {module.rank for module in scan(tmp_path / "a")} == {3}
    out = prune_to(tmp_path / "a", tmp_path / "b", [Q0, V2])
    same(ours(out), deltas(load(out)))
    assert Q0 not in deltas(load(out))


def test_adalora_leaves_modules_of_rank_zero(tmp_path: Path) -> None:
    model = filled("adalora")
    paths = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(3) for name in "qv"]
    model.peft_config["default"].rank_pattern = {f"{path}.lora_E": [path != Q0, False, True, False] for path in paths}
    model.peft_config["default"].rank_pattern[f"{Q0}.lora_E"] = [False] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path / "a")
    wanted = deltas(load(tmp_path / "a"))
    assert not wanted.pop(Q0).any()
    same(ours(tmp_path / "a"), wanted)
    found = scan(tmp_path / "a")
    assert any(warning.startswith("1 of 6 modules have rank 0, as AdaLoRA") for warning in found.warnings)
    assert (found.inventory.dead, {tensor.role for tensor in found.inventory.tensors}) == ((), {"factor", "extra"})
    write_converted(convert(tmp_path / "a", "peft"), tmp_path / "lora")
    same(ours(tmp_path / "lora"), wanted)
    out = prune_to(tmp_path / "a", tmp_path / "b", [V2])
    del wanted[V2]
    after = deltas(load(out))
    assert not after.pop(Q0).any()
    same(after, wanted)


def test_adalora_in_memory(tmp_path: Path) -> None:
    model = filled("adalora")
    wanted = deltas(model)
    adapter = from_model(model)
    assert {module.form for module in adapter.modules} == {"AdaLoRA"}
    for module in adapter.modules:
        matrix = module.scaling.value * module.B.array().astype(float) @ module.A.array()
        np.testing.assert_allclose(matrix, wanted[module.path], atol=1e-6)
    assert len(scan(model)) == len(wanted)
