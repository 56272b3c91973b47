"""Modules → their updates, as `spectrum` measures them."""

from __future__ import annotations

from collections.abc import Sequence

from s3lora.adapter.factors import KroneckerFactor
from s3lora.adapter.model import LoraModule
from s3lora.spectrum.difference import Factors
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.kronecker import KroneckerUpdate


def stack_of(modules: Sequence[LoraModule]) -> FactoredUpdate:
    """Return the updates of modules that have the same `pieces`, to be measured together."""
    scalings = [module.scaling.value for module in modules]
    pairs = [(module.A, module.B) for module in modules]
    kronecker = [(a, b) for a, b in pairs if isinstance(a, KroneckerFactor) and isinstance(b, KroneckerFactor)]
    if kronecker:
        first = FactoredUpdate(
            [a.first.matrix() for a, _ in kronecker], [b.first.matrix() for _, b in kronecker], scalings
        )
        second = FactoredUpdate(
            [a.second.matrix() for a, _ in kronecker], [b.second.matrix() for _, b in kronecker], [1.0] * len(kronecker)
        )
        return KroneckerUpdate(first, second)
    return FactoredUpdate([a.matrix() for a, _ in pairs], [b.matrix() for _, b in pairs], scalings)


def update_of(module: LoraModule) -> FactoredUpdate:
    """Return the update of one module."""
    (update,) = stack_of([module])
    return update


def products_of(first: LoraModule, second: LoraModule) -> tuple[list[Factors], list[Factors]]:
    """Return the products (A, B) that the two updates are made of.

    One pair each, or two of Kronecker products whose parts have the same sizes.
    """
    sizes = [[piece[:2] for piece in module.pieces] for module in (first, second)]
    of = _products if sizes[0] == sizes[1] else _whole
    return of(first), of(second)


def _products(module: LoraModule) -> list[Factors]:
    a, b = module.A, module.B
    if isinstance(a, KroneckerFactor) and isinstance(b, KroneckerFactor):
        return [(a.first.matrix(), b.first.matrix()), (a.second.matrix(), b.second.matrix())]
    return _whole(module)


def _whole(module: LoraModule) -> list[Factors]:
    return [(module.A.matrix(), module.B.matrix())]
