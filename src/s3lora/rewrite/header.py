"""What the header of a file says of its modules must follow when some of them leave: Diffusers builds them by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec

from s3lora.adapter import peft_config
from s3lora.adapter.formats.header import DIFFUSERS, diffusers_configs
from s3lora.adapter.model import Adapter, LoraModule


def header_without(adapter: Adapter, removed: Sequence[LoraModule], kept: Sequence[LoraModule]) -> dict[str, str]:
    """Return the metadata that changes: PEFT's configurations in it exclude what is removed."""
    metadata = {key: value for file in adapter.files for key, value in file.metadata.items()}
    if not removed or DIFFUSERS not in metadata:
        return {}
    made = {}
    for model, config in diffusers_configs(metadata).items():
        left = _within(model, kept)
        if left:
            config = peft_config.without_modules(config, _within(model, removed), left)
            made.update({f"{model}.{field}": value for field, value in config.items()})
    return {DIFFUSERS: msgspec.json.encode(made, order="sorted").decode()}


def _within(model: str, modules: Sequence[LoraModule]) -> list[LoraModule]:
    """Return the modules of one model, each with its path in it."""
    prefix = f"{model}."
    return [
        dataclasses.replace(module, path=module.path.removeprefix(prefix))
        for module in modules
        if module.path.startswith(prefix)
    ]
