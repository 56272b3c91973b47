"""Two whole checkpoints → Scan: what training, or a merge, changed of every matrix."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from s3lora.adapter.digest import FileDigest, Source, combined
from s3lora.adapter.model import natural_key, path_parts
from s3lora.adapter.tensor import Array, Layout
from s3lora.adapter.tensors import StoredTensor
from s3lora.arguments import checked
from s3lora.base.weights import READABLE, BaseWeights
from s3lora.errors import NonFiniteError, NothingToAuditError, printable
from s3lora.measure.against_base import AgainstBase, ModuleAgainstBase, WeightDelta
from s3lora.measure.base_reader import COMPONENTS, BesideBase, compared_with
from s3lora.measure.configuration import Configuration
from s3lora.measure.cost import MAX_COST, NOTHING, Estimate, afford, base_cost
from s3lora.measure.full_weights import as_matrix, weight_delta
from s3lora.measure.measuring import ModuleNumbers, dense_numbers
from s3lora.measure.scan import ModuleScan, Progress, Scan, warnings_of
from s3lora.spectrum.dense import DenseMatrix, dense, plus_matrix
from s3lora.spectrum.intruders import INTRUDER_COSINE

__all__ = ["CHECKPOINT", "scan_delta", "scan_deltas"]

#: The format of what is no adapter.
CHECKPOINT = "checkpoint"
_WEIGHT = ".weight"


@dataclass(frozen=True, slots=True)
class _CheckpointPair:
    """A matrix that both checkpoints have; of fused experts, that of one expert."""

    path: str
    weight: str
    dtype: str
    kind: str
    before: DenseMatrix
    after: DenseMatrix

    @property
    def m(self) -> int:
        return self.after.shape[0]

    @property
    def n(self) -> int:
        return self.after.shape[1]

    @property
    def rank(self) -> int:
        return min(COMPONENTS, self.m, self.n)


@checked
def scan_delta(
    tuned: str | os.PathLike[str],
    base: str | os.PathLike[str],
    method: str = "mas-svd",
    rank: int | None = None,
    *,
    seed: int = 0,
    intruders: bool = False,
    progress: Progress | None = None,
    max_cost: float = MAX_COST,
) -> Scan:
    """Score the difference of every matrix between two model folders: a merge, or a training without LoRA.

    Matrices that are the same have no record. The shape of a record is that of the stored weight.

    Examples:
        >>> import s3lora
        >>> s3lora.scan_delta("merged-model", "base-model")
        <Scan of merged-model: 1 module by mas-svd
         updates of full rank, 3 components of each: q_proj
         ssi from 1 to 1, median 1
         sharpest: q_proj, 1
         warnings: 1 to read in .warnings>

    Parameters:
        tuned: the folder of the changed model, with config.json and safetensors files.
        base: that of the model it was made from.
        method: `mas-svd`, `svd` or `spsvd`.
        rank: M, how many of the largest σ̃ are found; by default 16.
        seed: of the randomised decompositions.
        intruders: also count intruder dimensions.
        progress: called with (matrices done, matrices in all).
        max_cost: operations that it may take, as for `scan`.

    Raises:
        ModelError, AdapterFileError, UnsupportedAdapterError: a folder that is no model, or is quantised.
        NothingToAuditError: they have no matrix in common, or all are the same.
        NonFiniteError: a weight holds NaN or infinity.
        CostError: it would take more operations than `max_cost`.
    """
    configuration = Configuration(method, rank, seed=seed)
    beside = BesideBase(os.fspath(base), intruders)
    return scan_deltas(os.fspath(tuned), beside, [configuration], progress, max_cost)[0]


def scan_deltas(
    tuned: str,
    beside: BesideBase,
    configurations: Sequence[Configuration],
    progress: Progress | None = None,
    max_cost: float = MAX_COST,
    nonfinite: bool = False,
) -> tuple[Scan, ...]:
    """Return a scan for each configuration; `nonfinite` is that of `scan`."""
    with BaseWeights(tuned) as after, BaseWeights(beside.folder) as before, threadpool_limits(1, user_api="blas"):
        pairs, others, missing = _paired(after, before)
        if not pairs:
            raise NothingToAuditError(f"has no matrix in common with {printable(beside.folder, 120)}", file=tuned)
        cost = sum((_cost(pair, configurations, intruders=beside.intruders) for pair in pairs), NOTHING)
        afford(cost, max_cost, f"measuring {len(pairs):,} differences", tuned)
        records: list[list[ModuleScan]] = []
        modules: list[ModuleAgainstBase] = []
        for i, pair in enumerate(pairs):
            numbers, against = _measured(pair, beside, configurations, tuned, nonfinite)
            if against is not None:
                records.append([_record(pair, one) for one in numbers])
                modules.append(against)
            if progress is not None:
                progress(i + 1, len(pairs))
        count, seed = configurations[0].rank or COMPONENTS, configurations[0].seed
        weights = tuple(weight_delta(name, after.tensors[name], name, before, count, seed) for name in others)
        changed = tuple(one for one in weights if one.note or one.frobenius)
        if not records and not changed:
            raise NothingToAuditError(f"has the same weights as {printable(beside.folder, 120)}", file=tuned)
        if not records:
            besides = f"{len(changed):,} other weight{'' if len(changed) == 1 else 's'}"
            what = f"differs from {printable(beside.folder, 120)} in no matrix, but in {besides}"
            raise NothingToAuditError(f"{what} (first {printable(changed[0].name, 120)})", file=tuned)
        source = _source(after)
        against_base = AgainstBase(
            name=before.label,
            modules=tuple(modules),
            weights=changed,
            missing=tuple(missing),
            why="the base has no weight of this name and shape" if missing else None,
            epsilon=INTRUDER_COSINE if beside.intruders else None,
        )
        notes = tuple(_notes(pairs, records, others, changed, missing, before.label))
    return tuple(
        Scan(
            configuration=one,
            source=source,
            warnings=(*notes, *warnings_of([own[i] for own in records], one)),
            modules=tuple(own[i] for own in records),
            base=against_base,
        )
        for i, one in enumerate(configurations)
    )


def _paired(after: BaseWeights, before: BaseWeights) -> tuple[list[_CheckpointPair], list[str], list[str]]:
    """Return the matrices of both, the names of what else both have, and those of what the base lacks."""
    pairs: list[_CheckpointPair] = []
    others: list[str] = []
    missing: list[str] = []
    for name in sorted(after.tensors, key=natural_key):
        tensor = after.tensors[name]
        if tensor.dtype not in READABLE:
            if len(tensor.shape) > 1:
                after.refuse_unreadable(tensor, name.removesuffix(_WEIGHT))
            continue
        weight = before.whole(name)
        if weight is None or weight.shape != tensor.shape:
            missing.append(name)
        elif len(tensor.shape) < 2 or min(tensor.shape) < 2:
            others.append(name)
        else:
            pairs.extend(_matrices(name, tensor, weight))
    return pairs, others, missing


def _matrices(name: str, tensor: StoredTensor, weight: StoredTensor) -> Iterator[_CheckpointPair]:
    path = name.removesuffix(_WEIGHT)
    if len(tensor.shape) == 3 and "experts" in name:
        for i in range(tensor.shape[0]):
            parts = [dense(one.matrix(_expert(i))) for one in (weight, tensor)]
            yield _CheckpointPair(f"{path}.{i}", weight.name, tensor.dtype, "linear", *parts)
        return
    kind = "conv" if len(tensor.shape) > 2 else "linear"
    yield _CheckpointPair(path, weight.name, tensor.dtype, kind, as_matrix(weight), as_matrix(tensor))


def _expert(i: int) -> Layout:
    def one(stored: Array) -> Array:
        found: Array = stored[i]
        return found

    return one


def _cost(pair: _CheckpointPair, configurations: Sequence[Configuration], *, intruders: bool) -> Estimate:
    return base_cost(pair.path, (pair.m, pair.n, pair.rank), configurations, dense=True, intruders=intruders)


def _measured(
    pair: _CheckpointPair, beside: BesideBase, configurations: Sequence[Configuration], label: str, nonfinite: bool
) -> tuple[list[ModuleNumbers], ModuleAgainstBase | None]:
    """Return the numbers of one matrix; no record where it is the same in both."""
    change = plus_matrix(pair.after, pair.before, -1.0)
    try:
        if change.is_zero:
            return [], None
        numbers = [dense_numbers(change, one.rank or pair.rank, one) for one in configurations]
        norm = numbers[0].indices["frobenius"]
        against = compared_with(
            pair.path, pair.weight, pair.before, change, norm, pair.rank, configurations[0].seed, beside.intruders
        )
    except FloatingPointError:
        if not nonfinite:
            raise NonFiniteError(
                "its weight holds NaN or infinity here or in the base", file=label, module=pair.path, shape=change.shape
            ) from None
        none = [dense_numbers(None, 0, one) for one in configurations]
        return none, ModuleAgainstBase(path=pair.path, weight=pair.weight, base_frobenius=None, relative=None)
    return numbers, against


def _record(pair: _CheckpointPair, numbers: ModuleNumbers) -> ModuleScan:
    layer, projection, expert = path_parts(pair.path)
    return ModuleScan(
        path=pair.path,
        layer=layer,
        projection=projection,
        expert=expert,
        kind=pair.kind,
        shape=(pair.m, pair.n),
        rank=min(pair.m, pair.n),
        dtype=pair.dtype,
        scaling=1.0,
        scaling_origin="difference",
        dora=False,
        parameters=pair.m * pair.n,
        zero=False,
        sigma=numbers.sigma,
        indices=numbers.indices,
        of="ΔW",
        dense=True,
        sigma_error=numbers.error,
    )


def _source(after: BaseWeights) -> Source:
    """Return where the changed weights come from, with their digests."""
    files = tuple(FileDigest(printable(one.name, 255), one.file.size, one.file.sha256()) for one in after.files)
    for one in after.files:
        one.file.check_unchanged()
    return Source(name=after.label, format=CHECKPOINT, sha256=combined(files), files=files, base_model=None)


def _notes(
    pairs: Sequence[_CheckpointPair],
    records: Sequence[Sequence[ModuleScan]],
    others: Sequence[str],
    changed: Sequence[WeightDelta],
    missing: Sequence[str],
    base: str,
) -> Iterator[str]:
    yield (
        f"{len(records):,} of {len(pairs):,} matrices and {len(changed):,} of {len(others):,} other weights differ "
        f"from those of {base}; the numbers are of the differences, and σ̃ are the largest of each"
    )
    if missing:
        yield f"{len(missing):,} weights are not in {base} under this name and shape: {printable(missing[0], 120)}"
