"""Reads a base's weights beside an adapter, one matrix at a time: the true updates, and what they are beside them."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from s3lora.adapter.formats.peft_notes import changed_base, takes_out
from s3lora.adapter.inventory.tensors import other_names
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.base.updates import TrueFactors, known_start, magnitudes_of, true_update, upright
from s3lora.base.weights import BaseWeights
from s3lora.errors import NonFiniteError, UnsupportedAdapterError, printable
from s3lora.measure.against_base import AgainstBase, ModuleAgainstBase, WeightDelta
from s3lora.measure.configuration import Configuration
from s3lora.measure.cost import NOTHING, Estimate, base_cost
from s3lora.spectrum.dense import DenseMatrix, inner_of, plus_matrix, plus_product, product
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.intruders import INTRUDER_COSINE, INTRUDER_DIRECTIONS, base_directions, intruders
from s3lora.spectrum.leading import leading
from s3lora.spectrum.subspaces import bases, overlap
from s3lora.spectrum.tall import Float
from s3lora.wording import for_command

__all__ = ["BaseReader", "BesideBase", "compared_with", "reading", "told", "true_relation"]

#: Singular values of a difference of whole weights that are told, unless asked otherwise.
COMPONENTS = 16
#: How the notes begin that say that s·B·A alone was measured.
_ALONE = ("DoRA: the spectra are of B·A alone", "initialised by ")


@dataclass(frozen=True, slots=True)
class BesideBase:
    """Which base weights an adapter is held beside: a folder, and whether intruder dimensions are counted."""

    folder: str
    intruders: bool = False


@contextmanager
def reading(adapter: Adapter, beside: BesideBase | None, seed: int) -> Iterator[BaseReader | None]:
    """Open the base weights, None where there are none."""
    if beside is None:
        yield None
        return
    with BaseWeights(beside.folder) as base:
        yield BaseReader(adapter, base, seed=seed, directions=beside.intruders)


def told(adapter: Adapter, against: AgainstBase | None, whole: int) -> tuple[str, ...]:
    """Return the notes of an adapter: those that the base weights make untrue are replaced.

    `whole` is the number of modules whose ΔW is of full rank.
    """
    if against is None:
        return adapter.warnings
    notes = [note for note in adapter.warnings if not note.startswith(_ALONE)]
    alone = [note for note in adapter.warnings if note.startswith(_ALONE)]
    if whole:
        notes.append(
            f"DoRA: the numbers are of the exact ΔW by the weights of {against.name}, which is of full rank: σ̃ are the "
            "largest of it, as many as the factors have rank"
        )
    else:
        notes += [note for note in alone if note.startswith(_ALONE[0])]
    start = known_start(adapter.config)
    if start is not None:
        notes.append(
            f"initialised by {start}: the numbers are of ΔW = s·B·A − s·B₀·A₀ by the weights of {against.name}"
        )
    elif changed_base(adapter.config) is not None:
        notes += [note for note in alone if note.startswith(_ALONE[1])]
        notes.append("what it began with does not follow from the base weights, so its true update is not known")
    if against.missing:
        notes.append(
            f"{len(against.missing)} of {len(adapter.modules)} modules have no weight in {against.name} that is read; "
            f"of these s·B·A is measured: {printable(against.missing[0], 120)}: {against.why}"
        )
    return tuple(notes)


class BaseReader:
    """Gives the true update of each module of an adapter, and what it is beside the base weight.

    One matrix is worked on at a time, whatever the number of threads, so that memory stays that of a few matrices.
    """

    def __init__(self, adapter: Adapter, base: BaseWeights, *, seed: int = 0, directions: bool = False) -> None:
        """Find the modules' weights; no weight is read.

        Raises UnsupportedAdapterError where the base has the weight of no module.
        """
        self.base = base
        self._seed, self._directions = seed, directions
        self._start = known_start(adapter.config)
        self._magnitudes = magnitudes_of(adapter)
        self._lock = threading.Lock()
        self.stored: dict[str, str] = {}
        #: Modules whose weight cannot be read → why.
        self.missing: dict[str, UnsupportedAdapterError] = {}
        for module in adapter.modules:
            try:
                self.stored[module.path] = base.located(module)[0].name
            except UnsupportedAdapterError as error:
                self.missing[module.path] = error
            if changed_base(adapter.config) is not None and module.path in self._magnitudes:
                why = "DoRA on factors that begin with a part of the base weight is not read"
                self.stored.pop(module.path, None)
                self.missing[module.path] = UnsupportedAdapterError(why, module=module.path)
        if not self.stored:
            raise next(iter(self.missing.values()))

    @property
    def lock(self) -> threading.Lock:
        """Return what a thread holds while it works on a matrix."""
        return self._lock

    def is_dense(self, module: LoraModule) -> bool:
        """Return whether the module's update is no product of two factors."""
        return self._start is None and module.path in self._magnitudes and module.path in self.stored

    def knows(self, module: LoraModule) -> bool:
        """Return whether s·B·A is not ΔW, and ΔW is known by the base."""
        taken_out = self._start is not None and takes_out(self._start, module)
        return module.path in self.stored and (taken_out or module.path in self._magnitudes)

    def update(self, module: LoraModule) -> DenseMatrix | TrueFactors | None:
        """Return ΔW where s·B·A is not it and it is known; None otherwise."""
        if module.path not in self.stored:
            return None
        try:
            return true_update(module, self.base, self._magnitudes.get(module.path), self._start)
        except FloatingPointError:
            raise self._nonfinite(module) from None

    def matrix(self, module: LoraModule) -> DenseMatrix:
        """Return ΔW as a dense matrix, s·B·A where no other is known; transposed where the weight lies so."""
        update = self.update(module)
        if isinstance(update, DenseMatrix):
            return update
        factors = update or upright(module, self.base)[1]
        return product(factors.A, factors.B, factors.scaling)

    def beside(
        self, module: LoraModule, update: DenseMatrix | TrueFactors | None, frobenius: float | None, components: int
    ) -> ModuleAgainstBase | None:
        """Return what the module is beside its weight, None where it has none; ‖ΔW‖_F is known.

        Raises NonFiniteError where the weight holds NaN or infinity.
        """
        if module.path not in self.stored:
            return None
        weight, factors, turned = upright(module, self.base)
        if isinstance(update, TrueFactors) and turned:
            update = TrueFactors(update.B.T, update.A.T, update.scaling)
        given, stored = update or factors, self.stored[module.path]
        try:
            found = compared_with(
                module.path, stored, weight, given, frobenius, components, self._seed, self._directions
            )
            return replace(found, columns=found.rows, rows=found.columns) if turned else found
        except FloatingPointError:
            raise self._nonfinite(module) from None

    def cost(self, adapter: Adapter, configurations: Sequence[Configuration]) -> Estimate:
        """Return what reading the weights costs, besides the measurement of the factors."""
        total = NOTHING
        for module in adapter.modules:
            if module.path in self.stored:
                shape = module.m, module.n, module.rank
                dense, start = self.is_dense(module), self._start is not None
                total += base_cost(
                    module.path, shape, configurations, dense=dense, intruders=self._directions, start=start
                )
        # Whole weights that come along: their differences are matrices of full rank.
        for name in other_names(adapter):
            tensor = next(file.tensors[name] for file in adapter.files if name in file.tensors)
            if len(tensor.shape) > 1:
                sizes = tensor.shape[0], math.prod(tensor.shape[1:])
                total += base_cost(name, (*sizes, COMPONENTS), [Configuration("svd")], dense=True)
        return total

    def result(self, modules: Sequence[ModuleAgainstBase | None], weights: tuple[WeightDelta, ...] = ()) -> AgainstBase:
        """Return all of it together."""
        why = next(iter(self.missing.values()), None)
        return AgainstBase(
            name=self.base.label,
            modules=tuple(one for one in modules if one is not None),
            weights=weights,
            missing=tuple(self.missing),
            why=None if why is None else for_command(why.problem),
            epsilon=INTRUDER_COSINE if self._directions else None,
        )

    def _nonfinite(self, module: LoraModule) -> NonFiniteError:
        shape = (module.m, module.n)
        return NonFiniteError("its weight holds NaN or infinity", file=self.base.name, module=module.path, shape=shape)


