"""Adapters of one base model in an order, two or many: what became of every module."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

from threadpoolctl import threadpool_limits

from s3lora.adapter.checkpoints import step_of
from s3lora.adapter.digest import Source
from s3lora.adapter.model import Adapter, LoraModule, natural_key
from s3lora.adapter.open import names_for, open_adapter
from s3lora.arguments import checked
from s3lora.errors import NothingToAuditError, S3LoRAError, UsageError
from s3lora.measure.base_reader import BaseReader, BesideBase, reading, true_relation
from s3lora.measure.configuration import Configuration, configured
from s3lora.measure.cost import MAX_COST, Sized, afford, compare_cost
from s3lora.measure.modules import ByModule
from s3lora.measure.notes import other_bases, shared_notes
from s3lora.measure.others import TensorComparison, compare_others
from s3lora.measure.pairing import paired
from s3lora.measure.refusal_looks import RefusalLook
from s3lora.measure.relations import DistanceAndCosine, related
from s3lora.measure.scan import SCHEMA_VERSION, ModuleScan, Progress, Scan, Tool, scan
from s3lora.wording import all_worded

#: Adapters that one step needs at once: the one before, the one after, and the first, for the net relation.
AT_ONCE = 3
#: Between the check of all adapters and the measurement no more files stay open than this, but for those of `AT_ONCE`
#: adapters. What does not fit is opened a second time when it is measured.
OPEN_FILES = 64
#: Indices that a comparison tells; spectra and other indices of an adapter are not kept.
INDICES_KEPT = ("ssi", "normalised_ssi", "frobenius")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleComparison:
    """One module in all adapters: tuples with a value for each adapter, or a value for each step to the next one.

    `shape` is [m, n] of ΔW; it, `rank` and `frobenius` are None where the adapter lacks the module, and `frobenius` is
    0 where it is a zero update. `distance` is ‖ΔW_next − ΔW‖_F / ‖ΔW‖_F and `cosine` ⟨ΔW, ΔW_next⟩ over the product of
    the norms, in [−1, 1]; both are None where either is missing or of another shape, or the norm they are relative to
    is zero. `net_distance` and `net_cosine` are the same between the first adapter and the last; for two adapters they
    are those of the only step.
    """

    path: str
    layer: int | None
    projection: str
    expert: int | None
    shape: tuple[tuple[int, int] | None, ...]
    rank: tuple[int | None, ...]
    ssi: tuple[float | None, ...]
    normalised_ssi: tuple[float | None, ...]
    frobenius: tuple[float | None, ...]
    distance: tuple[float | None, ...]
    cosine: tuple[float | None, ...]
    net_distance: float | None
    net_cosine: float | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Comparison(ByModule[ModuleComparison]):
    """What became of every module over two or more adapters; `steps` are the training steps that their names tell.

    `modules` are all modules of all adapters, in the order of the model, and `tensors` what they have besides LoRA.
    `refusals` are those that a training was watched by, at some of the steps; empty for adapters.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    configuration: Configuration
    sources: tuple[Source, ...]
    steps: tuple[int | None, ...]
    modules: tuple[ModuleComparison, ...]
    tensors: tuple[TensorComparison, ...] = ()
    refusals: tuple[RefusalLook, ...] = ()
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        """Return how much was compared."""
        everywhere = sum(all(shape is not None for shape in module.shape) for module in self.modules)
        return f"<Comparison of {len(self.sources)} adapters: {len(self)} modules, {everywhere} of them in all>"

    @property
    def only(self) -> tuple[tuple[str, ...], ...]:
        """Return for each adapter the paths of the modules that no other has."""
        alone = [module for module in self.modules if sum(shape is not None for shape in module.shape) == 1]
        return tuple(
            tuple(module.path for module in alone if module.shape[i] is not None) for i in range(len(self.sources))
        )

    @property
    def reshaped(self) -> tuple[str, ...]:
        """Return the paths of the modules that have different shapes, and no distance where the shape changes."""
        return tuple(module.path for module in self.modules if len({*module.shape} - {None}) > 1)


