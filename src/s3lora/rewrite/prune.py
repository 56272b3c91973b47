"""Adapter + Plan → Rewrite: remove, zero, clip or scale the chosen modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from s3lora.adapter import peft_config
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.safetensors_write import Change, Edit
from s3lora.adapter.tensor import Array
from s3lora.adapter.write import Rewrite
from s3lora.choose.select import Plan
from s3lora.errors import NothingToAuditError, SelectionError, UnsupportedAdapterError, UsageError
from s3lora.rewrite.compat import COMPATS, Compat, check_loader, kept_as_zeros
from s3lora.spectrum.clip import clip_factors

Mode = Literal["remove", "zero", "clip", "scale"]
MODES: tuple[Mode, ...] = ("remove", "zero", "clip", "scale")
Action = Literal["removed", "zeroed", "clipped", "scaled"]
_ACTIONS: dict[Mode, Action] = {"remove": "removed", "zero": "zeroed", "clip": "clipped", "scale": "scaled"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How chosen modules are treated.

    Parameters:
        mode: `remove` takes their tensors out and tells the configuration so; `zero` sets lora_B to 0 and keeps the
            shapes; `clip` lowers their leading singular values to the one numbered `component`; `scale` multiplies
            the update by `factor`.
        component: of `clip`, at least 2.
        factor: of `scale`, between 0 and 1.
        compat: the loader to write for.
        bake: multiply every lora_B by its scaling and write one uniform `lora_alpha` = `r`.

    Raises UsageError for what is out of range.
    """

    mode: Mode = "remove"
    component: int = 2
    factor: float = 0.5
    compat: Compat = "peft"
    bake: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.mode not in MODES:
            raise UsageError(f"no mode {self.mode!r}", fix=f"choose one of {', '.join(MODES)}")
        if self.compat not in COMPATS:
            raise UsageError(f"no loader {self.compat!r}", fix=f"choose one of {', '.join(COMPATS)}")
        if self.component < 2:
            raise UsageError(f"clip to component {self.component} changes nothing", fix="give 2 or more")
        if not 0 < self.factor < 1:
            raise UsageError(f"factor {self.factor} is not between 0 and 1", fix="use --mode zero or remove instead")


DEFAULT = Settings()


@dataclass(frozen=True, slots=True)
class Pruned:
    """A pruned adapter that is not written yet: what happens to each chosen module, and to the files."""

    plan: Plan
    settings: Settings
    actions: Mapping[str, Action]
    rewrite: Rewrite
    warnings: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)


def prune(adapter: Adapter, plan: Plan, settings: Settings = DEFAULT, *, flat: bool = False) -> Pruned:
    """Apply a plan to an adapter. Nothing is written and the input stays as it is; see `write_pruned`.

    Parameters:
        adapter: the adapter that was scanned.
        plan: the chosen modules; every path must be in the adapter.
        settings: mode and loader.
        flat: prune even if the index does not tell the modules apart.

    Raises:
        NothingToAuditError: the plan chooses nothing.
        SelectionError: the index is flat, a path is not in the adapter, or every module would be removed.
        UnsupportedAdapterError: the adapter's base weights change at load (PiSSA and its kin), DoRA in a mode other
            than `remove`, or an adapter the loader rejects.
    """
    chosen = _chosen(adapter, plan, flat=flat)
    peft_config.refuse_changed_base(adapter)
    check_loader(adapter, settings.compat, bake=settings.bake)
    actions, reasons = _actions(adapter, plan.paths, settings)
    kept = [module for module in adapter.modules if actions.get(module.path) != "removed"]
    removed = [module for module in chosen if actions[module.path] == "removed"]
    if not kept:
        raise SelectionError("this removes every module, and loaders reject an adapter without any", fix="prune fewer")
    _refuse_dora([module for module in chosen if actions[module.path] != "removed"])
    if settings.bake and (adapter.format != "peft" or adapter.config is None):
        raise UsageError("--bake-scaling needs a PEFT adapter with its adapter_config.json")
    config = _config(adapter, removed, kept, settings)
    rewrite = Rewrite(
        adapter,
        dropped=frozenset(name for module in removed for name in module.tensor_names),
        edits=_edits(kept, actions, settings),
        config=config,
    )
    notes = (*_removal_notes(adapter, removed, config, settings), *_other_notes(chosen, reasons, settings))
    return Pruned(plan, settings, actions, rewrite, notes, reasons)


