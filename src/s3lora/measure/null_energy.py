"""The energy of random updates, from a shipped table by rank and shape; `docs/make_null.py` makes it."""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import msgspec
import numpy as np

from s3lora.spectrum.tall import Float

FILE = "data/reference/null.json"
#: Ranks below are silent, and those above are not in the table.
RANKS = (2, 256)


class _StoredNull(msgspec.Struct):
    ranks: list[int]
    ratios: list[int]
    excess: list[list[list[float]]]


class NullTable(NamedTuple):
    """log(r · energy − 1) of random updates; `values` is ranks × ratios × ratios."""

    ranks: Float
    ratios: Float
    values: Float


@lru_cache(maxsize=1)
def null_table() -> NullTable:
    """Return the table, which is read once."""
    found = msgspec.json.decode((files("s3lora") / FILE).read_bytes(), type=_StoredNull)
    count = len(found.ratios)
    values = np.zeros((len(found.ranks), count, count))
    for i, of_rank in enumerate(found.excess):
        for x, row in enumerate(of_rank):
            values[i, x, x:] = values[i, x:, x] = np.log(row)
    return NullTable(np.log2(np.asarray(found.ranks, float)), np.asarray(found.ratios, float), values)


@lru_cache(maxsize=8192)
def null_energy(m: int, n: int, rank: int) -> float | None:
    """Return the median energy of random m × n updates of a rank, in [1/r, 1]; None where the table has none.

    It has none for rank 1, ranks above 256, and ranks above m or n. Between its entries the logarithm of
    r · energy − 1 is interpolated: the energy is then at most 3 % off, and .6 % as a rule.

    >>> round(null_energy(768, 768, 8), 3), null_energy(768, 768, 1)
    (0.156, None)
    """
    low, high = RANKS
    if not low <= rank <= high or min(m, n) < rank:
        return None
    table = null_table()
    i, across = _between(math.log2(rank), table.ranks)
    x, right = _between(math.log2(m / rank), table.ratios)
    y, down = _between(math.log2(n / rank), table.ratios)
    cube = table.values[i : i + 2, x : x + 2, y : y + 2]
    logarithm = np.einsum("ixy,i,x,y", cube, (1 - across, across), (1 - right, right), (1 - down, down))
    return (1 + math.exp(float(logarithm))) / rank


def _between(value: float, grid: Float) -> tuple[int, float]:
    """Return the place of the last grid point that is not above the value, and how far it is to the next, in [0, 1]."""
    place = min(max(int(np.searchsorted(grid, value, "right")) - 1, 0), len(grid) - 2)
    return place, float(min(max((value - grid[place]) / (grid[place + 1] - grid[place]), 0.0), 1.0))
