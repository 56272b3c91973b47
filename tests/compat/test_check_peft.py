"""What PEFT and transformers really do with an adapter is what the check says of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import check, open_adapter
from tests.peft_models import INPUT, llama, save, torch, transformers
from tests.support import make_adapter, write_safetensors

peft = pytest.importorskip("peft")
PLAIN = {"target_modules": ["q_proj", "v_proj"]}


def stored(folder: Path, change: Callable[[str], str], **config: Any) -> Path:
    """Write the adapter under other names, and with other fields in its configuration."""
    with open_adapter(folder) as opened:
        tensors = {change(name): np.array(one.array()) for name, one in opened.files[0].tensors.items()}
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


def outputs(model: Any) -> Any:
    with torch.no_grad():
        return model(INPUT).logits


def by_peft(folder: Path) -> Any:
    return outputs(peft.PeftModel.from_pretrained(llama(), str(folder)).eval())


def by_transformers(folder: Path) -> Any:
    model = llama()
    model.load_adapter(str(folder))
    return outputs(model.eval())


def same_name(name: str) -> str:
    return name


CASES: dict[str, tuple[dict[str, Any], Callable[[str], str], dict[str, Any]]] = {
    "plain": (PLAIN, same_name, {}),
    "rslora": ({**PLAIN, "use_rslora": True}, same_name, {}),
    "patterns": ({**PLAIN, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"q_proj": 3}}, same_name, {}),
    "wrapped": (PLAIN, lambda name: f"_orig_mod.{name}", {}),
    "twice": (PLAIN, lambda name: f"base_model.model.{name}", {}),
    "no prefix": (PLAIN, lambda name: name.removeprefix("base_model.model."), {}),
    "default": (PLAIN, lambda name: name.replace(".weight", ".default.weight"), {}),
    "another rank": (PLAIN, same_name, {"r": 3}),
    "not targeted": (PLAIN, same_name, {"target_modules": ["q_proj"]}),
    "a regular expression": ({"target_modules": r".*\.[qv]_proj"}, same_name, {}),
    "layers beside an expression": (PLAIN, same_name, {"target_modules": ".*_proj", "layers_to_transform": [0]}),
    "a pattern of no layers": (PLAIN, same_name, {"layers_pattern": "layers"}),
    "an initialisation of others": (PLAIN, same_name, {"init_lora_weights": "milora"}),
    "an initialisation in capitals": (PLAIN, same_name, {"init_lora_weights": "PiSSA"}),
    "gaussian": (PLAIN, same_name, {"init_lora_weights": "Gaussian"}),
    "a bias with an initialisation": (PLAIN, same_name, {"init_lora_weights": "gaussian", "lora_bias": True}),
    "all linear with a head": ({"target_modules": ["q_proj", "lm_head"]}, same_name, {"target_modules": "all-linear"}),
    "all linear": (PLAIN, same_name, {"target_modules": "all-linear"}),
    "a head that is not there": (PLAIN, same_name, {"modules_to_save": ["lm_head"]}),
    "tokens that are not there": (PLAIN, same_name, {"trainable_token_indices": [5]}),
    "a head that is": ({**PLAIN, "modules_to_save": ["lm_head"]}, same_name, {}),
    "tokens that are": ({**PLAIN, "trainable_token_indices": [5]}, same_name, {}),
    "dora": ({**PLAIN, "use_dora": True}, same_name, {}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loader", ["peft", "transformers"])
def test_the_verdict_is_what_happens(case: str, loader: str, tmp_path: Path) -> None:
    config, change, fields = CASES[case]
    folder = save(tmp_path / "adapter", llama, **config)
    load = {"peft": by_peft, "transformers": by_transformers}[loader]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = by_peft(folder)
        stored(folder, change, **fields)
        base = tmp_path / "base"
        llama().config.save_pretrained(base)
        verdict = check(folder, str(base), [loader])[loader].verdict
        try:
            found = load(folder)
        except Exception:
            assert verdict == "fails"
            return
    equal = bool(torch.allclose(found, wanted, atol=1e-5))
    assert verdict == ("same" if equal else "other"), transformers.__version__


SIZES = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 6,
         "num_key_value_heads": 2}  # fmt: skip
VISION = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 16, "patch_size": 8}  # fmt: skip
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SIZES),
    "mixtral": ("mixtral", {**SIZES, "num_local_experts": 4}),
    "qwen3_moe": ("qwen3_moe", {**SIZES, "num_experts": 4, "moe_intermediate_size": 40, "head_dim": 8}),
    "gpt_neox": ("gpt_neox", SIZES),
    "llava": ("llava", {"text_config": {"model_type": "llama", **SIZES},
                        "vision_config": {"model_type": "clip_vision_model", **VISION}}),
    "qwen2_vl": ("qwen2_vl", {"text_config": SIZES,
                              "vision_config": {"depth": 1, "embed_dim": 16, "hidden_size": 48, "num_heads": 2}}),
}  # fmt: skip


def queries(prefix: str, layers: int = 2) -> dict[str, tuple[int, int, int]]:
    return {f"{prefix}layers.{i}.self_attn.q_proj": (48, 48, 2) for i in range(layers)}


def experts(stem: str, inner: int, names: str, count: int) -> dict[str, tuple[int, int, int]]:
    up, gate, down = names.split()
    shapes = {up: (inner, 48, 2), gate: (inner, 48, 2), down: (48, inner, 2)}
    return {
        f"model.layers.{i}.{stem}.experts.{e}.{w}": s for i in range(2) for e in range(count) for w, s in shapes.items()
    }


#: Base → modules of the adapter.
AGAINST: dict[str, tuple[str, dict[str, tuple[int, int, int]]]] = {
    "as trained": ("llama", queries("model.")),
    "without the head": ("llama", queries("")),
    "a layer more": ("llama", queries("model.", 3)),
    "another shape": ("llama", {f"model.layers.{i}.self_attn.k_proj": (48, 48, 2) for i in range(2)}),
    "no such projection": ("llama", {"model.layers.0.self_attn.c_attn": (48, 48, 2)}),
    "experts one by one": ("qwen3_moe", experts("mlp", 40, "up_proj gate_proj down_proj", 4)),
    "an expert too few": ("qwen3_moe", experts("mlp", 40, "up_proj gate_proj down_proj", 3)),
    "experts of old": ("mixtral", experts("block_sparse_moe", 56, "w3 w1 w2", 4)),
    "a router of old": ("mixtral", {f"model.layers.{i}.block_sparse_moe.gate": (4, 48, 2) for i in range(2)}),
    "an output layer of old": ("gpt_neox", {"embed_out": (97, 48, 2)}),
    "llava now": ("llava", queries("model.language_model.")),
    "llava before": ("llava", queries("language_model.model.")),
    "llava as text": ("llava", queries("model.")),
    "qwen2_vl before": ("qwen2_vl", queries("model.")),
    "qwen2_vl turned": ("qwen2_vl", queries("language_model.model.")),
}


@pytest.mark.parametrize("case", AGAINST)
@pytest.mark.parametrize("loader", ["peft", "transformers"])
def test_the_verdict_on_a_base_is_what_happens(case: str, loader: str, tmp_path: Path) -> None:
    name, modules = AGAINST[case]
    kind, fields = BASES[name]
    folder = make_adapter(tmp_path / "adapter", modules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        auto = (
            transformers.AutoModelForImageTextToText if "vision_config" in fields else transformers.AutoModelForCausalLM
        )
        model = auto.from_config(transformers.AutoConfig.for_model(kind, **fields))
        model.config.save_pretrained(tmp_path / "base")
        made = check(folder, str(tmp_path / "base"), [loader])
        verdict = made[loader].verdict
        try:
            if loader == "peft":
                model = peft.PeftModel.from_pretrained(model, str(folder))
            else:
                model.load_adapter(str(folder))
        except Exception:
            assert verdict == "fails", made[loader].reasons
            return
    filled = [bool(one.any()) for key, one in model.named_parameters() if "lora_B" in key and "vision" not in key]
    whole = all(filled) and (len(filled) >= len(modules) or any(".experts." in path for path in modules))
    told = {"same"} if whole else {"other"}
    assert verdict in told, (made[loader].reasons, filled)


ONE_EACH = experts("mlp", 40, "up_proj gate_proj down_proj", 4)
SECOND = {path: shape for path, shape in ONE_EACH.items() if ".layers.1." in path}
DENSE = {
    f"model.layers.0.mlp.{name}": shape
    for name, shape in (("up_proj", (56, 48, 2)), ("gate_proj", (56, 48, 2)), ("down_proj", (48, 56, 2)))
}
#: Base, modules, configuration.
STACKED: dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, int, int]], dict[str, Any]]] = {
    "as trained": ("qwen3_moe", {}, ONE_EACH, {}),
    "rslora": ("qwen3_moe", {}, ONE_EACH, {"use_rslora": True}),
    "alpha of gate and up": ("qwen3_moe", {}, ONE_EACH, {"alpha_pattern": {"gate_proj": 32, "up_proj": 32}}),
    "alpha of down": ("qwen3_moe", {}, ONE_EACH, {"alpha_pattern": {"down_proj": 32}}),
    "alpha of one": ("qwen3_moe", {}, ONE_EACH, {"alpha_pattern": {"model.layers.0.mlp.experts.3.down_proj": 32}}),
    "rank of gate and up": (
        "qwen3_moe",
        {},
        {path: (m, n, 2 if "down" in path else 4) for path, (m, n, _) in ONE_EACH.items()},
        {"r": 2, "lora_alpha": 2, "rank_pattern": {"gate_proj": 4, "up_proj": 4}},
    ),
    "rank of down": (
        "qwen3_moe",
        {},
        {path: (m, n, 4 if "down" in path else 2) for path, (m, n, _) in ONE_EACH.items()},
        {"r": 2, "lora_alpha": 2, "rank_pattern": {"down_proj": 4}},
    ),
    "a model that is forgotten": (
        "qwen2_moe",
        {"num_experts": 4, "moe_intermediate_size": 40, "shared_expert_intermediate_size": 24},
        ONE_EACH,
        {},
    ),
    "a dense layer beside": ("qwen3_moe", {"mlp_only_layers": [0]}, {**SECOND, **DENSE}, {}),
    "a dense layer alone": ("qwen3_moe", {"mlp_only_layers": [0]}, {**queries("model."), **DENSE}, {}),
    "a dense layer by its path": (
        "qwen3_moe",
        {"mlp_only_layers": [0]},
        {**queries("model."), **DENSE},
        {"target_modules": ["q_proj", *DENSE]},
    ),
    "half of a dense layer": (
        "qwen3_moe",
        {"mlp_only_layers": [0]},
        {**queries("model."), "model.layers.0.mlp.up_proj": (56, 48, 2)},
        {},
    ),
    "half of the experts' projections": (
        "qwen3_moe",
        {},
        {path: shape for path, shape in ONE_EACH.items() if "gate" not in path},
        {},
    ),
    "dropout": ("qwen3_moe", {}, ONE_EACH, {"lora_dropout": 0.05}),
    "dropout without experts": ("qwen3_moe", {}, queries("model."), {"lora_dropout": 0.05}),
    "a router": (
        "qwen3_moe",
        {},
        {**queries("model."), "model.layers.0.mlp.gate": (4, 48, 2), "model.layers.1.mlp.gate": (4, 48, 2)},
        {},
    ),
    "dropout with a router": (
        "qwen3_moe",
        {},
        {**queries("model."), "model.layers.0.mlp.gate": (4, 48, 2), "model.layers.1.mlp.gate": (4, 48, 2)},
        {"lora_dropout": 0.05},
    ),
    "a router that is forgotten": (
        "qwen2_moe",
        {"num_experts": 4, "moe_intermediate_size": 40, "shared_expert_intermediate_size": 24},
        {**queries("model."), "model.layers.0.mlp.gate": (4, 48, 2), "model.layers.1.mlp.gate": (4, 48, 2)},
        {},
    ),
    "another that is forgotten": (
        "phimoe",
        {"num_local_experts": 4},
        experts("block_sparse_moe", 56, "w3 w1 w2", 4),
        {},
    ),
    "experts by parameter, with dropout": (
        "qwen3_moe",
        {},
        queries("model."),
        {"target_parameters": ["mlp.gate.weight"], "lora_dropout": 0.1},
    ),
}


@pytest.mark.parametrize("case", STACKED)
def test_experts_that_are_stacked_are_what_merging_changes(case: str, tmp_path: Path) -> None:
    name, more, modules, config = STACKED[case]
    kind, fields = BASES.get(name, (name, SIZES))
    folder = make_adapter(tmp_path / "adapter", modules, config=config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(kind, **{**fields, **more})
        ).float()
        model.config.save_pretrained(tmp_path / "base")
        made = check(folder, str(tmp_path / "base"), ["peft"])["peft"]
        before = {key: value.detach().clone() for key, value in model.state_dict().items()}
        try:
            after = peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload().state_dict()
        except Exception:
            assert made.verdict == "fails", made.reasons
            return
    with open_adapter(folder) as adapter:
        right = [
            np.allclose(
                changed(module.path, before, after),
                module.scaling.value * (module.B.array().astype(float) @ module.A.array().astype(float)),
                atol=1e-4,
            )
            for module in adapter.modules
        ]
    assert made.verdict == ("same" if all(right) else "other"), (made.reasons, right)


def changed(path: str, before: dict[str, Any], after: dict[str, Any]) -> Any:
    """Return by how much merging has changed the weight of a module, which may lie among those of other experts."""
    stem, within, rest = path.partition(".experts.")
    if not within:
        return (after[f"{path}.weight"] - before[f"{path}.weight"]).double().numpy()
    number, _, projection = rest.partition(".")
    key = f"{stem}.experts.{'down_proj' if projection == 'down_proj' else 'gate_up_proj'}"
    part = (after[key] - before[key])[int(number)].double().numpy()
    half = len(part) // 2
    return part if projection == "down_proj" else part[:half] if projection == "gate_proj" else part[half:]
