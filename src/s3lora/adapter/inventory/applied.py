"""Modules that stand in the file and that PEFT does not apply: why, and what mends it.

The rules are those of PEFT 0.21.2 (`inject_adapter_in_model`, `set_peft_model_state_dict`), as far as names and the
configuration decide them. Whether the base model has a module of a name, it alone knows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from s3lora.adapter.expressions import Expression, ExpressionError
from s3lora.adapter.formats.peft_notes import READ, WRITTEN, tied_updates
from s3lora.adapter.formats.wrappers import PREFIX, told, unwrapped
from s3lora.adapter.inventory.model import InventoryTensor, Unapplied
from s3lora.adapter.model import Adapter, LoraModule, block
from s3lora.adapter.peft_config import ends, place_of
from s3lora.errors import printable

#: Expressions in a list of a configuration that are tried; nobody writes more than a few.
MAX_EXPRESSIONS = 100
#: Layers of a model that are looked through; the largest have 126.
MAX_LAYERS = 1000
_REWRITE = "`s3lora prune` writes the keys without it"
#: Where a module's path ends in a key.
_PART = re.compile(r"\.(?:lora|hada|lokr|vera)_")
#: What follows it in a key that PEFT finds, with or without the adapter's name that it gives by itself.
_LEAF = re.compile(r"\.lora_(?:[AB](?:\.default)?\.weight|embedding_[AB](?:\.default)?)")


def unapplied_of(adapter: Adapter, tensors: tuple[InventoryTensor, ...]) -> tuple[Unapplied, ...]:
    """Return what is not applied, each kind with its modules; nothing of formats that PEFT does not read."""
    if adapter.format != "peft" or not adapter.files:
        return ()
    found = [*_prefixes(adapter)]
    dead = {path for one in found for path in one.modules}
    config = adapter.config or {}
    if "peft_type" in config:
        found += _untargeted([module for module in adapter.modules if module.path not in dead], config)
        found += _missing(adapter.modules, config)
        found += _misnamed(adapter)
        found += _incomplete(adapter.modules, config)
    ranks = config.get("peft_type") == "ADALORA"  # which leaves modules of rank 0
    found += _empty(tensor for tensor in tensors if not (ranks and tensor.role == "extra"))
    found += _slices(adapter)
    return tuple(found)


def _prefixes(adapter: Adapter) -> Iterator[Unapplied]:
    """Yield the modules whose keys are not those of a PEFT model."""
    by_cause: dict[tuple[str, ...], list[str]] = defaultdict(list)
    bare: list[str] = []
    saved_by_peft = "peft_type" in (adapter.config or {})
    for module in adapter.modules:
        name = module.own_parts[0].tensor.name
        wrappers = unwrapped(_PART.split(name)[0])[1]
        if wrappers:
            by_cause[wrappers].append(module.path)
        elif saved_by_peft and not name.startswith(PREFIX):
            bare.append(module.path)
    for wrappers, paths in by_cause.items():
        names = ", ".join(f"`{name}`" for name in wrappers)
        by = " and ".join(dict.fromkeys(map(told, wrappers)))
        yield Unapplied(
            kind="prefix",
            modules=tuple(paths),
            cause=f"their keys hold {names}, which comes from {by}: PEFT finds no such module and goes on without",
            remedy=f"save the unwrapped model, or {_REWRITE}",
        )
    if bare:
        yield Unapplied(
            kind="prefix",
            modules=tuple(bare),
            cause=f"their keys lack `{PREFIX}`: PEFT finds no such module and goes on without",
            remedy="save with `save_pretrained`; `s3lora prune` writes the keys with it",
        )


def _misnamed(adapter: Adapter) -> Iterator[Unapplied]:
    """Yield the modules whose keys lie or end where PEFT does not look."""
    if any(file.nested for file in adapter.files):
        yield Unapplied(
            kind="name",
            modules=tuple(module.path for module in adapter.modules),
            cause="the file holds its tensors in a dictionary within another, as under `state_dict`, where PEFT does "
            "not look, and goes on without",
            remedy="save what is inside, or let `s3lora prune` write it",
        )
    paths = [
        module.path
        for module in adapter.modules
        for part in module.parts
        if module.form in ("LoRA", "QALoRA")
        if not _LEAF.fullmatch(part.tensor.name[part.tensor.name.rfind(".lora_") :])
    ]
    if paths:
        yield Unapplied(
            kind="name",
            modules=tuple(dict.fromkeys(paths)),
            cause="their keys hold the name of another adapter than `default`, or lack an end such as `.weight`: PEFT "
            "finds no such parameter and goes on without",
            remedy="save with `save_pretrained`, or rename the keys: `….lora_A.weight` and `….lora_B.weight`",
        )


def _incomplete(modules: Sequence[LoraModule], config: Mapping[str, Any]) -> Iterator[Unapplied]:
    """Yield what PEFT adds to an update by itself, since the configuration asks for it and the file lacks it."""
    rescaled = [module.path for module in modules if config.get("use_dora") and not module.dora]
    if rescaled:
        yield Unapplied(
            kind="incomplete",
            modules=tuple(rescaled),
            cause="`use_dora` is set, and the file holds no magnitudes of them: PEFT takes those of the base weights, "
            "which changes what the update does",
            remedy="set `use_dora` to false, or save the magnitudes",
        )
    if random := [*_left_out(modules, config), *_unbiased(modules, config)] if _at_random(config) else []:
        yield Unapplied(
            kind="incomplete",
            modules=tuple(dict.fromkeys(random)),
            cause="`init_lora_weights` is false, and the file lacks them or their biases: PEFT fills these at random",
            remedy="set `init_lora_weights` to true, which changes nothing of what the file holds",
        )


def _at_random(config: Mapping[str, Any]) -> bool:
    """Return whether PEFT fills at random what the file lacks, so that it has an effect."""
    return not config.get("init_lora_weights", True)


def _left_out(modules: Sequence[LoraModule], config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the modules that the file has of other layers and lacks of these, though the configuration means them."""
    layers: dict[tuple[str, str], set[int]] = defaultdict(set)
    for module in modules:
        if module.layer is not None and module.group is None:
            where = block(module.path)
            layers[where.rpartition(".")[0], module.path[len(where) :]].add(module.layer)
    last: dict[str, int] = {}
    for (head, _), found in layers.items():
        last[head] = max(last.get(head, 0), *found)
    try:
        targeted = _targeted(config)
    except ExpressionError:  # told elsewhere
        return
    for (head, tail), found in layers.items():
        if last[head] > MAX_LAYERS:
            yield f"{head}.*{tail}"
            continue
        paths = (f"{head}.{layer}{tail}" for layer in range(last[head] + 1) if layer not in found)
        with suppress(ExpressionError):
            yield from (path for path in paths if targeted(path))


