"""Adapter → Scan: one record a module, in the order of the model."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from threadpoolctl import threadpool_limits

from s3lora._version import __version__
from s3lora.adapter.digest import Source, source_of
from s3lora.adapter.memory import from_model
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.open import open_adapter
from s3lora.errors import NonFiniteError, S3LoRAError, UnsupportedAdapterError, UsageError
from s3lora.spectrum.factored import FactoredUpdate, Float, releasing
from s3lora.spectrum.indices import INDICES, Measured
from s3lora.spectrum.methods import METHODS, Options
from s3lora.spectrum.released import INDEX_EPSILON

SCHEMA_VERSION = 1
#: A smaller spread (max − min) of a scale-free index over the modules does not tell them apart.
FLAT = 0.01
#: Below this many parameters a second thread costs more than it gains: the interpreter's lock changes hands too often.
SMALL = 64_000_000
MAX_WORKERS = 8

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Tool:
    """Which program made a result."""

    name: str = "s3lora"
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that determined the numbers: method, M (`rank`, None for all), fit, sample, seed, kurtosis."""

    method: str = "mas-svd"
    rank: int | None = None
    fit: Literal["l2", "l1"] = "l2"
    sample: int | None = None
    seed: int = 0
    kurtosis: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleScan:
    """What was measured of one module.

    `shape` is [m, n] of ΔW; `sigma` the list σ̃ of the method, descending, empty for a zero update; `indices` maps
    each index to its value, None where it is undefined. `selected` is set by a plan.
    """

    path: str
    layer: int | None
    projection: str
    expert: int | None
    kind: str
    shape: tuple[int, int]
    rank: int
    dtype: str
    scaling: float
    scaling_origin: str
    dora: bool
    parameters: int
    zero: bool
    sigma: tuple[float, ...]
    indices: dict[str, float | None]
    selected: bool = False

    @property
    def nonfinite(self) -> bool:
        """Return whether the module holds NaN or infinity; of any other update at least the norm is known."""
        return not self.zero and self.indices.get("frobenius") is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The measurement of one adapter; `module(path)` finds a record."""

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    configuration: Configuration
    source: Source
    warnings: tuple[str, ...]
    modules: tuple[ModuleScan, ...]

    def module(self, path: str) -> ModuleScan:
        """Return the record of the module at `path`; raise KeyError if there is none."""
        for module in self.modules:
            if module.path == path:
                return module
        raise KeyError(path)


def scan(
    adapter: Adapter | str | os.PathLike[str] | Any,
    method: str = "mas-svd",
    rank: int | None = None,
    *,
    fit: Literal["l2", "l1"] = "l2",
    sample: int | None = None,
    seed: int = 0,
    kurtosis: bool = False,
    nonfinite: bool = False,
    progress: Progress | None = None,
) -> Scan:
    """Score every module of an adapter.

    Parameters:
        adapter: an opened adapter, a path, or a PEFT model in memory.
        method: `mas-svd`, `svd`, `spsvd` or `released`.
        rank: M, the number of components kept, at least 1; None keeps all r.
        fit: `l2` or `l1`, for `spsvd`.
        sample: rows and columns of ΔW drawn for `fit="l1"`, at least 2; None takes all, in O(m·n·r³).
        seed: of that draw.
        kurtosis: also compute the kurtosis of the entries of ΔW.
        nonfinite: keep a module that holds NaN or infinity, without σ̃ and with every index None, instead of raising.
        progress: called with (modules done, modules in all), from the calling thread.

    Raises:
        UsageError: a parameter that cannot be meant.
        NonFiniteError: a module holds NaN or infinity, and `nonfinite` is not set.
        AdapterFileError, UnsupportedAdapterError, NothingToAuditError: as `open_adapter`.
    """
    configuration = _configuration(method, rank, fit, sample, seed, kurtosis)
    if isinstance(adapter, str | os.PathLike):
        with open_adapter(adapter) as opened:
            return _scan(opened, configuration, nonfinite, progress)
    opened = adapter if isinstance(adapter, Adapter) else from_model(adapter)
    return _scan(opened, configuration, nonfinite, progress)


def _configuration(
    method: str, rank: int | None, fit: Literal["l2", "l1"], sample: int | None, seed: int, kurtosis: bool
) -> Configuration:
    if method not in METHODS:
        raise UsageError(f"no method {method!r}", fix=f"choose one of {', '.join(METHODS)}")
    if fit not in ("l2", "l1"):
        raise UsageError(f"no fit {fit!r}", fix="choose l2 or l1")
    for name, value, least in (("rank", rank, 1), ("sample", sample, 2), ("seed", seed, 0)):
        if value is not None and value < least:
            raise UsageError(f"{name} must be {least} or more, not {value}")
    return Configuration(method, rank, fit, sample, seed, kurtosis)


def _scan(adapter: Adapter, configuration: Configuration, nonfinite: bool, progress: Progress | None) -> Scan:
    records: list[ModuleScan] = []
    measure = functools.partial(scan_module, configuration=configuration, label=adapter.name, nonfinite=nonfinite)
    # One BLAS thread a call and one module a worker: two spinning BLAS threads on busy cores cost a factor of ten.
    with threadpool_limits(limits=1, user_api="blas"):
        pool = ThreadPoolExecutor(_workers(adapter))
        hashing = ThreadPoolExecutor(1)
        source = hashing.submit(source_of, adapter)
        try:
            for record in pool.map(measure, adapter.modules):
                records.append(record)
                if progress:
                    progress(len(records), len(adapter.modules))
        except BaseException as error:
            # One robust fit may need hours, which an interruption must not wait for; see `__main__`.
            pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
            hashing.shutdown(wait=isinstance(error, Exception))
            if isinstance(error, S3LoRAError) and adapter.path is not None:
                error.adapter = str(adapter.path)
            raise
        pool.shutdown()
        hashing.shutdown()
        return Scan(
            configuration=configuration,
            source=source.result(),
            warnings=(*adapter.warnings, *warnings_of(records, configuration)),
            modules=tuple(records),
        )


def _workers(adapter: Adapter) -> int:
    if sum(module.parameters for module in adapter.modules) < SMALL:
        return 1
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, MAX_WORKERS))


def scan_module(module: LoraModule, configuration: Configuration, label: str, *, nonfinite: bool = False) -> ModuleScan:
    """Measure one module; its pages are handed back afterwards. `nonfinite` is that of `scan`."""
    try:
        update = FactoredUpdate(module.A.array(), module.B.array(), module.scaling.value)
        with releasing(module.release):
            zero = update.is_zero
            sigma, values = _measure(module, update, configuration, label)
    except FloatingPointError:
        if not nonfinite:
            raise NonFiniteError(
                f"holds NaN or infinity in {_where(module)}",
                file=label,
                module=module.path,
                shape=(module.m, module.n),
                fix="the training diverged or the file is damaged; no spectrum exists",
            ) from None
        zero, sigma, values = False, np.zeros(0), dict.fromkeys(_wanted(configuration), math.nan)
    finally:
        module.release()
    return ModuleScan(
        path=module.path,
        layer=module.layer,
        projection=module.projection,
        expert=module.expert,
        kind=module.kind,
        shape=(module.m, module.n),
        rank=module.rank,
        dtype=module.dtype,
        scaling=module.scaling.value,
        scaling_origin=module.scaling.origin,
        dora=module.dora,
        parameters=module.parameters,
        zero=zero,
        sigma=tuple(float(value) for value in sigma),
        indices={name: value if math.isfinite(value) else None for name, value in values.items()},
    )


def _where(module: LoraModule) -> str:
    for part in module.parts:
        if not np.isfinite(part.array().astype(np.float64)).all():
            return part.tensor.name
    return "its scaling"


def _measure(
    module: LoraModule, update: FactoredUpdate, configuration: Configuration, label: str
) -> tuple[Float, dict[str, float]]:
    """Return (σ̃, indices). Where the method is undefined for this shape, σ̃ is empty and its indices are None."""
    options = Options(configuration.rank, configuration.fit, configuration.sample, configuration.seed)
    sigma: Float = np.zeros(0)
    if not update.is_zero and not _undefined(module, configuration):
        try:
            sigma = METHODS[configuration.method](update, options)
        except ValueError as error:
            raise UnsupportedAdapterError(str(error), file=label, module=module.path) from None
    epsilon = INDEX_EPSILON if configuration.method == "released" else 0.0
    measured = Measured(sigma, update, epsilon)
    return sigma, {name: INDICES[name].of(measured) for name in _wanted(configuration)}


def _wanted(configuration: Configuration) -> list[str]:
    """Return the names of the indices to compute."""
    return [name for name, index in INDICES.items() if not index.costly or configuration.kurtosis]


def _undefined(module: LoraModule, configuration: Configuration) -> bool:
    return configuration.method == "released" and module.m > module.n


def warnings_of(records: Sequence[ModuleScan], configuration: Configuration) -> Iterable[str]:
    """Yield what a reader of the numbers must know before believing them."""
    zeros = sum(record.zero for record in records)
    if zeros:
        yield f"{zeros} of {len(records)} modules are zero updates (B = 0: never trained, or pruned): no index"
    damaged = sum(record.nonfinite for record in records)
    if damaged:
        yield f"{damaged} of {len(records)} modules hold NaN or infinity: no spectrum exists, and no index"
    undefined = sum(not (record.zero or record.sigma) for record in records) - damaged
    if undefined:
        yield f"`released` is undefined for {undefined} modules with m > n, as the script itself fails there"
    used = [record for record in records if record.sigma]
    if len({len(record.sigma) for record in used}) > 1:
        yield "modules have different ranks: compare them by normalised_ssi, a raw SSI is at least 1/rank"
    if used and all(len(record.sigma) == 1 for record in used) and configuration.method != "released":
        yield "every module has one component only, so every SSI is 1 and says nothing"
    elif len(used) > 1 and is_flat([record.indices["ssi"] or 0.0 for record in used], scale_free=True):
        yield "the SSI does not discriminate here: its spread over the modules is below 0.01"


def is_flat(values: Sequence[float], *, scale_free: bool) -> bool:
    """Return whether the spread (max − min, relative to max where the index has a unit) is below `FLAT`."""
    spread = max(values) - min(values)
    return spread == 0 or spread < (FLAT if scale_free else FLAT * max(abs(value) for value in values))
