"""Adapter and its measurements → rows of the dataset's tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from s3lora.adapter.model import Adapter
from s3lora.errors import S3LoRAError, printable
from s3lora.fleet.families import base_family
from s3lora.fleet.results.content import Content
from s3lora.fleet.results.schema import COLUMNS, Table, arrow_schema
from s3lora.measure.scan import ModuleScan
from s3lora.needs import need
from s3lora.outside import without_secrets

Row = dict[str, Any]
#: Longest text of a configuration that is kept.
LONGEST = 200


def stored_uri(uri: str) -> str:
    """Return `uri` as the tables hold it: without secrets, and foreign bytes of a name that is no UTF-8 as escapes.

    >>> stored_uri("adapters/caf\\udce9")
    'adapters/caf\\\\udce9'
    """
    return without_secrets(uri.encode("utf-8", "backslashreplace").decode())


def adapter_row(uri: str, adapter: Adapter, content: Content, fingerprint: str, size: int) -> Row:
    """Return what is known of an adapter before any spectrum; `measured` completes it."""
    ranks = [module.rank for module in adapter.modules]
    return {
        "uri": uri,
        "name": printable(adapter.name),
        "format": adapter.format,
        "content": content.measured,
        "tensors": content.tensors,
        "fingerprint": fingerprint,
        "base_model": _text(adapter.base_model),
        "base_family": base_family(adapter.base_model),
        "rank_min": min(ranks),
        "rank_max": max(ranks),
        "modules": len(adapter.modules),
        "parameters": sum(module.parameters for module in adapter.modules),
        "bytes": size,
        "dtype": "+".join(sorted({module.dtype for module in adapter.modules})),
        "projections": printable("+".join(sorted({module.projection for module in adapter.modules})), 400),
        "form": "+".join(sorted({module.form for module in adapter.modules})),
        **_recipe(adapter.config or {}),
    }


def measured(records: Sequence[ModuleScan], warnings: Iterable[str], signature: Mapping[str, float | None]) -> Row:
    """Return the columns of an adapter's row that only its measurement gives."""
    return {
        "zero_modules": sum(record.zero for record in records),
        "nonfinite_modules": sum(record.nonfinite for record in records),
        "overflow_modules": sum(record.overflows for record in records),
        "warnings": [printable(warning, 400) for warning in warnings],
        **{f"signature_{name}": value for name, value in signature.items()},
    }


def module_rows(uri: str, records: Sequence[ModuleScan]) -> list[Row]:
    """Return one row a module."""
    layers = [record.layer for record in records if record.layer is not None]
    first, last = min(layers, default=0), max(layers, default=0)
    return [
        {
            "uri": uri,
            "path": stored_uri(record.path),
            "layer": record.layer,
            "layer_third": None if record.layer is None else third(record.layer, first, last),
            "projection": stored_uri(record.projection),
            "expert": record.expert,
            "kind": record.kind,
            "m": record.shape[0],
            "n": record.shape[1],
            "rank": record.rank,
            "form": record.form,
            "dtype": record.dtype,
            "scaling": record.scaling,
            "scaling_origin": record.scaling_origin,
            "dora": record.dora,
            "parameters": record.parameters,
            "zero": record.zero,
            **record.indices,
        }
        for record in records
    ]


def third(layer: int, first: int, last: int) -> int:
    """Return 0, 1 or 2: in which third of the layers from `first` to `last`, both included, a layer lies.

    >>> [third(layer, 0, 5) for layer in range(6)]
    [0, 0, 1, 1, 2, 2]
    """
    return 3 * (layer - first) // (last - first + 1)


def error_row(uri: str, kind: str, reason: str, *, transient: bool, fingerprint: str | None) -> Row:
    """Return the row of an input that gave no result."""
    return {"uri": uri, "kind": kind, "reason": reason, "transient": transient, "fingerprint": fingerprint}


def kind_of(error: BaseException) -> str:
    """Return the sort of an error: the name of its class, without `Error`, and `Internal` for what nobody foresaw."""
    if isinstance(error, S3LoRAError | OSError | MemoryError):
        return type(error).__name__.removesuffix("Error") or "OS"
    return "Internal"


def to_table(table: Table, rows: Sequence[Row]) -> Any:
    """Return the rows as a `pyarrow.Table` of the table's schema; a column that a row lacks is null."""
    pa = need("pyarrow", "fleet")
    schema = arrow_schema(table)
    columns = {column.name: [row.get(column.name) for row in rows] for column in COLUMNS[table]}
    return pa.Table.from_pydict(columns, schema=schema)


def _recipe(config: Mapping[str, Any]) -> Row:
    """Return the facts of a configuration that tell one recipe from another; what is of no such type is left out."""
    return {
        "lora_alpha": _number(config.get("lora_alpha")),
        "lora_dropout": _number(config.get("lora_dropout")),
        "use_rslora": _flag(config.get("use_rslora")),
        "use_dora": _flag(config.get("use_dora")),
        "init": _text(config.get("init_lora_weights")),
        "task_type": _text(config.get("task_type")),
        "peft_version": _text(config.get("peft_version")),
    }


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    """Return a text or a flag (`init_lora_weights` may be either) as a text."""
    if isinstance(value, bool):
        return str(value).lower()
    return printable(value, LONGEST) if isinstance(value, str) else None
