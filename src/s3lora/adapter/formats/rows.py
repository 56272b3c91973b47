"""The order of the rows of q and k: llama.cpp and torchtune keep the two halves of each head in pairs.

Rotary embeddings turn two rows of a head at a time. Transformers takes them from the two halves of the head; the other
two have them beside each other. Undoing it needs the number of heads. No index depends on the order of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from s3lora.adapter.factors import DerivedFactor, Factor
from s3lora.adapter.tensor import Array
from s3lora.errors import AdapterFileError

#: Projections whose rows are turned.
QUERY, KEY = "q_proj", "k_proj"


def heads_of(model: Mapping[str, Any] | None, projection: str) -> int | None:
    """Return the heads of q or k by a base model's `config.json`, None where it does not say.

    >>> heads_of({"num_attention_heads": 32, "num_key_value_heads": 8}, "k_proj")
    8
    """
    inner = (model or {}).get("text_config")
    config = inner if isinstance(inner, Mapping) else model or {}
    query = config.get("num_attention_heads")
    value = config.get("num_key_value_heads", query) if projection == KEY else query
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 100_000 else None


def unpaired(factor: Factor, heads: int, path: str, label: str) -> DerivedFactor:
    """Return B with its rows in the order of Transformers: in each head the first of all pairs, then the second.

    Raises AdapterFileError where the heads cannot share the rows.
    """
    rows = factor.shape[0]
    if rows % (2 * heads):
        raise AdapterFileError(f"has {rows} rows, which {heads} heads do not share", file=label, module=path)
    split = partial(paired, heads=heads)
    return DerivedFactor((factor,), factor.shape, partial(_halved, heads=heads), lambda matrix: (split(matrix),))


def _halved(stored: Array, *, heads: int) -> Array:
    by_pair = stored.reshape(heads, -1, 2, stored.shape[1])  # (heads, pairs, 2, r)
    return by_pair.swapaxes(1, 2).reshape(stored.shape)


def paired(matrix: Array, *, heads: int) -> Array:
    """Return B (m, r) in the order of llama.cpp, out of that of Transformers: `unpaired` backwards."""
    by_half = matrix.reshape(heads, 2, -1, matrix.shape[1])  # (heads, 2, pairs, r)
    return by_half.swapaxes(1, 2).reshape(matrix.shape)
