"""Modules → the numbers of each: σ̃ and the indices, of their factors or of what the base weights say ΔW is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from s3lora.adapter.model import Factor, LoraModule
from s3lora.base.updates import TrueFactors
from s3lora.errors import NonFiniteError, UnsupportedAdapterError
from s3lora.measure.against_base import ModuleAgainstBase
from s3lora.measure.base_reader import BaseReader
from s3lora.measure.configuration import Configuration
from s3lora.measure.updates import stack_of
from s3lora.spectrum.dense import DenseMatrix
from s3lora.spectrum.dense_scores import dense_scores
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.indices import INDICES, Spectra
from s3lora.spectrum.methods import METHODS, Options
from s3lora.spectrum.nearest import above_noise, rank_for
from s3lora.spectrum.tall import Float, converted

__all__ = ["MeasuredOf", "ModuleNumbers", "dense_numbers", "measured", "measured_beside"]

#: What the numbers of a module are of: its update, or the product of its factors where the update is more than that.
MeasuredOf = Literal["ΔW", "B·A"]


class ModuleNumbers(NamedTuple):
    """What one method finds of one module.

    `sigma` is σ̃, empty for a zero update; an index is None where it is undefined. `dense` tells that ΔW is of full
    rank, so that σ̃ are the largest only, and `error` how far one of them can be below the true one, relative to the
    first. `energy_rank` is the least rank that holds the share `ENERGY` of ‖ΔW‖², and `null_rank` how many
    singular values stand above those of random factors; None for a zero or dense update.
    """

    zero: bool
    sigma: tuple[float, ...]
    indices: dict[str, float | None]
    of: MeasuredOf = "ΔW"
    dense: bool = False
    error: float = 0.0
    energy_rank: int | None = None
    null_rank: int | None = None


def measured(
    batch: Sequence[LoraModule], configurations: Sequence[Configuration], label: str, nonfinite: bool
) -> list[list[ModuleNumbers]]:
    """Measure modules of one shape together, by every configuration; where one of them fails, each by itself.

    Only by the first configuration can a module be an error. By another one it then has no index.
    """
    try:
        update = stack_of(batch)
        zero = update.is_zero.tolist()
        columns = [_columns(batch[0], update, configuration) for configuration in configurations]
    except (FloatingPointError, ValueError) as error:
        if len(batch) > 1:
            return [measured([module], configurations, label, nonfinite)[0] for module in batch]
        if len(configurations) > 1:
            alone = [(one, nonfinite or i > 0) for i, one in enumerate(configurations)]
            return [[measured(batch, [one], label, lenient)[0][0] for one, lenient in alone]]
        if isinstance(error, ValueError):
            raise UnsupportedAdapterError(str(error), file=label, module=batch[0].path) from None
        if not nonfinite:
            raise nonfinite_error(batch[0], label) from None
        zero, columns = [False], [([()], {name: [None] for name in _wanted(configurations[0])}, [(None, None)])]
    return [
        [
            ModuleNumbers(
                nil,
                sigma[i],
                {name: values[i] for name, values in indices.items()},
                "B·A" if module.dora else "ΔW",
                energy_rank=None if nil else ranks[i][0],
                null_rank=None if nil else ranks[i][1],
            )
            for sigma, indices, ranks in columns
        ]
        for i, (module, nil) in enumerate(zip(batch, zero, strict=True))
    ]


def measured_beside(
    batch: Sequence[LoraModule],
    configurations: Sequence[Configuration],
    label: str,
    nonfinite: bool,
    reader: BaseReader,
) -> list[tuple[list[ModuleNumbers], ModuleAgainstBase | None]]:
    """Measure modules of one shape as `measured` does, those whose ΔW is more than s·B·A by the base weights.

    Raises what `measured` and `BaseReader.beside` raise.
    """
    plain = [module for module in batch if not reader.knows(module)]
    found = dict(
        zip([module.path for module in plain], measured(plain, configurations, label, nonfinite), strict=True)
        if plain
        else ()
    )
    results = []
    with reader.lock:
        for module in batch:
            update = reader.update(module)
            numbers = found.get(module.path)
            if numbers is None:
                numbers = _by_base(module, update, configurations, label, nonfinite)
            norm = numbers[0].indices.get("frobenius")
            components = configurations[0].rank or module.rank
            results.append((numbers, reader.beside(module, update, norm, components)))
    return results


def _by_base(
    module: LoraModule,
    update: DenseMatrix | TrueFactors | None,
    configurations: Sequence[Configuration],
    label: str,
    nonfinite: bool,
) -> list[ModuleNumbers]:
    try:
        return [_true(module, update, configuration) for configuration in configurations]
    except FloatingPointError:
        if not nonfinite:
            raise nonfinite_error(module, label) from None
    return [dense_numbers(None, 0, one) for one in configurations]


def dense_numbers(update: DenseMatrix | None, components: int, configuration: Configuration) -> ModuleNumbers:
    """Return the numbers of a ΔW of full rank, M being `components` at most; None holds NaN, and has no index.

    Raises FloatingPointError where it holds NaN or infinity.
    """
    names = _wanted(configuration)
    if update is None:
        return ModuleNumbers(False, (), dict.fromkeys(names), "ΔW", True)
    count = min(components, *update.shape)
    scores = dense_scores(update, configuration.method, count, configuration.seed, names)
    return ModuleNumbers(update.is_zero, scores.sigma, scores.indices, "ΔW", True, scores.error)


def _true(module: LoraModule, update: DenseMatrix | TrueFactors | None, configuration: Configuration) -> ModuleNumbers:
    if isinstance(update, DenseMatrix):
        return dense_numbers(update, configuration.rank or module.rank, configuration)
    assert update is not None
    factored = FactoredUpdate([update.A], [update.B], [update.scaling])
    (sigma,), indices, (rank,) = _columns(module, factored, configuration)
    values = {name: column[0] for name, column in indices.items()}
    nil = bool(factored.is_zero[0])
    energy, null = (None, None) if nil else rank
    return ModuleNumbers(nil, sigma, values, "ΔW", energy_rank=energy, null_rank=null)


#: Share of ‖ΔW‖² that the rank of a module should hold.
ENERGY = 0.99
#: σ̃ of each module; of each index its value for each module, None where it is undefined; and the ranks that would do:
#: for `ENERGY`, and above noise.
_Columns = tuple[list[tuple[float, ...]], dict[str, list[float | None]], list[tuple[int | None, int | None]]]


def _columns(first: LoraModule, update: FactoredUpdate, configuration: Configuration) -> _Columns:
    method = METHODS[configuration.method]
    options = Options(configuration.rank, configuration.fit, configuration.sample, configuration.seed)
    sigma: Float = np.zeros((len(update), 0))
    if method.defined(first.m, first.n):  # else σ̃ is empty, and its indices are None
        sigma = method.of(update, options)
    spectra = Spectra(sigma, update, method.epsilon)
    indices = {name: np.broadcast_to(INDICES[name].values(spectra), len(update)) for name in _wanted(configuration)}
    rows = [() if nil else tuple(row) for nil, row in zip(update.is_zero.tolist(), sigma.tolist(), strict=True)]
    plain = spectra.plain
    ranks = zip((rank_for(row, ENERGY) for row in plain), above_noise(plain, first.m, first.n), strict=True)
    return rows, {name: _known(values) for name, values in indices.items()}, [*ranks]


def _known(values: Float) -> list[float | None]:
    listed: list[float | None] = values.tolist()
    if np.isfinite(values).all():
        return listed
    return [value if value is not None and math.isfinite(value) else None for value in listed]


def nonfinite_error(module: LoraModule, label: str) -> NonFiniteError:
    """Return the error of a module with NaN or infinity, which names the tensor."""
    where = next(
        (part.tensor.name for part in module.parts if not _is_finite(part)),
        "its scaling" + (" or its magnitudes" if module.dora else ""),
    )
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
