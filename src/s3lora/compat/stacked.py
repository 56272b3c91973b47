"""Adapters with one update an expert on a base that has its experts fused: what PEFT stacks at load, and what it loses.

Seen in PEFT 0.21.2 (`convert_peft_config_for_transformers`): gate and up become one parameter of rank 2·r with alpha
2·lora_alpha, from the numbers of the whole configuration. The names of the old projections leave `target_modules`, with
every other module of such a name, and the router becomes a parameter as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3lora.adapter.loaders.peft_stops import as_parameters
from s3lora.adapter.loaders.problems import Problem, some
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.base.model import BaseModel
from s3lora.compat.results import ModuleCheck
from s3lora.wording import worded

_ONE_EACH = "has one update an expert, which the loader stacks at load"
_TRAINED = "load it with the transformers of its training"
#: Kind of model → the projections that become one parameter, and the third.
_KINDS = {"mixtral": (("w1", "w3"), "w2"), "qwen2_moe": (("gate_proj", "up_proj"), "down_proj")}
_JOINED = tuple(name for joined, _ in _KINDS.values() for name in joined)
#: `model_type` → its kind, of all whose configuration is changed to match (transformers 5.24,
#: `_MODEL_TO_CONVERSION_PATTERN`, with what PEFT adds).
_CONVERTED = {
    **dict.fromkeys(("mixtral", "minimax", "minimax_m2"), "mixtral"),
    **dict.fromkeys(
        (
            *("afmoe", "cohere2_moe", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5_moe"),
            *("exaone_moe", "flex_olmo", "glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm_moe_dsa", "hunyuan_v1_moe"),
            *("longcat_flash", "mellum", "olmoe", "qwen3_moe", "qwen3_next", "qwen3_omni_moe", "sarvam_mla"),
            *("qwen3_omni_moe_text", "qwen3_omni_moe_thinker", "solar_open"),
        ),
        "qwen2_moe",
    ),
}
#: Others of experts, of which the weights alone are stacked.
_FORGOTTEN = ("qwen2_moe", "phimoe", "gpt_oss", "qwen3_vl_moe")

Pairs = Sequence[tuple[LoraModule, ModuleCheck]]


def stacked(adapter: Adapter, pairs: Pairs, base: BaseModel) -> Iterator[Problem]:
    """Yield what comes of a base whose experts are stacked."""
    experts = [
        (module, one)
        for module, one in pairs
        if one.standing == "expert" and module.group is None and module.expert is not None
    ]
    kind = _CONVERTED.get(base.architecture or "")
    if kind is None:
        yield from _forgotten(pairs, experts, base)
        return
    config = adapter.config or {}
    routers = [(module, one) for module, one in pairs if module.projection == "gate" and one.standing != "missing"]
    if experts or routers:
        yield from as_parameters(config, _paths([*experts, *routers]))
    if experts:
        yield from _numbers(adapter, experts)
    joined, third = _KINDS[kind]
    named = _named(config) or {module.projection for module, _ in experts}
    if half := [name for name in joined if name in named and not named.issuperset(joined)]:
        what = f"targets {half[0]} without the other of {' and '.join(joined)}, which are one parameter of the base"
        yield Problem(f"{what}, and PEFT 0.21.2 stops", "add it to `target_modules`, with updates of zero")
    beside = [
        (module, one)
        for module, one in pairs
        if one.standing in ("found", "renamed") and module.projection in (*joined, third)
    ]
    if beside:
        what = f"has {some(_paths(beside))}, named as the experts of this model were, and the loader leaves them out"
        yield Problem(f"{what} (PEFT 0.21.2)", _TRAINED, "other", _paths(beside))


def _forgotten(pairs: Pairs, experts: Pairs, base: BaseModel) -> Iterator[Problem]:
    """Yield what comes of a model whose configuration is not changed to match its weights."""
    routers = [(module, one) for module, one in pairs if module.projection in ("gate", "router")]
    if routers and base.architecture in _FORGOTTEN:
        what = f"has {some(_paths(routers))}, which is no linear layer in this model, and PEFT 0.21.2 stops at it"
        yield Problem(what, _TRAINED, "fails", _paths(routers))
    if experts:
        what = f"{_ONE_EACH}, and then builds nothing for them in this model (PEFT 0.21.2)"
        # It stops where nothing at all is left to build.
        named = {module.projection for module, _ in experts}
        built = len(experts) < len(pairs) or any(path.rpartition(".")[2] in named for path in base.modules)
        yield Problem(what, _TRAINED, "other" if built else "fails", _paths(experts))


def _named(config: Mapping[str, Any]) -> set[str]:
    """Return the last names of the targets, none where they are an expression."""
    targets = config.get("target_modules")
    return {str(name).rpartition(".")[2] for name in targets} if isinstance(targets, list) else set()


def _numbers(adapter: Adapter, experts: Pairs) -> Iterator[Problem]:
    """Yield what comes of ranks and scalings that are not those of the whole configuration."""
    config = adapter.config or {}
    r, alpha, rslora = config.get("r", 8), config.get("lora_alpha", 8), bool(config.get("use_rslora"))
    if not isinstance(r, int) or r < 1 or not isinstance(alpha, int | float):
        return
    own = [(module, one) for module, one in experts if not _by_name(module, one, config)]
    ranks = [(module, one) for module, one in own if module.rank != r]
    if ranks:
        what = f"{_ONE_EACH}, with the rank of the whole configuration: {some(_paths(ranks))} have others"
        yield Problem(what, _TRAINED, "fails", _paths(ranks))
        return
    scaling = alpha / (math.sqrt(r) if rslora else r)
    other = [(module, one) for module, one in own if not math.isclose(module.scaling.value, scaling, rel_tol=1e-6)]
    if other:
        what = f"{_ONE_EACH}, with the alpha of the whole configuration: {some(_paths(other))} have others"
        yield Problem(what, worded("add {bake}"), "other", _paths(other))
    elif rslora and (joined := [pair for pair in experts if pair[0].projection in _JOINED]):
        what = f"uses rsLoRA on experts, and the loader scales gate and up by √2 times as much ({some(_paths(joined))})"
        yield Problem(what, worded("add {bake}"), "other", _paths(joined))


def _by_name(module: LoraModule, one: ModuleCheck, config: Mapping[str, Any]) -> bool:
    """Return whether a pattern that gives the module its rank or alpha is the name of the fused parameter too."""
    name = (one.base_path or "").rpartition(".")[2]
    patterns = [config.get(field) for field in ("rank_pattern", "alpha_pattern")]
    return module.projection not in _JOINED and any(isinstance(given, dict) and name in given for given in patterns)


def _paths(pairs: Pairs) -> tuple[str, ...]:
    return tuple(module.path for module, _ in pairs)
