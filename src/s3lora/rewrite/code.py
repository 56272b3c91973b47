"""What points to code in an `adapter_config.json`: it is not written, or a user is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3lora.adapter.inventory.configs import read_config
from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import CONFIG


def without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration of PEFT without `auto_map`, which points to code and is no field of PEFT."""
    return {name: value for name, value in config.items() if name != "auto_map"}


def code_notes(adapter: Adapter) -> list[str]:
    """Return what a user should know of what the configuration points to."""
    if adapter.config_raw is None:
        return []
    runs = read_config(adapter.config_raw, CONFIG).runs
    taken = [name for name in runs if name.startswith("auto_map:") and adapter.format == "peft"]
    notes = [f"{CONFIG} is written without {name}, which points to code" for name in taken]
    return notes + [f"{CONFIG} still points to code: {name}" for name in runs if name not in taken]
