"""What points to code in an `adapter_config.json`: it is not written, and a user is told of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from s3lora.adapter.inventory.configs import points_to_code, read_config
from s3lora.adapter.inventory.templates import reaches
from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import CONFIG


def without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the entries that point to code, such as `auto_map`, however deep they lie."""
    clean = dict(config)
    waiting: list[Any] = [clean]
    while waiting:
        one = waiting.pop()
        for key, value in [*(one.items() if isinstance(one, dict) else enumerate(one))]:
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
    still = _pointed_to(json.dumps(written).encode())
    taken = [what for what in _pointed_to(adapter.config_raw) if what not in still]
    return [
        *(f"{CONFIG} is written without {what.removeprefix('and ')}, which points to code" for what in taken),
        *(f"{CONFIG} still points to code: {what}" for what in still),
    ]


def _pointed_to(raw: bytes) -> tuple[str, ...]:
    """Return what a configuration points to, in words; they are as few as an inventory lists."""
    found = read_config(raw, CONFIG)
    templates = dict.fromkeys(f"chat template: {what}" for source in found.templates for what in reaches(source)[0])
    return (*found.runs, *templates)
