"""Adapter → Scan: one record a module, in the order of the model."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from s3lora._version import __version__
from s3lora.adapter.digest import Source
from s3lora.adapter.inventory.inventory import inventory_of
from s3lora.adapter.inventory.model import Inventory
from s3lora.adapter.memory import from_model
from s3lora.adapter.model import Adapter, Factor, LoraModule
from s3lora.adapter.open import open_adapter
from s3lora.errors import NonFiniteError, S3LoRAError, UnsupportedAdapterError, printable
from s3lora.measure.batches import in_batches
from s3lora.measure.configuration import Configuration, configured
from s3lora.measure.cost import MAX_COST, NOTHING, Estimate, afford, scan_cost
from s3lora.measure.modules import ByModule
from s3lora.measure.updates import stack_of
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.indices import INDICES, Spectra
from s3lora.spectrum.methods import METHODS, Options
from s3lora.spectrum.tall import Float, converted

SCHEMA_VERSION = 1
#: A smaller spread (max − min) of a scale-free index over the modules does not tell them apart.
FLAT = 0.01

#: Called with (done, total) of modules, or of what else is worked on.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Tool:
    """Which program made a result."""

    name: str = "s3lora"
    version: str = __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleScan:
    """What was measured of one module.

    `shape` is [m, n] of ΔW; `sigma` the list σ̃ of the method, descending, empty for a zero update; `indices` maps
    each index to its value, None where it is undefined. `selected` is set by a plan. `form` says how the update is
    stored: `LoRA`, `LoHa`, `LoKr`, `AdaLoRA`, `VeRA` or `QALoRA`.
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
    form: str = "LoRA"

    @property
    def nonfinite(self) -> bool:
        """Return whether the module holds NaN or infinity; of any other update at least the norm is known."""
        return not self.zero and self.indices.get("frobenius") is None

    @property
    def overflows(self) -> bool:
        """Return whether ‖ΔW‖_F lies beyond what float32 can say, or float16 where a factor is stored so.

        The factors are finite then, and some product with an input of length 1 is not, or nearly so.
        """
        norm = self.indices.get("frobenius")
        largest = np.finfo(np.float16 if "float16" in self.dtype.split("/") else np.float32).max
        return norm is not None and norm > float(largest)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Scan(ByModule[ModuleScan]):
    """The measurement of one adapter; `scan[path]` finds a record.

    Examples:
        >>> import s3lora
        >>> scan = s3lora.scan("my-adapter")
        >>> scan
        <Scan of my-adapter: 120 modules by mas-svd>
        >>> scan["model.layers.25.self_attn.v_proj"].rank
        8
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    configuration: Configuration
    source: Source
    inventory: Inventory = field(default_factory=Inventory)
    warnings: tuple[str, ...]
    modules: tuple[ModuleScan, ...]

    def __repr__(self) -> str:
        """Return which adapter it is, and how it was measured."""
        name = printable(self.source.name, 60) or "a model in memory"
        return f"<Scan of {name}: {len(self)} modules by {self.configuration.method}>"


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
    max_cost: float = MAX_COST,
) -> Scan:
    """Score every module of an adapter.

    Examples:
        >>> import s3lora
        >>> scan = s3lora.scan("my-adapter")
        >>> sharpest = max(scan, key=lambda module: module.indices["ssi"])
        >>> sharpest.path, round(sharpest.indices["ssi"], 4)
        ('model.layers.25.self_attn.v_proj', 0.5733)

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
        max_cost: operations that it may take, as `measure.cost` estimates them; by default ten minutes of one core.

    Raises:
        UsageError: a parameter that cannot be meant.
        CostError: it would take more operations than `max_cost`; nothing was read but headers.
        NonFiniteError: a module holds NaN or infinity, and `nonfinite` is not set.
        AdapterFileError, UnsupportedAdapterError, NothingToAuditError: as `open_adapter`.
    """
    return scan_all(adapter, [configured(method, rank, fit, sample, seed, kurtosis)], nonfinite, progress, max_cost)[0]


def scan_all(
    adapter: Adapter | str | os.PathLike[str] | Any,
    configurations: Sequence[Configuration],
    nonfinite: bool = False,
    progress: Progress | None = None,
    max_cost: float = MAX_COST,
) -> tuple[Scan, ...]:
    """Score every module by several methods in one pass.

    Every byte is read and hashed once, and every Gram matrix made once, however many methods there are.
    Returns a scan for each configuration, and raises what `scan` does.
    """
    for one in configurations:
        configured(one.method, one.rank, one.fit, one.sample, one.seed, one.kurtosis)
    if isinstance(adapter, str | os.PathLike):
        with open_adapter(adapter) as opened:
            return _scan_all(opened, configurations, nonfinite, progress, max_cost)
    opened = adapter if isinstance(adapter, Adapter) else from_model(adapter)
    return _scan_all(opened, configurations, nonfinite, progress, max_cost)


def _scan_all(
    adapter: Adapter,
    configurations: Sequence[Configuration],
    nonfinite: bool,
    progress: Progress | None,
    max_cost: float,
) -> tuple[Scan, ...]:
    total = len(adapter.modules)
    try:
        affordable(adapter, configurations, max_cost)
        records, source, inventory = scan_modules(
            adapter,
            configurations,
            nonfinite=nonfinite,
            count=None if progress is None else lambda done: progress(done, total),
        )
    except S3LoRAError as error:
        if adapter.path is not None:
            error.adapter = str(adapter.path)
        raise
    return tuple(
        Scan(
            configuration=configuration,
            source=source,
            inventory=inventory,
            warnings=(*adapter.warnings, *warnings_of(modules, configuration)),
            modules=modules,
        )
        for configuration, modules in zip(configurations, records, strict=True)
    )


def affordable(
    adapter: Adapter, configurations: Sequence[Configuration], limit: float, simulated: Estimate = NOTHING
) -> None:
    """Raise CostError if a scan by all of these configurations would take more operations than the limit.

    `simulated` is what the rule takes that chooses from the scan.
    """
    count = len(adapter.modules)
    methods = ", ".join(one.method for one in configurations)
    what = f"measuring {count:,} module{'s' if count > 1 else ''} by {methods}"
    what += ", with the updates that the rule simulates," if simulated.operations else ""
    afford(scan_cost(adapter.modules, configurations) + simulated, limit, what, adapter.name)


def scan_modules(
    adapter: Adapter,
    configurations: Sequence[Configuration],
    *,
    nonfinite: bool = False,
    count: Callable[[int], None] | None = None,
    hashed: bool = True,
) -> tuple[list[tuple[ModuleScan, ...]], Source, Inventory]:
    """Return for each configuration the records of all modules; the source, with digests if it is `hashed`; and all
    that is in the adapter.

    `count` is called with the number of modules done.
    """

    def measure(batch: Sequence[LoraModule]) -> list[list[ModuleScan]]:
        return _measured(batch, configurations, adapter.name, nonfinite)

    found, source, values = in_batches(adapter, measure, count, hashed=hashed)
    records = [tuple(records[i] for records in found) for i in range(len(configurations))]
    return records, source, inventory_of(adapter, values)


def scan_module(module: LoraModule, configuration: Configuration, label: str, *, nonfinite: bool = False) -> ModuleScan:
    """Measure one module; `nonfinite` is that of `scan`, `label` names the adapter in errors."""
    return _measured([module], [configuration], label, nonfinite)[0][0]


def _measured(
    batch: Sequence[LoraModule], configurations: Sequence[Configuration], label: str, nonfinite: bool
) -> list[list[ModuleScan]]:
    """Measure modules of one shape together, by every configuration; where one of them fails, each by itself.

    Only by the first configuration can a module be an error. By another one it then has no index.
    """
    try:
        update = stack_of(batch)
        zero = update.is_zero.tolist()
        columns = [_columns(batch[0], update, configuration) for configuration in configurations]
    except (FloatingPointError, ValueError) as error:
        if len(batch) > 1:
            return [_measured([module], configurations, label, nonfinite)[0] for module in batch]
        if len(configurations) > 1:
            alone = [(one, nonfinite or i > 0) for i, one in enumerate(configurations)]
            return [[_measured(batch, [one], label, lenient)[0][0] for one, lenient in alone]]
        if isinstance(error, ValueError):
            raise UnsupportedAdapterError(str(error), file=label, module=batch[0].path) from None
        if not nonfinite:
            raise _nonfinite(batch[0], label) from None
        zero, columns = [False], [([()], {name: [None] for name in _wanted(configurations[0])})]
    return [
        [_record(module, nil, i, sigma, indices) for sigma, indices in columns]
        for i, (module, nil) in enumerate(zip(batch, zero, strict=True))
    ]


#: σ̃ of each module, and of each index its value for each module, None where it is undefined.
_Columns = tuple[list[tuple[float, ...]], dict[str, list[float | None]]]


def _columns(first: LoraModule, update: FactoredUpdate, configuration: Configuration) -> _Columns:
    method = METHODS[configuration.method]
    options = Options(configuration.rank, configuration.fit, configuration.sample, configuration.seed)
    sigma: Float = np.zeros((len(update), 0))
    if method.defined(first.m, first.n):  # else σ̃ is empty, and its indices are None
        sigma = method.of(update, options)
    measured = Spectra(sigma, update, method.epsilon)
    indices = {name: np.broadcast_to(INDICES[name].values(measured), len(update)) for name in _wanted(configuration)}
    rows = [() if nil else tuple(row) for nil, row in zip(update.is_zero.tolist(), sigma.tolist(), strict=True)]
    return rows, {name: _known(values) for name, values in indices.items()}


def _known(values: Float) -> list[float | None]:
    listed: list[float | None] = values.tolist()
    if np.isfinite(values).all():
        return listed
    return [value if value is not None and math.isfinite(value) else None for value in listed]


def _record(
    module: LoraModule,
    zero: bool,
    i: int,
    sigma: Sequence[tuple[float, ...]],
    indices: Mapping[str, Sequence[float | None]],
) -> ModuleScan:
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
        sigma=sigma[i],
        indices={name: values[i] for name, values in indices.items()},
        form=module.form,
    )


def _nonfinite(module: LoraModule, label: str) -> NonFiniteError:
    where = next((part.tensor.name for part in module.parts if not _is_finite(part)), "its scaling")
    return NonFiniteError(
        f"holds NaN or infinity in {where}",
        file=label,
        module=module.path,
        shape=(module.m, module.n),
        fix="the training diverged or the file is damaged; no spectrum exists",
    )


def _is_finite(factor: Factor) -> bool:
    return all(np.isfinite(block).all() for block in converted(factor.matrix()))


def _wanted(configuration: Configuration) -> list[str]:
    """Return the names of the indices to compute."""
    return [name for name, index in INDICES.items() if not index.costly or configuration.kurtosis]


def warnings_of(records: Sequence[ModuleScan], configuration: Configuration) -> Iterable[str]:
    """Yield what a reader of the numbers must know before believing them."""
    method = METHODS[configuration.method]
    zeros = sum(record.zero for record in records)
    if zeros:
        yield f"{zeros} of {len(records)} modules are zero updates (B = 0: never trained, or pruned): no index"
    damaged = sum(record.nonfinite for record in records)
    if damaged:
        yield f"{damaged} of {len(records)} modules hold NaN or infinity: no spectrum exists, and no index"
    undefined = sum(not (record.zero or record.sigma) for record in records) - damaged
    if undefined:
        yield f"`{method.name}` is undefined for {undefined} modules with {method.undefined_for}"
    used = [record for record in records if record.sigma]
    if len({len(record.sigma) for record in used}) > 1:
        yield "modules have different ranks: compare them by normalised_ssi, a raw SSI is at least 1/rank"
    if used and all(len(record.sigma) == 1 for record in used) and not method.epsilon:
        yield "every module has one component only, so every SSI is 1 and says nothing"
    elif len(used) > 1 and is_flat([record.indices["ssi"] or 0.0 for record in used], scale_free=True):
        yield "the SSI does not discriminate here: its spread over the modules is below 0.01"


def is_flat(values: Sequence[float], *, scale_free: bool) -> bool:
    """Return whether the spread (max − min, relative to max where the index has a unit) is below `FLAT`."""
    spread = max(values) - min(values)
    return spread == 0 or spread < (FLAT if scale_free else FLAT * max(abs(value) for value in values))