def _chosen(adapter: Adapter, plan: Plan, *, flat: bool) -> list[LoraModule]:
    by_path = {module.path: module for module in adapter.modules}
    if unknown := [path for path in plan.paths if path not in by_path]:
        raise SelectionError("the plan names a module that the adapter has not", file=adapter.name, module=unknown[0])
    if not plan.paths:
        raise NothingToAuditError(f"the rule ({plan.rule}) chooses no module, so there is nothing to prune")
    if plan.flat and not flat:
        raise SelectionError(
            f"{plan.index} does not discriminate between these modules, so pruning by it would be arbitrary",
            file=adapter.name,
            fix="choose another index, or --force-flat",
        )
    return [by_path[path] for path in plan.paths]


def _actions(adapter: Adapter, paths: Sequence[str], settings: Settings) -> tuple[dict[str, Action], dict[str, str]]:
    actions = dict.fromkeys(paths, _ACTIONS[settings.mode])
    reasons: dict[str, str] = {}
    if settings.mode == "remove":
        reasons = kept_as_zeros(adapter, set(paths), settings.compat)
        actions.update(dict.fromkeys(reasons, "zeroed"))
    return actions, reasons


def _refuse_dora(modules: Sequence[LoraModule]) -> None:
    for module in modules:
        if module.dora:
            raise UnsupportedAdapterError(
                "its DoRA magnitude would still rescale the base weight",
                module=module.path,
                shape=(module.m, module.n),
                fix="use --mode remove",
            )


def _config(
    adapter: Adapter, removed: Sequence[LoraModule], kept: Sequence[LoraModule], settings: Settings
) -> dict[str, Any] | None:
    if adapter.config is None:
        return None
    config = dict(adapter.config)
    if adapter.format == "peft":
        config = peft_config.without_modules(config, removed, kept)
        if settings.bake:
            config = peft_config.baked(config, kept, by_tensor=settings.compat == "llamacpp")
    return config


def _edits(kept: Sequence[LoraModule], actions: Mapping[str, Action], settings: Settings) -> dict[str, Edit]:
    changes: dict[str, list[Change]] = defaultdict(list)
    edits: dict[str, Edit] = {}
    largest = max(module.rank for module in kept)
    for module in kept:
        action = actions.get(module.path)
        if action == "clipped" and not _has_component(module, settings.component):
            action = None  # there is nothing to clip, and writing it anew would only round it
        baked = 1.0
        if settings.bake:
            baked = peft_config.baked_factor(module, largest, by_tensor=settings.compat == "llamacpp")
        if action is None and baked == 1.0:
            continue
        times = {"zeroed": 0.0, "scaled": settings.factor}.get(action or "", 1.0) * baked
        if action == "clipped":
            changes[module.A.tensor.name].append((module.A, partial(_clipped, module, settings.component, 0, 1.0)))
            changes[module.B.tensor.name].append((module.B, partial(_clipped, module, settings.component, 1, baked)))
        else:
            changes[module.B.tensor.name].append((module.B, partial(_scaled, module, times)))
        if times != 1.0:
            edits.update(
                (name, Edit(scale=times)) for name in module.extras if ".lora_B." in name and name.endswith("bias")
            )
    return edits | {name: Edit(changes=tuple(made)) for name, made in changes.items()}


def _scaled(module: LoraModule, times: float) -> Array:
    # Multiplying by 0 would keep the signs of zeros and turn nothing else into what zeros() is.
    if times == 0.0:
        return np.zeros(module.B.shape)
    return module.B.array().astype(np.float64) * times


def _clipped(module: LoraModule, component: int, which: int, times: float) -> Array:
    return clip_factors(module.A.array(), module.B.array(), component)[which] * times


def _removal_notes(
    adapter: Adapter, removed: Sequence[LoraModule], config: Mapping[str, Any] | None, settings: Settings
) -> list[str]:
    if not removed or adapter.format != "peft":
        return []
    if config is None or adapter.config is None:
        return ["no adapter_config.json: a loader that builds modules from its own list will build these again"]
    if settings.compat == "peft" and config.get("exclude_modules") != adapter.config.get("exclude_modules"):
        return [f"excluded modules need PEFT {peft_config.FIRST_PEFT} or newer to load"]
    return []


def _other_notes(chosen: Sequence[LoraModule], reasons: Mapping[str, str], settings: Settings) -> list[str]:
    notes = []
    for reason in sorted(set(reasons.values())):
        count = sum(given == reason for given in reasons.values())
        subject = "1 module stays as a zero tensor" if count == 1 else f"{count} modules stay as zero tensors"
        notes.append(f"{subject} instead of leaving: each {reason}")
    small = sum(not _has_component(module, settings.component) for module in chosen)
    if settings.mode == "clip" and small:
        which = f"{small} of the {len(chosen)} modules clipped"
        notes.append(f"fewer than {settings.component} components in {which}: these stay as they are")
    return notes


def _has_component(module: LoraModule, component: int) -> bool:
    return min(module.m, module.n, module.rank) >= component
