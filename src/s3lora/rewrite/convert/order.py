"""The rows of q and k in the order of Transformers, by the heads that the base has, before anything is converted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from s3lora.adapter.factors import Factor
from s3lora.adapter.formats.named import PAIRED
from s3lora.adapter.formats.rows import heads_of, unpaired
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.errors import UnsupportedAdapterError
from s3lora.wording import worded


def unknown_order(adapter: Adapter) -> list[LoraModule]:
    """Return the modules whose rows lie in pairs, or may, of heads that nobody has counted."""
    return [module for module in adapter.modules if module.order != "halves"]


def in_order(adapter: Adapter, base: Mapping[str, Any] | None) -> Adapter:
    """Return the adapter with all rows as Transformers has them.

    Raises UnsupportedAdapterError where neither the file nor `base`, the configuration of the base, says how many heads
    there are, and AdapterFileError where they cannot share the rows.
    """
    if not (unknown := unknown_order(adapter)):
        return adapter
    refuse_unknown_order(adapter, unknown if base is None else [])
    return dataclasses.replace(
        adapter, modules=tuple(_put_back(module, base or {}, adapter) for module in adapter.modules)
    )


def refuse_unknown_order(adapter: Adapter, unknown: list[LoraModule]) -> None:
    """Raise UnsupportedAdapterError if there are such modules."""
    if unknown:
        module, how = unknown[0], "has" if unknown[0].order == "pairs" else "may have"
        what = f"{how} the rows of q and k in pairs of each head, and nothing says how many heads there are"
        fix = worded("give {base} the config.json of the base, or put it beside the adapter")
        raise UnsupportedAdapterError(what, file=adapter.name, module=module.path, shape=(module.m, module.n), fix=fix)


def _put_back(module: LoraModule, base: Mapping[str, Any], adapter: Adapter) -> LoraModule:
    if module.order == "halves" or (module.order == "either" and base.get("model_type") not in PAIRED):
        return dataclasses.replace(module, order="halves")
    heads = heads_of(base, module.projection)
    if heads is None or not isinstance(module.B, Factor):
        refuse_unknown_order(adapter, [module])
        return module
    return dataclasses.replace(module, B=unpaired(module.B, heads, module.path, adapter.name), order="halves")
