"""What docs/method.md claims, measured: on seeded random updates, on the built-in example, on published adapters.

Everything returns plain numbers by name; nothing here knows how they are shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import s3lora
from s3lora.errors import S3LoRAError
from s3lora.measure.scan import Scan
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.indices import ssi
from s3lora.spectrum.methods import mas_svd, spsvd, svd
from s3lora.spectrum.released import DIRECTIONS, INDEX_EPSILON, NORM_EPSILON, released_value
from s3lora.statistics import spearman

EXAMPLE = Path(s3lora.__file__).parent / "data" / "demo-adapter"
SPECTRAL = {"svd": svd, "spsvd": spsvd, "mas-svd": mas_svd}
#: ΔW of so many entries is still formed for `released`: a minute a module beyond it.
LARGEST = 4_000_000

Array = NDArray[np.float64]


def robustness(draws: int = 20, factor: float = 30.0, spoilt: Sequence[int] = (0, 1, 2, 5, 20)) -> dict[str, Any]:
    """Return the mean SSI by each method where some rows of a random update are multiplied by a factor."""
    random = np.random.default_rng(0)
    found: dict[str, list[list[float]]] = {name: [[] for _ in spoilt] for name in SPECTRAL}
    for _ in range(draws):
        A, B = random.standard_normal((8, 384)), random.standard_normal((512, 8))
        order = random.permutation(512)
        for column, count in enumerate(spoilt):
            larger = B.copy()
            larger[order[:count]] *= factor
            update = FactoredUpdate(A, larger)
            for name, method in SPECTRAL.items():
                found[name][column].append(ssi(method(update)))
    means = {name: [_short(fmean(values)) for values in columns] for name, columns in found.items()}
    return {"shape": [512, 384], "rank": 8, "draws": draws, "factor": factor, "rows": list(spoilt), "ssi": means}


def agreement() -> float:
    """Return how far mas-svd is from svd, relative to it, where all rows have one norm and all columns have one."""
    hadamard = np.ones((1, 1))
    while len(hadamard) < 64:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    update = FactoredUpdate(np.diag(2.0 ** -np.arange(8)) @ hadamard[:8], hadamard[:, 8:16])
    return float(np.max(np.abs(mas_svd(update) / svd(update) - 1)))


def chance(shapes: Iterable[tuple[int, int]], rank: int = 8, draws: int = 200) -> dict[str, float]:
    """Return the mean SSI of random Gaussian updates, by shape."""
    random = np.random.default_rng(0)
    return {
        f"{m}×{n}": _short(
            fmean(
                ssi(mas_svd(FactoredUpdate(random.standard_normal((rank, n)), random.standard_normal((m, rank)))))
                for _ in range(draws)
            )
        )
        for m, n in shapes
    }


def random_updates(count: int = 48, size: int = 256) -> list[FactoredUpdate]:
    """Return updates of one shape and rank 8, which differ in size by a hundred and in how their spectrum falls."""
    random = np.random.default_rng(0)
    updates = []
    for _ in range(count):
        spread = random.uniform(0.2, 5, size=8) * 10 ** random.uniform(-1, 1)
        A, B = random.standard_normal((8, size)), random.standard_normal((size, 8)) * spread / size
        updates.append(FactoredUpdate(A, B))
    return updates


def example_updates() -> dict[str, list[FactoredUpdate]]:
    """Return the updates of the built-in example by projection."""
    found: dict[str, list[FactoredUpdate]] = {}
    with s3lora.open_adapter(EXAMPLE) as adapter:
        for module in adapter.modules:
            factors = (np.array(factor.array(), dtype=np.float64) for factor in (module.A, module.B))
            found.setdefault(module.projection, []).append(FactoredUpdate(*factors, module.scaling.value))
    return found


class Values(NamedTuple):
    """The value of `released` for some updates, and what it is under another basis of the null space."""

    updates: Sequence[FactoredUpdate]
    found: Sequence[float]
    turned: Sequence[float] | None


def values_of(updates: Sequence[FactoredUpdate], *, turned: bool = True) -> Values:
    """Compute `released`, and with another basis besides."""
    with threadpool_limits(limits=1, user_api="blas"):
        found = [released_value(update) for update in updates]
        if not turned:
            return Values(updates, found, None)
        others = [turned_value(*pair, seed) for seed, pair in enumerate(zip(updates, found, strict=True))]
    return Values(updates, found, others)


def released(values: Values) -> dict[str, Any]:
    """Return what orders the modules by `released`, and whether another basis of the null space orders them alike."""
    updates, found, others = values
    index = [ssi(np.array([value]), INDEX_EPSILON) for value in found]
    result = {
        "modules": len(updates),
        "least": _short(min(index)),
        "greatest": _short(max(index)),
        "size": _rho(index, [float(update.singular_values[0]) for update in updates]),
        "sharpness": _rho(index, [ssi(update.singular_values) for update in updates]),
    }
    if others is not None:
        result["turned"] = _rho(found, others)
        # By which factor it moves, up or down.
        factors = [max(a, b) / min(a, b) for a, b in zip(found, others, strict=True)]
        result["turned_factor"] = _short(float(median(factors)), 2)
    return result


def by_rows(rows: Sequence[int] = (96, 192, 384, 576), columns: int = 576, draws: int = 10) -> dict[str, float]:
    """Return the mean index by `released` of random updates that are alike in size, and differ in their rows only."""
    random = np.random.default_rng(0)
    found = {}
    with threadpool_limits(limits=1, user_api="blas"):
        for m in rows:
            values = []
            for _ in range(draws):
                A, B = random.standard_normal((8, columns)), random.standard_normal((m, 8))
                values.append(released_value(FactoredUpdate(A, B / np.linalg.norm(B) / np.linalg.norm(A))))
            found[str(m)] = _short(fmean(ssi(np.array([value]), INDEX_EPSILON) for value in values), 3)
    return found


def turned_value(update: FactoredUpdate, value: float, seed: int) -> float:
    """Return what `released_value`, here `value`, would be, had the linear-algebra library chosen another basis.

    The singular vectors beyond the rank are turned among themselves by a random orthogonal matrix. The result is as
    much a singular value decomposition as the one before, which is checked, as are the steps taken after it.
    """
    delta = update.B.astype(np.float64) @ update.A.astype(np.float64)
    rows, columns = (np.linalg.norm(delta, axis=axis, keepdims=True) + NORM_EPSILON for axis in (1, 0))
    right = np.linalg.svd(delta / rows, full_matrices=False)[2][:DIRECTIONS]
    U, S, Vt = np.linalg.svd(delta / columns, full_matrices=False)
    assert math.isclose(_fitted(delta, rows, U[:DIRECTIONS], right), value)
    free = U.shape[1] - update.rank
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((free, free)))[0]
    U[:, update.rank :] @= turn
    assert np.allclose(U * S @ Vt, delta / columns, atol=1e-12)
    assert np.allclose(U.T @ U, np.eye(U.shape[1]), atol=1e-10)
    return _fitted(delta, rows, U[:DIRECTIONS], right)


def _fitted(delta: Array, rows: Array, left: Array, right: Array) -> float:
    """Return the script's value for the pair of directions that fits best, by the absolute deviations."""
    best, value = np.inf, 0.0
    for u in left:
        for v in right:
            products = np.sort((delta @ v) * u)
            d = products[(len(products) - 1) // 2]
            deviation = float(np.abs(delta - d * np.outer(u, v)).sum())
            if deviation < best:
                best, value = deviation, abs(d) * float(np.linalg.norm(rows[:, 0] * u)) * float(np.linalg.norm(v))
    return value


def rankings(path: Path, *, with_released: bool) -> dict[str, Any]:
    """Return what the methods make of one adapter: the range of its SSI, and how alike they order its modules."""
    with s3lora.open_adapter(path) as adapter:
        scans = {method: s3lora.scan(adapter, method) for method in SPECTRAL}
        shapes = [(module.m, module.n) for module in adapter.modules]
        if with_released and all(m > n or m * n <= LARGEST for m, n in shapes):
            scans["released"] = s3lora.scan(adapter, "released")
    first = scans["mas-svd"]
    used = [module for module in first.modules if not module.zero]
    values = [module.indices["ssi"] or 0.0 for module in used]
    found: dict[str, Any] = {
        "modules": len(first.modules),
        "zero": len(first.modules) - len(used),
        "ranks": sorted({module.rank for module in used}),
        "m_above_n": sum(m > n for m, n in shapes),
    }
    if values:
        found["ssi"] = [_short(number) for number in (min(values), median(values), max(values))]
        found["rho"] = {
            name: _between(first, "ssi", scans[method], index)
            for name, method, index in (
                ("svd", "svd", "ssi"),
                ("spsvd", "spsvd", "ssi"),
                ("magnitude", "mas-svd", "magnitude"),
                ("frobenius", "mas-svd", "frobenius"),
            )
        }
    if "released" in scans:
        found["rho_released"] = {
            index: _between(scans["released"], "ssi", first, index) for index in ("ssi", "magnitude")
        }
    return found


def projections(tops: Sequence[int] = (10, 30, 60)) -> dict[str, Any]:
    """Return, for the built-in example, the mean SSI of each projection, and how many of the sharpest are of it."""
    scan = s3lora.scan(EXAMPLE)
    names = list(dict.fromkeys(module.projection for module in scan.modules))
    chosen = {top: [scan[p].projection for p in s3lora.select(scan, s3lora.Top(top)).paths] for top in tops}
    return {
        name: {
            "shape": list(next(module.shape for module in scan.modules if module.projection == name)),
            "modules": sum(module.projection == name for module in scan.modules),
            "ssi": _short(fmean(m.indices["ssi"] or 0.0 for m in scan.modules if m.projection == name)),
            "among": {str(top): kinds.count(name) for top, kinds in chosen.items()},
        }
        for name in names
    }


def published(folder: Path, *, with_released: bool = True) -> dict[str, Any]:
    """Return the rankings of every adapter in a folder; of one that is refused, the reason."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(path.glob("*.safetensors"))
        for place in files if len(files) > 1 else [path]:
            name = path.name if place == path else f"{path.name}, {place.stem}"
            try:
                found[name] = rankings(place, with_released=with_released)
            except S3LoRAError as error:
                found[name] = {"refused": error.problem}
    return found


def _between(a: Scan, index_a: str, b: Scan, index_b: str) -> float | None:
    """Return Spearman's rank correlation of two indices over the modules that have both."""
    pairs = [(x.indices[index_a], y.indices[index_b]) for x, y in zip(a.modules, b.modules, strict=True)]
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    return _rho([x for x, _ in known], [y for _, y in known]) if len(known) > 2 else None


def _rho(x: Sequence[float], y: Sequence[float]) -> float | None:
    found = spearman(x, y)
    return None if found is None else _short(found, 3)


def _short(value: float, digits: int = 4) -> float:
    """Round, so that another processor gives the same file unless something changes."""
    return round(float(value), digits)
