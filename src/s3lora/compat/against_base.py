"""An adapter's modules among those of a base model: where each is, and whether its shape fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import gcd

from s3lora.adapter.formats.peft_notes import replicated_layers
from s3lora.adapter.model import Adapter, LoraModule, block
from s3lora.base.model import BaseModel, BaseModule
from s3lora.base.names import ModuleNames, expert_of
from s3lora.compat.results import ModuleCheck
from s3lora.rewrite.convert.dotted import MODELS, dotted


def against(adapter: Adapter, base: BaseModel, checks: Sequence[ModuleCheck]) -> tuple[ModuleCheck, ...]:
    """Return the checks with what the base says of each module."""
    if not base.modules:
        return tuple(replace(check, standing="unknown") for check in checks)
    if adapter.format == "kohya":
        return _joined(adapter, base, checks)
    names = ModuleNames(base.modules)
    order = replicated_layers(adapter.config)
    made = []
    for module, check in zip(adapter.modules, checks, strict=True):
        made.append(_one(module, check, base, names, order))
    return tuple(made)


def _joined(adapter: Adapter, base: BaseModel, checks: Sequence[ModuleCheck]) -> tuple[ModuleCheck, ...]:
    """Return the checks of kohya's names, in which underscores stand for dots: `lora_unet_…`, `lora_te_…`.

    A base is one of the models of a pipeline. Of a model of which it has no module, nothing is known here.
    """
    joined: dict[str, list[str]] = {}
    for path in base.modules:
        joined.setdefault(path.replace(".", "_"), []).append(path)
    names, made, known = ModuleNames(base.modules), [], set()
    for module, check in zip(adapter.modules, checks, strict=True):
        prefix = next((one for one in MODELS if module.path.startswith(one)), "")
        spelled = joined.get(module.path.removeprefix(prefix), [])
        place = dotted(module.path)
        found = spelled[0] if len(spelled) == 1 else None if place is None else names.find(place[1])
        if found is None:
            made.append((prefix, replace(check, standing="unknown")))
        else:
            known.add(prefix)
            one = replace(check, standing="found", base_path=found)
            made.append((prefix, _shaped(module, one, base.modules[found])))
    return tuple(
        replace(one, standing="missing") if one.base_path is None and prefix in known and base.complete else one
        for prefix, one in made
    )


def _one(
    module: LoraModule, check: ModuleCheck, base: BaseModel, names: ModuleNames, order: Sequence[int]
) -> ModuleCheck:
    path = module.path
    if order and module.layer is not None:
        if module.layer >= len(order):
            return replace(check, standing="missing")
        head = block(path)
        path = f"{head.rpartition('.')[0]}.{order[module.layer]}{path[len(head) :]}"
    if path in base.modules:
        return _shaped(module, replace(check, standing="found", base_path=path), base.modules[path])
    if (expert := _expert(path, base.modules, names)) is not None:
        found, number, part = expert
        note = "" if number < found.experts else f"the base has {found.experts} experts"
        one = replace(check, standing="expert" if not note else "missing", base_path=found.path, note=note)
        return _of_expert(module, one, found, part)
    other = names.find(path)
    if other is None:
        return replace(check, standing="unknown" if base.may_have(path) else "missing")
    return _shaped(module, replace(check, standing="renamed", base_path=other), base.modules[other])


def _expert(path: str, modules: Mapping[str, BaseModule], names: ModuleNames) -> tuple[BaseModule, int, str] | None:
    """Return the fused parameter of the base that an expert is a part of, its number and its projection."""
    told = expert_of(path)
    if told is None:
        return None
    fused, number, part = told
    found = names.find(fused)
    if found is None or not modules[found].experts:
        return None
    return modules[found], number, part


def _of_expert(module: LoraModule, check: ModuleCheck, found: BaseModule, part: str) -> ModuleCheck:
    if found.shape is None:
        return check
    m, n = found.shape
    halved = found.path.endswith("gate_up_proj") and part != "gate_up_proj"
    wanted = (m // 2, n) if halved else (m, n)
    # Which side of a fused parameter comes first differs between models; the update may be of either.
    known = {wanted, wanted[::-1], *([(n // 2, m), (m, n // 2)] if halved else [])}
    fits = (module.m, module.n) in known
    return replace(
        check, base_shape=wanted, fits=fits, note=check.note or ("" if fits else _why(module, wanted, found))
    )


def _shaped(module: LoraModule, check: ModuleCheck, found: BaseModule) -> ModuleCheck:
    if found.shape is None:
        return check
    m, n = found.shape
    # PEFT's update of a table of embeddings is (features, vocabulary), the table itself the other way round.
    wanted = (
        (n, m)
        if module.kind == "embedding" or (found.kind == "embedding" and (module.m, module.n) == (n, m))
        else (m, n)
    )
    fits = (module.m, module.n) == wanted
    return replace(check, base_shape=wanted, fits=fits, note="" if fits else _why(module, wanted, found))


def _why(module: LoraModule, wanted: tuple[int, int], found: BaseModule) -> str:
    """Return what a wrong shape may come from, empty where nothing tells."""
    m, n = wanted
    name = module.path.rpartition(".")[2]
    if (module.n, module.m) == (m, n) and m != n:
        return "the factors are the other way round"
    if name in ("k_proj", "v_proj", "k", "v") and module.n == n and gcd(module.m, m) == min(module.m, m):
        return "another number of key and value heads (grouped-query attention)"
    if found.kind == "embedding" or name in ("lm_head", "embed_tokens", "embed_out"):
        return (
            "another vocabulary, or other added tokens"
            if module.n == n or module.m == m
            else "another size of the model"
        )
    if module.n != n and module.m != m:
        return "another size of the model"
    return "another model, or one rank's part of the factors"
