"""Adapters with one update an expert on a base that has its experts fused: what PEFT stacks at load, and what it loses.

Seen in PEFT 0.21.2 (`convert_peft_config_for_transformers`): gate and up become one parameter of rank 2·r with alpha
2·lora_alpha, from the numbers of the whole configuration. The names of the old projections leave `target_modules`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3lora.adapter.loaders.problems import Problem, some
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.base.model import BaseModel
from s3lora.compat.results import ModuleCheck
from s3lora.wording import worded

#: Projections that become one parameter.
_JOINED = ("gate_proj", "up_proj", "w1", "w3")
#: Names that leave `target_modules`, with every other module of that name.
_NAMES = ("gate_proj", "up_proj", "down_proj")
#: Models whose weights are stacked, and whose configuration is not changed to match.
_FORGOTTEN = ("qwen2_moe",)
_ONE_EACH = "has one update an expert, which the loader stacks at load"

Pairs = Sequence[tuple[LoraModule, ModuleCheck]]


def stacked(adapter: Adapter, pairs: Pairs, base: BaseModel) -> Iterator[Problem]:
    """Yield what comes of experts that are stacked at load."""
    experts = [
        (module, one)
        for module, one in pairs
        if one.standing == "expert" and module.group is None and module.expert is not None
    ]
    if not experts:
        return
    if base.architecture in _FORGOTTEN:
        what = f"{_ONE_EACH}, and then builds nothing for them in this model (0.21.2)"
        yield Problem(what, "load it with the transformers of its training", "other", _paths(experts))
        return
    yield from _numbers(adapter, experts)
    named = {module.projection for module, _ in experts}
    beside = [
        (module, one)
        for module, one in pairs
        if one.standing in ("found", "renamed") and module.projection in _NAMES and module.projection in named
    ]
    if beside:
        what = f"has {some(_paths(beside))} beside experts of the same projections, and the loader leaves them out"
        yield Problem(f"{what} (0.21.2)", "load it with the transformers of its training", "other", _paths(beside))


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
        yield Problem(what, "load it with the transformers of its training", "fails", _paths(ranks))
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
