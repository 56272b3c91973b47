"""Adapter → Scan: one record a module, in the order of the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from s3lora._version import __version__
from s3lora.adapter.digest import Source
from s3lora.adapter.formats.peft_notes import changed_base, takes_out
from s3lora.adapter.inventory.inventory import inventory_of
from s3lora.adapter.inventory.model import Inventory
from s3lora.adapter.memory import from_model
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.open import open_adapter
from s3lora.arguments import checked
from s3lora.errors import S3LoRAError, UsageError, printable
from s3lora.measure.against_base import AgainstBase, ModuleAgainstBase
from s3lora.measure.base_reader import BaseReader, BesideBase, reading, told
from s3lora.measure.batches import in_batches
from s3lora.measure.configuration import Configuration, configured
from s3lora.measure.cost import MAX_COST, NOTHING, Estimate, afford, scan_cost
from s3lora.measure.full_weights import full_weights
from s3lora.measure.measuring import MeasuredOf, ModuleNumbers, measured, measured_beside
from s3lora.measure.modules import ByModule
from s3lora.spectrum.dense_scores import DENSE_METHODS
from s3lora.spectrum.methods import METHODS
from s3lora.views import Drawing, view

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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ModuleScan:
    """What was measured of one module.

    `shape` is [m, n] of ΔW; `sigma` the list σ̃ of the method, descending, empty for a zero update; `indices` maps
    each index to its value, None where it is undefined. `selected` is set by a plan. `form` says how the update is
    stored: `LoRA`, `LoHa`, `LoKr`, `AdaLoRA`, `VeRA` or `QALoRA`.

    `of` tells what the numbers are of: `ΔW`, or `B·A` where the update is more than s·B·A and the base weights were not
    given. `dense` tells that ΔW is of full rank (DoRA): `sigma` then are the M largest, M being the rank of the factors
    unless told otherwise, each at most `sigma_error` times the largest below its true value.

    `energy_rank` is the least rank that holds 99% of ‖ΔW‖², and `null_rank` how many singular values of ΔW stand above
    what random factors of these sizes and this norm have; None where that is not known, or ΔW is zero.
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
    of: MeasuredOf = "ΔW"
    dense: bool = False
    sigma_error: float = 0.0
    energy_rank: int | None = None
    null_rank: int | None = None

    def __repr__(self) -> str:
        """Return where it is, how large, and its SSI."""
        ssi = self.indices.get("ssi")
        told = "zero" if self.zero else "no ssi" if ssi is None else f"ssi {ssi:.4g}"
        return f"<ModuleScan {printable(self.path)}: {self.shape[0]} × {self.shape[1]}, rank {self.rank}, {told}>"

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
    """The measurement of one adapter; `scan[path]` finds a record. `base` is what it is beside its base's weights.

    Examples:
        >>> import s3lora
        >>> scan = s3lora.scan("my-adapter")
        >>> scan
        <Scan of my-adapter: 120 modules by mas-svd
         LoRA of rank 8, layers 0 to 29: k_proj, o_proj, q_proj, v_proj
         ssi from 0.2233 to 0.5733, median 0.3491
         sharpest: model.layers.25.self_attn.v_proj, 0.5733
         warnings: none>
        >>> scan["model.layers.25.self_attn.v_proj"]
        <ModuleScan model.layers.25.self_attn.v_proj: 192 × 576, rank 8, ssi 0.5733>
        >>> scan.plot()
        <Drawing: ssi of my-adapter by layer and projection>
        >>> s3lora.Scan.from_json(scan.to_json()) == scan
        True
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    configuration: Configuration
    source: Source
    inventory: Inventory = field(default_factory=Inventory)
    warnings: tuple[str, ...]
    modules: tuple[ModuleScan, ...]
    base: AgainstBase | None = None

    @property
    def true_updates(self) -> bool:
        """Return whether the numbers are of ΔW for every module, by the weights of the base."""
        return self.base is not None and all(module.of == "ΔW" for module in self.modules)

    def __repr__(self) -> str:
        """Return in five lines what it is of, what it holds, its index, the sharpest module, and what to know."""
        told: str = view("text", self)
        return told

    def _repr_html_(self) -> str:
        told: str = view("html", self)
        return told

    def to_json(self, plan: Any = None) -> str:
        """Return what `s3lora scan --format json --reference none` prints, with the plan that was made of this scan."""
        made: str = view("json", self, plan)
        return made

    def plot(self, index: str | None = None, *, plan: Any = None) -> Drawing:
        """Return a map of an index by layer and projection, which a notebook shows; what a plan chose is crossed.

        Raises UsageError for no such index, SelectionError where this scan does not have it, NothingToAuditError where
        fewer than two modules have a layer and a value.
        """
        drawn: Drawing = view("map", self, index, plan)
        return drawn


@checked
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
    base_weights: str | os.PathLike[str] | None = None,
    intruders: bool = False,
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
        base_weights: the folder of the base model, whose weights are read matrix by matrix: then ΔW of DoRA, PiSSA and
            OLoRA is the true one, and `base` tells how large each update is beside its weight.
        intruders: also count intruder dimensions, which decomposes every weight.

    Raises:
        UsageError: a parameter that cannot be meant.
        ModelError: there is no model at `base_weights`.
        CostError: it would take more operations than `max_cost`; nothing was read but headers.
        NonFiniteError: a module holds NaN or infinity, and `nonfinite` is not set.
        AdapterFileError, UnsupportedAdapterError, NothingToAuditError: as `open_adapter`.
    """
    asked = configured(method, rank, fit, sample, seed, kurtosis)
    beside = BesideBase(os.fspath(base_weights), intruders) if base_weights is not None else None
    if intruders and beside is None:
        raise UsageError("intruder dimensions are those of base weights", fix="give base_weights")
    return scan_all(adapter, [asked], nonfinite, progress, max_cost, beside)[0]


