"""What points to code in an `adapter_config.json`: it is not written, or a user is told of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from s3lora.adapter.inventory.configs import read_config
from s3lora.adapter.loaders.peft import FIELDS, KNOWN
from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import CONFIG

#: Fields of PEFT that name what it imports, and have a default that names nothing of a stranger's.
_IMPORTING = frozenset({"auto_mapping", "megatron_core"})
#: Fields of PEFT that say what an adapter means, and are kept whatever they hold.
_MEANT = frozenset({*KNOWN, *FIELDS}) - _IMPORTING


def without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration of PEFT without the fields that point to code, such as `auto_map`."""
    return {name: value for name, value in config.items() if name in _MEANT or not _pointed_to(name, value)}


def code_notes(adapter: Adapter) -> list[str]:
    """Return what a user should know of what the configuration points to."""
    if adapter.config_raw is None or adapter.config is None:
        return []
    kept = without_code(adapter.config) if adapter.format == "peft" else adapter.config
    taken = [what for name, value in adapter.config.items() if name not in kept for what in _pointed_to(name, value)]
    still = [what for what in read_config(adapter.config_raw, CONFIG).runs if what not in taken]
    return [
        *(f"{CONFIG} is written without {what}, which points to code" for what in taken),
        *(f"{CONFIG} still points to code: {what}" for what in still),
    ]


def _pointed_to(name: str, value: Any) -> tuple[str, ...]:
    """Return what one field points to, in words."""
    return read_config(json.dumps({name: value}).encode(), CONFIG).runs
