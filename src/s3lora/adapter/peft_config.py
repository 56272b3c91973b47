"""What an `adapter_config.json` must say after modules left the file, so that PEFT does not build them again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from s3lora.adapter.model import Adapter, LoraModule
from s3lora.errors import UnsupportedAdapterError, printable

#: Initialisations that change the base weight when the adapter is loaded.
BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
#: First release of PEFT that reads `exclude_modules`.
FIRST_PEFT = "0.14.0"


def refuse_changed_base(adapter: Adapter) -> None:
    """Raise UnsupportedAdapterError if the base weights are changed at load: without its update they would be wrong."""
    method = (adapter.config or {}).get("init_lora_weights")
    if isinstance(method, str) and method.lower().startswith(BASE_CHANGING):
        raise UnsupportedAdapterError(
            f"was initialised by {printable(method, 40)}, which changes the base weights at load: a module without "
            "its update would leave a wrong base behind",
            file=adapter.name,
            fix="convert it to an ordinary LoRA first: save it with `path_initial_model_for_weight_conversion`",
        )


def without_modules(
    config: Mapping[str, Any], removed: Sequence[LoraModule], kept: Sequence[LoraModule]
) -> dict[str, Any]:
    """Return the configuration that excludes `removed`: full paths in `exclude_modules`, every other field as it was.

    A projection type that is gone altogether also leaves `target_modules`, and fused experts leave
    `target_parameters`.
    """
    result = dict(config)
    plain = [module for module in removed if module.group is None]
    kept_plain = [module.path for module in kept if module.group is None]
    targets = config.get("target_modules")
    if isinstance(targets, list):
        gone = _gone([str(target) for target in targets], [module.path for module in plain], kept_plain)
        if gone:
            result["target_modules"] = [target for target in targets if target not in gone]
            # What is no longer targeted needs no exclusion, and PEFT warns of exclusions that match nothing.
            left = [str(target) for target in result["target_modules"]]
            plain = [module for module in plain if any(_names(target, module.path) for target in left)]
    if plain:
        paths = [module.path for module in plain]
        result["exclude_modules"] = _excluded(config.get("exclude_modules"), paths, kept_plain)
    if any(module.group for module in removed):
        result["target_parameters"] = _parameters(config, {m.group for m in removed}, kept)
    return result


def _names(target: str, path: str) -> bool:
    return path == target or path.endswith(f".{target}")


def _gone(targets: list[str], removed: list[str], kept: list[str]) -> set[str]:
    """Return the entries of `target_modules` that named removed modules and name no other module any more."""
    return {
        target
        for target in targets
        if any(_names(target, path) for path in removed) and not any(_names(target, path) for path in kept)
    }


def _excluded(before: Any, paths: list[str], kept: list[str]) -> list[str] | str:
    """Return `exclude_modules`; a regular expression where a plain path would also match a kept module's suffix."""
    ambiguous = any(other.endswith(f".{path}") for path in paths for other in kept)
    if isinstance(before, str) and before:
        return "|".join((f"(?:{before})", *(re.escape(path) for path in paths)))
    earlier = [str(entry) for entry in before] if isinstance(before, list | tuple) else []
    if ambiguous:
        suffixes = (rf"(?:.*\.)?{re.escape(entry)}" for entry in earlier)
        return "|".join((*suffixes, *(re.escape(path) for path in paths)))
    return earlier + [path for path in paths if path not in earlier]


def _parameters(config: Mapping[str, Any], gone: set[str | None], kept: Sequence[LoraModule]) -> list[str]:
    """Return `target_parameters` with full paths of the containers that are still there."""
    names = [str(name) for name in config.get("target_parameters") or ()]
    containers = sorted({module.group for module in kept if module.group and module.group not in gone})
    return [
        f"{container}.{name.rpartition('.')[2]}"
        for container in containers
        for name in names
        if f"{container}.{name.rpartition('.')[2]}".endswith(name)
    ]


def baked(config: Mapping[str, Any], kept: Sequence[LoraModule], *, by_tensor: bool) -> dict[str, Any]:
    """Return the configuration that goes with scalings baked into lora_B: `lora_alpha` = `r` = the largest rank.

    Loaders that read `lora_alpha / r` once then scale by 1. PEFT reads the patterns as well and gets alpha = rank for
    each module, unless `by_tensor`: llama.cpp divides the one `lora_alpha` by each tensor's own rank, which
    `baked_factor` has made up for, and PEFT does the same without an `alpha_pattern`.
    """
    largest = max(module.rank for module in kept)
    others = {re.escape(module.path): module.rank for module in kept if module.rank != largest}
    result = dict(config, r=largest, lora_alpha=largest, use_rslora=False)
    result["rank_pattern"] = others
    result["alpha_pattern"] = {} if by_tensor else dict(others)
    return result


def baked_factor(module: LoraModule, kept: Sequence[LoraModule], *, by_tensor: bool) -> float:
    """Return what lora_B is multiplied by so that the update stays the same under `baked`."""
    largest = max(other.rank for other in kept)
    return module.scaling.value * (module.rank / largest if by_tensor else 1.0)


def has_patterns(config: Mapping[str, Any]) -> bool:
    """Return whether the scaling is anything but one `lora_alpha / r`."""
    return bool(config.get("use_rslora") or config.get("alpha_pattern") or config.get("rank_pattern"))
