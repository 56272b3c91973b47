"""Several adapters in an order, such as the checkpoints of one run: what became of every module."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from threadpoolctl import threadpool_limits

from s3lora.adapter.digest import Source
from s3lora.adapter.model import Adapter, LoraModule, natural_key
from s3lora.adapter.open import WEIGHTS, open_adapter
from s3lora.errors import AdapterFileError, NothingToAuditError, S3LoRAError, UsageError, printable
from s3lora.measure.compare import Relation, other_bases, other_ranks, related
from s3lora.measure.scan import SCHEMA_VERSION, Configuration, ModuleScan, Progress, Scan, Tool, scan

#: How writers name the checkpoints of a run: a folder by the Transformers trainer, a file by MLX.
_CHECKPOINTS = (re.compile(r"checkpoint-(\d{1,15})"), re.compile(r"(\d{1,15})_adapters\.safetensors"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSeries:
    """One module in every adapter of a series: tuples with a value an adapter, or a value a step to the next one.

    `shape` is [m, n] of ΔW; it, `rank` and `frobenius` are None where the adapter lacks the module, and `frobenius` is
    0 where it is a zero update. `distance` is ‖ΔW_next − ΔW‖_F / ‖ΔW‖_F and `cosine` ⟨ΔW, ΔW_next⟩ over the product of
    the norms, in [−1, 1]; both are None where either is missing or of another shape, or the norm they are relative to
    is zero. `net_distance` and `net_cosine` are the same between the first adapter and the last.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What became of every module over two or more adapters; `steps` are the training steps that their names tell."""

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    configuration: Configuration
    sources: tuple[Source, ...]
    steps: tuple[int | None, ...]
    modules: tuple[ModuleSeries, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Measured:
    """An open adapter with its scan."""

    adapter: Adapter
    scan: Scan
    modules: dict[str, LoraModule]
    records: dict[str, ModuleScan]


def checkpoints(run: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the checkpoints in the folder of a run by their steps, and behind them the folder if it holds an adapter.

    A checkpoint is a folder `checkpoint-N`, or a file `N_adapters.safetensors` as MLX writes it.

    Raises AdapterFileError if there is no such folder, UsageError if it holds fewer than two adapters.
    """
    folder = Path(run)
    try:
        if not folder.exists():
            raise AdapterFileError("no such file or folder", file=folder)
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    except OSError as error:
        raise AdapterFileError(f"cannot be read ({error.strerror})", file=folder) from None
    found = [(step, folder / name) for name in names if (step := step_of(name)) is not None]
    paths = [path for _, path in sorted(found) if path.is_dir() or path.suffix]
    if paths and any((folder / name).exists() for name in WEIGHTS):
        paths.append(folder)
    if len(paths) < 2:
        held = "one checkpoint only" if paths else "no checkpoints"
        raise UsageError(
            f"{printable(folder, 240)} holds {held}, so there is nothing to compare",
            fix="give two adapters, or the folder of a run with folders checkpoint-N in it",
        )
    return tuple(paths)


def step_of(name: str) -> int | None:
    """Return the training step that the name of a checkpoint tells, None where it tells none.

    >>> step_of("checkpoint-1500"), step_of("0000200_adapters.safetensors"), step_of("my-adapter")
    (1500, 200, None)
    """
    found = next((match for pattern in _CHECKPOINTS if (match := pattern.fullmatch(name))), None)
    return None if found is None else int(found[1])


def compare_series(
    paths: Sequence[str | os.PathLike[str]],
    method: str = "mas-svd",
    *,
    progress: Callable[[str], Progress | None] | None = None,
) -> Series:
    """Compare adapters of one base model in the order given, each with the one before it and the last with the first.

    Parameters:
        paths: two or more adapters; `checkpoints` finds those of a run.
        method: as for `scan`.
        progress: called with the name of each adapter, returns what `scan` calls while it measures that one.

    Raises UsageError for fewer than two, NothingToAuditError if one has no module path in common with the one before
    it, and whatever `open_adapter` and `scan` raise. All are opened before the first is measured.
    """
    if len(paths) < 2:
        raise UsageError("one adapter is no series", fix="give two or more")
    for path in paths:
        _try(path, alone=len(paths) == 2)
    with ExitStack() as stack, threadpool_limits(limits=1, user_api="blas"):
        first = before = _measured(stack.enter_context(open_adapter(paths[0])), method, progress)
        scans, steps, net = [first.scan], [], dict[str, Relation]()
        for i, path in enumerate(paths[1:], 2):
            after = _measured(stack.enter_context(open_adapter(path)), method, progress)
            steps.append(_relations(before, after))
            if i == len(paths):
                net = _relations(first, after, demand=False)
            if before is not first:
                before.adapter.close()
            scans.append(after.scan)
            before = after
    modules = _modules(scans, steps, net)
    return Series(
        configuration=scans[0].configuration,
        sources=tuple(one.source for one in scans),
        steps=tuple(step_of(one.source.name) for one in scans),
        modules=modules,
        warnings=tuple(_warnings(scans, modules)),
    )