def scan_all(
    adapter: Adapter | str | os.PathLike[str] | Any,
    configurations: Sequence[Configuration],
    nonfinite: bool = False,
    progress: Progress | None = None,
    max_cost: float = MAX_COST,
    beside: BesideBase | None = None,
) -> tuple[Scan, ...]:
    """Score every module by several methods in one pass.

    Every byte is read and hashed once, and every Gram matrix made once, however many methods there are.
    Returns a scan for each configuration, and raises what `scan` does. `beside` names the base weights.
    """
    for one in configurations:
        configured(one.method, one.rank, one.fit, one.sample, one.seed, one.kurtosis)
    if isinstance(adapter, str | os.PathLike):
        with open_adapter(adapter) as opened:
            return _scan_all(opened, configurations, nonfinite, progress, max_cost, beside)
    opened = adapter if isinstance(adapter, Adapter) else from_model(adapter)
    return _scan_all(opened, configurations, nonfinite, progress, max_cost, beside)


def _scan_all(
    adapter: Adapter,
    configurations: Sequence[Configuration],
    nonfinite: bool,
    progress: Progress | None,
    max_cost: float,
    beside: BesideBase | None,
) -> tuple[Scan, ...]:
    total = len(adapter.modules)
    count = None if progress is None else lambda done: progress(done, total)
    try:
        with reading(adapter, beside, configurations[0].seed) as reader:
            affordable(adapter, configurations, max_cost, reader=reader)
            records, source, inventory, against = scan_modules(
                adapter, configurations, nonfinite=nonfinite, count=count, reader=reader
            )
    except S3LoRAError as error:
        if adapter.path is not None:
            error.adapter = str(adapter.path)
        raise
    notes = told(adapter, against, sum(record.dense for record in records[0]))
    return tuple(
        Scan(
            configuration=configuration,
            source=source,
            inventory=inventory,
            warnings=(*notes, *warnings_of(modules, configuration)),
            modules=modules,
            base=against,
        )
        for configuration, modules in zip(configurations, records, strict=True)
    )


