"""Simulate the energy of random updates by rank and shape, for `src/s3lora/data/reference/null.json`.

    python -m docs.make_null

Takes some minutes. The factors of a random update are m × r and r × n standard normal numbers. What their product has
of singular values is that of two r × r triangles, whose distribution is known (Bartlett 1933): no draw costs more than
these, however large m and n are.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

OUT = Path(__file__).parents[1] / "src" / "s3lora" / "data" / "reference" / "null.json"
RANKS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256)
#: log2 of m / r and of n / r.
RATIOS = tuple(range(13))
#: Fewer draws suffice at large ranks, where the energy of a random update hardly varies.
DRAWS, LEAST = 8_000, 25


def triangles(random: np.random.Generator, rows: int, rank: int, draws: int) -> NDArray[np.float64]:
    """Return the R of the QR decomposition of random rows × rank matrices, draws × rank × rank."""
    found = np.triu(random.standard_normal((draws, rank, rank)), 1)
    degrees = rows - np.arange(rank)
    found[:, np.arange(rank), np.arange(rank)] = np.sqrt(random.chisquare(degrees, (draws, rank)))
    return found


def energies(m: int, n: int, rank: int, draws: int) -> NDArray[np.float64]:
    """Return the energy of the first direction of `draws` random updates."""
    random = np.random.default_rng((m, n, rank))
    core = triangles(random, m, rank, draws) @ triangles(random, n, rank, draws).swapaxes(1, 2)
    squares = np.linalg.eigvalsh(core @ core.swapaxes(1, 2))
    return np.asarray(squares[:, -1] / squares.sum(axis=1))


def excess(rank: int, x: int, y: int) -> float:
    """Return r · (median energy) − 1 for m = 2^x · r and n = 2^y · r."""
    draws = max(LEAST, DRAWS // rank**2 * 4 + 1)
    return float(np.median(energies(rank << x, rank << y, rank, draws))) * rank - 1


def made() -> str:
    """Return the file."""
    with threadpool_limits(limits=1, user_api="blas"):
        table = [[[float(f"{excess(r, x, y):.4g}") for y in RATIOS if y >= x] for x in RATIOS] for r in RANKS]
    told = {
        "schema_version": 1,
        "what": "r * (median energy of random Gaussian updates) - 1, by rank r, log2(m / r) and log2(n / r) >= that",
        "ranks": RANKS,
        "ratios": RATIOS,
        "excess": table,
    }
    return json.dumps(told, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    OUT.write_text(made(), encoding="utf-8")