def compared_with(
    path: str,
    name: str,
    weight: DenseMatrix,
    update: DenseMatrix | TrueFactors,
    frobenius: float | None,
    components: int,
    seed: int,
    directions: bool,
) -> ModuleAgainstBase:
    """Return what an update is beside its weight, whose name is `name`; ‖ΔW‖_F is known.

    `directions` tells whether those of W, of ΔW and of both together are compared, of ΔW `components` at most.
    Raises FloatingPointError where the weight holds NaN or infinity.
    """
    size = weight.norms.frobenius
    relative = None if frobenius is None or size == 0.0 else frobenius / size
    told = ModuleAgainstBase(path=path, weight=name, base_frobenius=size, relative=relative)
    if not (directions and relative):
        return told
    base = base_directions(weight, seed)
    if isinstance(update, DenseMatrix):
        tuned, (columns, rows, first) = plus_matrix(weight, update), _dense_bases(update, components, seed)
    else:
        tuned = plus_product(weight, update.A, update.B, update.scaling)
        columns, rows, first = _bases(FactoredUpdate(update.A, update.B, update.scaling))
    found = intruders(base, tuned, seed)
    return replace(
        told,
        relative_spectral=first / float(base.values[0]),
        intruders=found.found,
        directions=found.directions,
        compared=found.compared,
        complete=base.complete,
        columns=overlap(columns, base.left[:, :INTRUDER_DIRECTIONS]),
        rows=overlap(rows, base.right[:, :INTRUDER_DIRECTIONS]),
    )


def true_relation(
    readers: tuple[BaseReader | None, BaseReader | None], modules: tuple[LoraModule, LoraModule], *norms: float
) -> tuple[float, float] | None:
    """Return ‖ΔW₂ − ΔW₁‖_F / ‖ΔW₁‖_F and the cosine between two true updates, whose norms are known.

    None where a norm is zero, or where s·B·A is the true update of both.
    """
    (one, two), (a, b) = readers, modules
    if one is None or two is None or 0.0 in norms or not (one.knows(a) or two.knows(b)):
        return None
    first, second = one.matrix(a), two.matrix(b)
    distance = plus_matrix(second, first, -1.0).norms.frobenius / norms[0]
    return distance, max(-1.0, min(1.0, inner_of(first, second) / norms[0] / norms[1]))


def _bases(update: FactoredUpdate) -> tuple[Float, Float, float]:
    found = bases(update)
    return found.columns, found.rows, float(update.singular_values[0])


def _dense_bases(update: DenseMatrix, components: int, seed: int) -> tuple[Float, Float, float]:
    found = leading(update, components, seed)
    kept = int(np.sum(found.values > 0))
    return found.left[:, :kept], found.right[:, :kept], float(found.values[0])