def _try(path: str | os.PathLike[str], *, alone: bool) -> None:
    """Raise now what opening the adapter would raise minutes later, and say how to do without it."""
    try:
        open_adapter(path).close()
    except S3LoRAError as error:
        if alone:
            raise
        fix = ", or ".join(filter(None, (error.fix, "name the others to leave it out")))
        told = type(error)(error.problem, file=error.file, module=error.module, shape=error.shape, fix=fix)
        told.adapter = error.adapter
        raise told from None


def _measured(adapter: Adapter, method: str, progress: Callable[[str], Progress | None] | None) -> _Measured:
    found = scan(adapter, method, progress=None if progress is None else progress(adapter.name))
    return _Measured(
        adapter,
        found,
        {module.path: module for module in adapter.modules},
        {record.path: record for record in found.modules},
    )


def _relations(before: _Measured, after: _Measured, *, demand: bool = True) -> dict[str, Relation]:
    """Return (distance, cosine) of the modules that both have in one shape; raise if they have no module in common."""
    common = [path for path in before.modules if path in after.modules]
    if demand and not common:
        raise NothingToAuditError(f"{before.adapter.name} and {after.adapter.name} have no module in common")
    return {
        path: related(
            before.modules[path],
            after.modules[path],
            before.records[path].indices["frobenius"] or 0.0,
            after.records[path].indices["frobenius"] or 0.0,
        )
        for path in common
        if before.records[path].shape == after.records[path].shape
    }


def _modules(
    scans: Sequence[Scan], steps: Sequence[dict[str, Relation]], net: dict[str, Relation]
) -> tuple[ModuleSeries, ...]:
    found: dict[str, list[ModuleScan | None]] = {}
    for i, one in enumerate(scans):
        for record in one.modules:
            found.setdefault(record.path, [None] * len(scans))[i] = record
    return tuple(_module(path, found[path], steps, net) for path in sorted(found, key=natural_key))


def _module(
    path: str, records: Sequence[ModuleScan | None], steps: Sequence[dict[str, Relation]], net: dict[str, Relation]
) -> ModuleSeries:
    def index(name: str) -> tuple[float | None, ...]:
        return tuple(None if record is None else record.indices[name] for record in records)

    one = next(record for record in records if record is not None)
    nothing: Relation = (None, None)
    relations = [step.get(path, nothing) for step in steps]
    total = net.get(path, nothing)
    return ModuleSeries(
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


def _warnings(scans: Sequence[Scan], modules: Sequence[ModuleSeries]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for one in scans:
        for note in one.warnings:
            notes.setdefault(note, []).append(one.source.name)
    told = [f"{who(names, len(scans))}: {note}" for note, names in notes.items()]
    ranks, shapes, absent = (
        sum(found)
        for found in (
            (len({*module.rank} - {None}) > 1 for module in modules),
            (len({*module.shape} - {None}) > 1 for module in modules),
            (None in module.shape for module in modules),
        )
    )
    if ranks:
        told.append(other_ranks(ranks, len(modules)))
    if shapes:
        told.append(f"{shapes} of {len(modules)} modules change their shape: no distance is known where they do")
    if absent:
        told.append(f"{absent} of {len(modules)} modules are not in every adapter")
    return [*told, *other_bases([one.source for one in scans])]


def who(names: Sequence[str], total: int) -> str:
    """Return whom a warning concerns: those of `total` adapters that `names` tells."""
    if len(names) == total:
        return "both" if total == 2 else f"all {total}"
    shown = ", ".join(printable(name, 60) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