def affordable(
    adapter: Adapter,
    configurations: Sequence[Configuration],
    limit: float,
    simulated: Estimate = NOTHING,
    reader: BaseReader | None = None,
) -> None:
    """Raise CostError if a scan by all of these configurations would take more operations than the limit.

    `simulated` is what the rule takes that chooses from the scan, and `reader` what reads base weights.
    """
    count = len(adapter.modules)
    methods = ", ".join(one.method for one in configurations)
    what = f"measuring {count:,} module{'s' if count > 1 else ''} by {methods}"
    what += ", with the updates that the rule simulates," if simulated.operations else ""
    beside = NOTHING if reader is None else reader.cost(adapter, configurations)
    afford(scan_cost(adapter.modules, configurations) + simulated + beside, limit, what, adapter.name)


def scan_modules(
    adapter: Adapter,
    configurations: Sequence[Configuration],
    *,
    nonfinite: bool = False,
    count: Callable[[int], None] | None = None,
    hashed: bool = True,
    reader: BaseReader | None = None,
) -> tuple[list[tuple[ModuleScan, ...]], Source, Inventory, AgainstBase | None]:
    """Return for each configuration the records of all modules; the source, with digests if it is `hashed`; all that is
    in the adapter; and what it is beside the base whose weights `reader` reads.

    `count` is called with the number of modules done.
    """
    label, method = adapter.name, changed_base(adapter.config)

    def measure(batch: Sequence[LoraModule]) -> list[tuple[list[ModuleScan], ModuleAgainstBase | None]]:
        if reader is not None:
            found = measured_beside(batch, configurations, label, nonfinite, reader)
        else:
            found = [(numbers, None) for numbers in measured(batch, configurations, label, nonfinite)]
        made = []
        for module, (numbers, beside) in zip(batch, found, strict=True):
            taken_out = method is not None and takes_out(method, module)
            unknown = taken_out and not (reader is not None and reader.knows(module))
            records = [_record(module, one._replace(of="B·A") if unknown else one) for one in numbers]
            made.append((records, beside))
        return made

    found, source, values = in_batches(adapter, measure, count, hashed=hashed)
    records = [tuple(records[i] for records, _ in found) for i in range(len(configurations))]
    inventory = inventory_of(adapter, values)
    adapter.keep_inventory(inventory)
    against = None
    if reader is not None:
        weights = full_weights(adapter, inventory.tensors, reader.base, configurations[0].rank, configurations[0].seed)
        against = reader.result([beside for _, beside in found], tuple(weights))
    return records, source, inventory, against


def scan_module(module: LoraModule, configuration: Configuration, label: str, *, nonfinite: bool = False) -> ModuleScan:
    """Measure one module; `nonfinite` is that of `scan`, `label` names the adapter in errors."""
    return _record(module, measured([module], [configuration], label, nonfinite)[0][0])


def _record(module: LoraModule, numbers: ModuleNumbers) -> ModuleScan:
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
        zero=numbers.zero,
        sigma=numbers.sigma,
        indices=numbers.indices,
        of=numbers.of,
        dense=numbers.dense,
        sigma_error=numbers.error,
        energy_rank=numbers.energy_rank if numbers.of == "ΔW" else None,
        null_rank=numbers.null_rank if numbers.of == "ΔW" else None,
        form=module.form,
    )


def warnings_of(records: Sequence[ModuleScan], configuration: Configuration) -> Iterable[str]:
    """Yield what a reader of the numbers must know before believing them."""
    method = METHODS[configuration.method]
    zeros = sum(record.zero for record in records)
    if zeros:
        yield f"{zeros} of {len(records)} modules are zero updates (B = 0: never trained, or pruned): no index"
    damaged = sum(record.nonfinite for record in records)
    if damaged:
        yield f"{damaged} of {len(records)} modules hold NaN or infinity: no spectrum exists, and no index"
    whole = sum(record.dense for record in records) if method.name not in DENSE_METHODS else 0
    if whole:
        known = ", ".join(DENSE_METHODS)
        yield f"`{method.name}` is not computed for {whole} modules whose ΔW is of full rank: choose {known}"
    undefined = sum(not (record.zero or record.sigma or record.dense) for record in records) - damaged
    if undefined > 0:
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