@checked
def compare(
    paths: Sequence[Adapter | str | os.PathLike[str]],
    method: str = "mas-svd",
    *,
    adapter: Sequence[str] = (),
    progress: Callable[[str], Progress | None] | None = None,
    max_cost: float = MAX_COST,
    base_weights: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Compare adapters of one base model in the order given, each with the one before it and the last with the first.

    All are opened before the first is measured, and each is measured once. Where another tool, or another version of a
    library, calls the same modules otherwise, a warning says so, and they have the names of the first adapter.

    Examples:
        >>> import s3lora
        >>> compared = s3lora.compare(["my-adapter", "pruned"])
        >>> compared, len(compared.only[0])
        (<Comparison of 2 adapters: 120 modules, 110 of them in all>, 10)

    Parameters:
        paths: two or more adapters, opened or as paths; `checkpoints` finds those of a run.
        adapter: which of several in a file or folder, as for `open_adapter`: one name for all paths, or one for each.
        method: as for `scan`.
        progress: called with the name of each adapter, returns what `scan` calls while it measures that one.
        max_cost: operations that all of it may take, as for `scan`.
        base_weights: the folder of the base model of all of them, as for `scan`.

    Raises:
        UsageError: fewer than two adapters, or another number of names than of paths.
        CostError: it would take more operations than `max_cost`; nothing was read but headers.
        NothingToAuditError: an adapter has no module path in common with the one before it.
        S3LoRAError: whatever `open_adapter` and `scan` raise.
    """
    if len(paths) < 2:
        raise UsageError("one adapter is no comparison", fix="give two or more, as a list of paths")
    picked = names_for(adapter, len(paths))
    configuration = configured(method, None, "l2", None, 0, False)
    beside = None if base_weights is None else BesideBase(os.fspath(base_weights))
    with _Adapters(paths, picked) as adapters, threadpool_limits(limits=1, user_api="blas"), ExitStack() as opened:
        bases: list[ExitStack] = []

        def measure(i: int) -> _Measured:
            bases.append(opened.enter_context(ExitStack()))
            reader = bases[i].enter_context(reading(adapters[i], beside, 0))
            return _measured(adapters[i], adapters.renamed[i], method, progress, base_weights, reader, max_cost)

        afford(compare_cost(adapters.shapes, configuration), max_cost, f"comparing {len(paths)} adapters by {method}")
        first = before = measure(0)
        scans, steps, net = [first.scan], [], dict[str, DistanceAndCosine]()
        for i in range(1, len(paths)):
            after = measure(i)
            steps.append(dict(_relations(before, after)))
            if i == len(paths) - 1:
                net = steps[0] if i == 1 else dict(_relations(first, after))
            elif before is not first:
                adapters.close(i - 1)
                bases[i - 1].close()
            scans.append(after.scan)
            before = after
    modules = _modules(scans, steps, net)
    return Comparison(
        configuration=scans[0].configuration,
        sources=tuple(one.source for one in scans),
        steps=tuple(step_of(one.source.name) for one in scans),
        modules=modules,
        tensors=compare_others([one.inventory for one in scans]),
        warnings=(*adapters.notes, *_warnings(scans, modules)),
    )


class _Adapters:
    """The adapters of a comparison by their places: all opened on entry, so that what raises does so before the work.

    Those that stay open within the bounds are not opened again.
    """

    def __init__(self, paths: Sequence[Adapter | str | os.PathLike[str]], picked: Sequence[str | None]) -> None:
        self._paths = paths
        self._picked = picked
        self._open: dict[int, Adapter] = {}
        #: Of each adapter the shapes of its modules by their paths.
        self.shapes: list[dict[str, Sized]] = []
        #: Of each adapter the names that its modules get where they get others, and what to say of it.
        self.renamed: list[dict[str, str]] = []
        self.notes: list[str] = []

    def __enter__(self) -> _Adapters:
        try:
            self._check()
        except BaseException:
            self._close_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_all()

    def __getitem__(self, i: int) -> Adapter:
        given = self._paths[i]
        if isinstance(given, Adapter):
            return given  # whoever opened it closes it
        if i not in self._open:
            self._open[i] = open_adapter(given, self._picked[i])
        return self._open[i]

    def close(self, i: int) -> None:
        if i in self._open:
            self._open.pop(i).close()

    def _close_all(self) -> None:
        for i in [*self._open]:
            self.close(i)

    def _check(self) -> None:
        files = 0
        names: list[str] = []
        shapes: list[dict[str, Sized]] = []
        for i in range(len(self._paths)):
            adapter = self._first_opening(i)
            names.append(adapter.name)
            shapes.append({one.path: Sized(one.path, one.pieces, one.work) for one in adapter.modules})
            if i >= AT_ONCE and files + len(adapter.files) > OPEN_FILES:
                self.close(i)
            else:
                files += len(adapter.files)
        self.renamed, self.notes = paired(list(zip(names, shapes, strict=True)))
        for i, (own, new) in enumerate(zip(shapes, self.renamed, strict=True)):
            self.shapes.append({new.get(path, path): shape for path, shape in own.items()})
            if i and not self.shapes[i].keys() & self.shapes[i - 1].keys():
                raise NothingToAuditError(f"{names[i - 1]} and {names[i]} have no module in common")

    def _first_opening(self, i: int) -> Adapter:
        """Open an adapter; where there are more than two, an error says how to do without this one."""
        try:
            return self[i]
        except S3LoRAError as error:
            if len(self._paths) == 2:
                raise
            fix = all_worded(", or ", [*filter(None, (error.fix, "name the others to leave it out"))])
            told = type(error)(error.problem, file=error.file, module=error.module, shape=error.shape, fix=fix)
            told.adapter = error.adapter
            raise told from None


@dataclass(frozen=True, slots=True)
class _Measured:
    """An open adapter with its scan, of which only what the comparison tells is kept; `reader` reads base weights."""

    adapter: Adapter
    scan: Scan
    modules: dict[str, LoraModule]
    records: dict[str, ModuleScan]
    reader: BaseReader | None


def _measured(
    adapter: Adapter,
    renamed: Mapping[str, str],
    method: str,
    progress: Callable[[str], Progress | None] | None,
    base_weights: str | os.PathLike[str] | None,
    reader: BaseReader | None,
    max_cost: float,
) -> _Measured:
    shown = None if progress is None else progress(adapter.name)
    # All together were found affordable, but for what the base weights take.
    limit = math.inf if reader is None else max_cost
    full = scan(adapter, method, progress=shown, max_cost=limit, base_weights=base_weights)
    records = tuple(
        dataclasses.replace(
            record,
            path=renamed.get(record.path, record.path),
            sigma=(),
            indices={name: record.indices[name] for name in INDICES_KEPT},
        )
        for record in full.modules
    )
    inventory = dataclasses.replace(full.inventory, tensors=full.inventory.unmeasured, files=(), loaders=())
    return _Measured(
        adapter,
        dataclasses.replace(full, modules=records, inventory=inventory),
        {renamed.get(module.path, module.path): module for module in adapter.modules},
        {record.path: record for record in records},
        reader,
    )


def _relations(before: _Measured, after: _Measured) -> Iterator[tuple[str, DistanceAndCosine]]:
    """Yield the path and (distance, cosine) of the modules that both have in one shape.

    Raises AdapterFileError where a file was changed since it was scanned.
    """
    for path, record in before.records.items():
        other = after.records.get(path)
        if other is not None and record.shape == other.shape:
            norms = record.indices["frobenius"] or 0.0, other.indices["frobenius"] or 0.0
            pair = before.modules[path], after.modules[path]
            found = true_relation((before.reader, after.reader), pair, *norms)
            yield path, found or related(*pair, *norms)
    for one in (before, after):
        try:
            one.adapter.check_unchanged()
        except S3LoRAError as error:
            error.adapter = str(one.adapter.path)
            raise


def _modules(
    scans: Sequence[Scan], steps: Sequence[dict[str, DistanceAndCosine]], net: dict[str, DistanceAndCosine]
) -> tuple[ModuleComparison, ...]:
    found: dict[str, list[ModuleScan | None]] = {}
    for i, one in enumerate(scans):
        for record in one.modules:
            found.setdefault(record.path, [None] * len(scans))[i] = record
    return tuple(_module(path, found[path], steps, net) for path in sorted(found, key=natural_key))


def _module(
    path: str,
    records: Sequence[ModuleScan | None],
    steps: Sequence[dict[str, DistanceAndCosine]],
    net: dict[str, DistanceAndCosine],
) -> ModuleComparison:
    def index(name: str) -> tuple[float | None, ...]:
        return tuple(None if record is None else record.indices[name] for record in records)

    one = next(record for record in records if record is not None)
    nothing: DistanceAndCosine = (None, None)
    relations = [step.get(path, nothing) for step in steps]
    total = net.get(path, nothing)
    return ModuleComparison(
        path=path,
        layer=one.layer,
        projection=one.projection,
        expert=one.expert,
        shape=tuple(None if record is None else record.shape for record in records),
        rank=tuple(None if record is None else record.rank for record in records),
        ssi=index("ssi"),
        normalised_ssi=index("normalised_ssi"),
        frobenius=index("frobenius"),
        distance=tuple(distance for distance, _ in relations),
        cosine=tuple(cosine for _, cosine in relations),
        net_distance=total[0],
        net_cosine=total[1],
    )


def _dead(one: Scan) -> Iterator[str]:
    for lost in one.inventory.unapplied:
        if lost.dead:
            yield f"{len(lost.modules)} modules or tensors would not be applied: {lost.cause}"


def _warnings(scans: Sequence[Scan], modules: Sequence[ModuleComparison]) -> Iterator[str]:
    yield from shared_notes([one.source.name for one in scans], [[*one.warnings, *_dead(one)] for one in scans])
    ranks = sum(len({*module.rank} - {None}) > 1 for module in modules)
    if ranks:
        yield (
            f"{ranks} of {len(modules)} modules change their rank: an SSI is at least 1/rank, so the raw values do not "
            "compare"
        )
    yield from other_bases([one.source for one in scans], "what changes from one to another means little then")
