"""Made-up populations of labelled signatures whose truth is known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Made(NamedTuple):
    """(n, 20) signatures, their labels, and the recipe of each."""

    x: NDArray[Any]
    y: NDArray[Any]
    recipes: list[str]


def made(n: int, *, shift: float, recipes: int = 4, spread: float = 0.0, share: float = 0.4, seed: int = 0) -> Made:
    """Return n adapters: label 1 moves all numbers by `shift` deviations, a recipe by `spread` some way."""
    random = np.random.default_rng(seed)
    recipe = random.integers(recipes, size=n)
    y = (random.random(n) < share).astype(int)
    x = random.normal(size=(n, 20)) + spread * random.normal(size=(recipes, 20))[recipe]
    x[y == 1] += shift
    # As unlike in scale as the real ones are.
    return Made(x * np.geomspace(1e-3, 1e3, 20) + 5.0, y, [f"recipe {i}" for i in recipe])