def _unbiased(modules: Sequence[LoraModule], config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the modules of which the file lacks the bias that `lora_bias` asks for."""
    if config.get("lora_bias"):
        yield from (one.path for one in modules if not any(name.endswith(".bias") for name in one.extras))


def _untargeted(modules: list[LoraModule], config: Mapping[str, Any]) -> Iterator[Unapplied]:
    """Yield the modules that the configuration does not name."""
    parameters = [str(one) for one in _listed(config.get("target_parameters"))]
    named = set(parameters)
    fused = [one for one in modules if one.group is not None and named.isdisjoint(ends(place_of(one)))]
    fused = [one for one in fused if len(one.own_parts[0].tensor.shape) == 2]
    if fused:
        yield Unapplied(
            kind="no target_parameters",
            modules=tuple(one.path for one in fused),
            cause="these are fused experts, and `target_parameters` does not name them: PEFT does not build them",
            remedy="name their parameters in `target_parameters` of adapter_config.json",
        )
    # A parameter of a module that is no group of experts may be targeted, such as the `weight` of a router.
    named |= {name.rpartition(".")[0] for name in parameters}
    plain = [one for one in modules if one.group is None and (not named or named.isdisjoint(ends(one.path)))]
    try:
        targeted = _targeted(config)
        tied = tied_updates(config, modules)  # of which PEFT builds all, whatever the configuration names
        lost = [one.path for one in plain if one.path not in tied and not targeted(place_of(one))]
    except ExpressionError as error:
        yield Unapplied(
            kind="not known",
            modules=(),
            cause=f"the configuration holds an expression that {printable(error, 80)}: which modules PEFT builds is "
            "not known",
            remedy="write module names",
            dead=False,
        )
        return
    if lost:
        yield Unapplied(
            kind="not targeted",
            modules=tuple(lost),
            cause="`target_modules` does not name them, or `exclude_modules`, `modules_to_save` or "
            "`layers_to_transform` keeps them out: PEFT does not build them",
            remedy="mend adapter_config.json, or take these tensors out of the file",
        )


def _targeted(config: Mapping[str, Any]) -> Callable[[str], bool]:
    """Return PEFT's rule for the path of a module (`check_target_module_exists`).

    Where the base model decides, every module may be targeted. Raises ExpressionError, also when it is asked.
    """
    excluded = _matcher(config.get("exclude_modules"))
    saved = [str(name) for name in _listed(config.get("modules_to_save"))]
    words = {name for name in saved if name.isidentifier()}
    others = _expressions(rf"(.*\.)?{name}(\..*)?" for name in saved if not name.isidentifier())
    wanted = _wanted(config)

    def in_full(path: str) -> bool:
        return not words.isdisjoint(path.split(".")) or any(one.fullmatch(path) for one in others)

    return lambda path: wanted(path) and not excluded(path) and not in_full(path)


def _expressions(texts: Iterable[str]) -> list[Expression]:
    """Return expressions, each of which is tried on each module."""
    found = list(texts)
    if len(found) > MAX_EXPRESSIONS:
        raise ExpressionError(f"is one of {len(found)}, and at most {MAX_EXPRESSIONS} are tried")
    return [Expression(text) for text in found]


def _wanted(config: Mapping[str, Any]) -> Callable[[str], bool]:
    targets = config.get("target_modules")
    if targets is None:
        parameters_only = bool(config.get("target_parameters"))
        return lambda path: not parameters_only
    if isinstance(targets, str):
        if targets.lower() == "all-linear":  # but the output layer, which PEFT leaves out of it
            return lambda path: path.rpartition(".")[2] not in (*READ, *WRITTEN)
        return _matcher(targets)
    named, whole = _matcher(targets), {str(name) for name in _listed(targets)}
    in_layers = _in_layers(config)
    return lambda path: path in whole or (named(path) and in_layers(path))


def _missing(modules: Sequence[LoraModule], config: Mapping[str, Any]) -> Iterator[Unapplied]:
    """Yield the names in `target_modules` that no module of the file answers to."""
    targets = {str(one) for one in _listed(config.get("target_modules"))}
    there = {module.path.rpartition(".")[2] for module in modules}
    if not targets <= there:  # rarely, and looking at whole paths costs where modules are many
        there = {end for module in modules for end in ends(module.path)}
    others = [*_listed(config.get("exclude_modules")), *_listed(config.get("modules_to_save"))]
    out = {end for path in others for end in ends(str(path))}
    missing = sorted(targets - there - out)
    if missing and not isinstance(config.get("exclude_modules"), str):
        yield Unapplied(
            kind="untrained",
            modules=tuple(missing),
            cause="`target_modules` names them, and the file holds nothing of them: PEFT builds them untrained",
            remedy="take these names out of `target_modules`, or find out why they were not saved",
            dead=_at_random(config),
        )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _matcher(names: Any) -> Callable[[str], bool]:
    """Return PEFT's rule: a string is an expression for the whole path, a list holds paths or ends of paths."""
    if isinstance(names, str) and names:
        return Expression(names).fullmatch
    known = {str(name) for name in _listed(names)}
    # The last name alone is what most lists hold.
    return lambda path: path.rpartition(".")[2] in known or any(end in known for end in ends(path))


def _in_layers(config: Mapping[str, Any]) -> Callable[[str], bool]:
    """Return whether a path lies in one of `layers_to_transform`, its layer being the first number in it."""
    layers = config.get("layers_to_transform")
    if layers is None or layers == []:
        return lambda path: True
    wanted = layers if isinstance(layers, list | tuple) else [layers]
    named = config.get("layers_pattern") or []
    patterns = _expressions(rf"(.*\.)?{name}" for name in ([named] if isinstance(named, str) else _listed(named)))

    def layer_of(path: str) -> int | None:
        names = path.split(".")
        numbers = [i for i, name in enumerate(names[:-1]) if name.isascii() and name.isdigit()]
        if not patterns:
            return next((int(names[i]) for i in numbers if i >= 2), None)
        tried = ((one, i) for one in patterns for i in numbers)
        return next((int(names[i]) for one, i in tried if one.fullmatch(".".join(names[:i]))), None)

    return lambda path: layer_of(path) in wanted


def _empty(tensors: Iterable[InventoryTensor]) -> Iterator[Unapplied]:
    names = [tensor.name for tensor in tensors if not tensor.parameters]
    if names:
        yield Unapplied(
            kind="empty",
            modules=tuple(names),
            cause="these tensors have no values, as DeepSpeed ZeRO-3 and FSDP leave them where they are not gathered: "
            "PEFT stops at them, for their shapes are not the model's",
            remedy="gather the parameters before saving, or take these tensors out of the file",
        )


def _slices(adapter: Adapter) -> Iterator[Unapplied]:
    """Yield the modules of layers in which every update has the same fraction of the rows it has in other layers.

    Models in which layers differ in size do not differ by one factor in all their projections.
    """
    sizes = {(module.projection, module.n, module.m) for module in adapter.modules}
    if len({(projection, n) for projection, n, _ in sizes}) == len(sizes):
        return
    most: dict[tuple[str, int], int] = {}
    for module in adapter.modules:
        kind = (_without_layer(module), module.n)
        most[kind] = max(most.get(kind, 0), module.m)
    ratios: dict[str, set[float]] = defaultdict(set)
    members: dict[str, list[str]] = defaultdict(list)
    for module in adapter.modules:
        if module.layer is None:
            continue
        where = block(module.path)
        ratios[where].add(most[_without_layer(module), module.n] / module.m)
        members[where].append(module.path)
    lost = [where for where, found in ratios.items() if len(found) == 1 and min(found) >= 2 and min(found) % 1 == 0]
    paths = [path for where in lost for path in members[where]]
    if paths:
        yield Unapplied(
            kind="slice",
            modules=tuple(paths),
            cause="lora_B has a whole fraction of the rows that it has in the other layers, in every projection: "
            "probably what one rank of a sharded (FSDP) training held",
            remedy="gather the full state dict before saving",
        )


def _without_layer(module: LoraModule) -> str:
    where = block(module.path)
    head, _, _ = where.rpartition(".")
    return head + module.path[len(where) :]
