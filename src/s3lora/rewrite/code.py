"""What points to code in an `adapter_config.json`: it is not written, and a user is told of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from s3lora.adapter.inventory.configs import points_to_code, read_config
from s3lora.adapter.inventory.templates import MAX_TEMPLATE, reaches
from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import CONFIG

#: Tables of a configuration whose keys are names of modules.
_BY_MODULE = ("rank_pattern", "alpha_pattern", "trainable_token_indices")
#: What one note names.
NAMED = 5


def without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the entries that point to code, such as `auto_map`, however deep they lie."""
    clean = dict(config)
    waiting: list[Any] = [clean]
    while waiting:
        one = waiting.pop()
        for key, value in [*(one.items() if isinstance(one, dict) else enumerate(one))]:
            if one is clean and key in _BY_MODULE:
                continue
            if isinstance(one, dict) and points_to_code(key, value):
                del one[key]
            elif isinstance(value, dict | list):
                one[key] = value.copy()
                waiting.append(one[key])
    return clean


def code_notes(adapter: Adapter, written: Mapping[str, Any] | None) -> list[str]:
    """Return what a user should know of what the configuration points to, beside the one that is written."""
    if adapter.config_raw is None or written is None:
        return []
    before, unnamed = _pointed_to(adapter.config_raw)
    still, more = _pointed_to(json.dumps(written).encode())
    taken = [what for what in before if what not in still]
    gone = len(before) + unnamed - len(still) - more
    told = (
        (_some(taken, gone - len(taken)), "is written without what points to code"),
        (_some(still, more), "still points to code"),
    )
    return [f"{CONFIG} {what}: {found}" for found, what in told if found]


def some_pointers(raw: bytes) -> str:
    """Return in words what a configuration points to, empty where that is nothing."""
    return _some(*_pointed_to(raw))


def _some(named: Sequence[str], more: int) -> str:
    """Return the first few in words, and how many there are beside them."""
    more += len(named[NAMED:])
    return ", ".join([*named[:NAMED], *([f"and {more:,} more"] if more else [])])


def _pointed_to(raw: bytes) -> tuple[tuple[str, ...], int]:
    """Return what a configuration points to, in words, as many as an inventory lists, and how many more there are."""
    found = read_config(raw, CONFIG)
    templates = dict.fromkeys(f"chat template: {what}" for source in found.templates for what in reaches(source)[0])
    long = sum(map(len, found.templates))
    named = (*found.runs, *templates, *([f"chat templates of {long:,} characters"] if long > MAX_TEMPLATE else []))
    return named, found.more
