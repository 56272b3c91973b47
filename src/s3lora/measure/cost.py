"""What a measurement costs, estimated from shapes, ranks and options before any number is read.

The unit is one operation: a multiply–add in float64 as fast BLAS code does it, `SPEED` of them in a second of one core.
What is slower counts as more operations. With N × r a factor, q = min(N, r), and p = min(m, n, r):

    a module              PER_MODULE for each method: what Python does with it however small it is, up to its place in
                          a result
    a shape (m, n, r)     PER_SHAPE for each method: modules of one shape share their calls of NumPy
    factors of a module   N·r·(PER_NUMBER + 3·q) for either of them: read, hashed and converted, then the Gram matrix,
                          the product with the other's root, and the Gram matrix of what that gives; besides what it
                          takes to multiply them out of what is stored
    Kronecker product     what its two parts cost, and PRODUCT for each product of their singular values: that is more
                          than it takes, and bounds how many numbers a result holds, since small files can make many;
                          spsvd matches as many directions as one update has of that rank, and the dense method and
                          --fit l1 do all that they do with one
    small matrices        DECOMPOSED·p³ for each method: their singular values, their eigenvalues, the matching of spsvd
    dense method          DENSE·m·n·p', p' = min(m, n): two decompositions of ΔW itself
    --fit l1              h·w·(FITTED + 3·(r + M)) for each of the M·(M + 1)·(2·M + 1) / 6 fits of M components, one for
                          each pair of directions that is still free, on the h ≤ m rows and w ≤ n columns drawn
    costly index          m·n·(r + ENTRY), for ΔW in blocks (kurtosis above rank 20, and where its moments cancel), and
                          up to rank 20 (m + n)·(r + 2)⁴ / 4 for the moments
    comparison            of two updates 3·(m + n)·max(r₁, r₂)², or 2·m·n·(r₁ + r₂) where that is less, for each step
    composition           what the parts cost alone, what one of rank Σr costs, and for each part and pair the bases and
                          their angles: (m + n)·r·p and DECOMPOSED·p³ for either
    base weights          of each weight m·n·READ, and VECTORS·DENSE·m·n·p' for what PiSSA took out of it; of a ΔW of
                          full rank, for each of the up to 3 matrices that a method decomposes DENSE·m·n·p', or
                          m·n·(MADE + SWEPT·(M + 20)) above a side of 1024; for intruder dimensions VECTORS times the
                          same of W and of W + ΔW
    null rule             for each shape, its draws times the factors of such a module and DRAWN for each number drawn

It does not depend on the values, and reckons with those that cost most: on the machine where it was fitted, work took
0.1 to 2 times the estimate (docs/benchmarks.md). It grows with every size and with the number of modules. Writing a
pruned adapter is not in it: that takes at most a few times what its scan does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from s3lora.adapter.factors import Shape as Shape
from s3lora.errors import CostError, UsageError
from s3lora.measure.configuration import Configuration
from s3lora.spectrum.dense_scores import passes_of
from s3lora.spectrum.intruders import COMPARED, INTRUDER_DIRECTIONS
from s3lora.spectrum.leading import is_exact
from s3lora.spectrum.methods import METHODS
from s3lora.wording import worded

#: Operations in a second of one core.
SPEED = 5e9
#: What is allowed unless asked otherwise: ten minutes of one core.
MAX_COST = 3e12
PER_MODULE, PER_SHAPE = 1e6, 5e6
PER_NUMBER, DECOMPOSED = 60.0, 12.0
DENSE, ENTRY, FITTED, DRAWN, PRODUCT = 4.0, 60.0, 1000.0, 80.0, 1e5
READ, MADE, SWEPT, VECTORS = 20.0, 200.0, 12.0, 4.0
#: Largest rank for which moments are used instead of entries.
MOMENTS = 20


class Shaped(Protocol):
    """A module, as far as its cost depends on it."""

    @property
    def path(self) -> str:
        """Return its path."""

    @property
    def m(self) -> int:
        """Return the rows of ΔW."""

    @property
    def n(self) -> int:
        """Return the columns of ΔW."""

    @property
    def rank(self) -> int:
        """Return the inner size of its factors."""

    @property
    def pieces(self) -> tuple[Shape, ...]:
        """Return the shapes of the products that it is made of: its own, or two of a Kronecker product."""

    @property
    def work(self) -> float:
        """Return the operations that multiply its factors out of what is stored."""


class Estimate(NamedTuple):
    """Operations in all, and the module of which most are: its path and shape, None where no module is to be named."""

    operations: float
    path: str | None = None
    shape: Shape | None = None

    def __add__(self, other: Estimate) -> Estimate:  # type: ignore[override]
        """Return both together, with the module of the costlier one."""
        most = max(self, other, key=lambda one: one.operations)
        return Estimate(self.operations + other.operations, most.path, most.shape)


NOTHING = Estimate(0.0)


def scan_cost(modules: Iterable[Shaped], configurations: Sequence[Configuration]) -> Estimate:
    """Return what it costs to measure these modules by all of the configurations in one pass."""
    known: dict[tuple[Shape, ...], float] = {}
    total, most, path = 0.0, -1.0, None
    shape = (0, 0, 0)
    for module in modules:
        pieces = module.pieces
        if pieces not in known:
            cost = (
                _kronecker_cost(pieces, configurations) if len(pieces) > 1 else module_cost(pieces[0], configurations)
            )
            known[pieces] = PER_MODULE * len(configurations) + cost
            total += PER_SHAPE * len(configurations)
        own = known[pieces] + module.work
        total += own
        if own > most:
            most, path, shape = own, module.path, (module.m, module.n, module.rank)
    return Estimate(total, path, shape)


def _kronecker_cost(pieces: tuple[Shape, ...], configurations: Sequence[Configuration]) -> float:
    product = whole(pieces)
    count = float(min(product))
    total = sum(_factors(shape) for shape in pieces)
    for one in configurations:
        total += sum(_decomposed(shape) for shape in pieces) + PRODUCT * count + ENTRY * (product[0] + product[1])
        needed = METHODS[one.method]
        if needed.fits:
            total += _decomposed(product)
        if needed.dense or (needed.fits and one.fit == "l1"):
            total += _factors(product) + _method(product, one)
        if one.kurtosis:
            total += sum(float(m) * n * (r + ENTRY) for m, n, r in pieces)
    return total


def module_cost(shape: Shape, configurations: Sequence[Configuration]) -> float:
    """Return what the arithmetic of one module costs, by all of the configurations in one pass."""
    total = _factors(shape)
    for one in configurations:
        total += _decomposed(shape) + _method(shape, one) + (_costly(shape) if one.kurtosis else 0.0)
    return total


def base_cost(
    path: str,
    shape: Shape,
    configurations: Sequence[Configuration],
    *,
    dense: bool = False,
    intruders: bool = False,
    start: bool = False,
) -> Estimate:
    """Return what a module costs beside the weight of its base.

    `dense` tells that its ΔW is of full rank, `intruders` that the directions of both are compared, `start` that what
    its factors began with has to be found.
    """
    m, n, rank = shape
    total = (READ + (DENSE * VECTORS * min(m, n) if start else 0.0)) * m * n
    for one in configurations if dense else ():
        total += passes_of(one.method) * _spectrum(m, n, one.rank or rank)
    if intruders:
        total += VECTORS * (_spectrum(m, n, COMPARED) + _spectrum(m, n, INTRUDER_DIRECTIONS))
    return Estimate(total, path, (m, n, rank))


def _spectrum(m: int, n: int, count: int) -> float:
    if is_exact((m, n), count):
        return DENSE * m * n * min(m, n)
    return float(m) * n * (MADE + SWEPT * (count + 20))


def relation_cost(first: Shape, second: Shape) -> float:
    """Return what the distance and the angle of two updates of one shape of ΔW cost."""
    m, n, r = max(first, second, key=lambda one: one[2])
    return min(3.0 * (m + n) * r * r, 2.0 * m * n * (first[2] + second[2])) + PER_NUMBER * (m + n) * r


def compare_cost(adapters: Sequence[Mapping[str, Shaped]], configuration: Configuration) -> Estimate:
    """Return what it costs to compare adapters, each given as its modules by path, each with the one before."""
    total = NOTHING
    for i, modules in enumerate(adapters):
        total += scan_cost(modules.values(), [configuration])
        for before in {j for j in (i - 1, 0 if i == len(adapters) - 1 else -1) if 0 <= j < i}:
            others = adapters[before]
            pairs = [(one, others[path]) for path, one in modules.items() if path in others]
            total += Estimate(sum(PER_MODULE + _related_cost(one, other) for one, other in pairs))
    return total


def _related_cost(first: Shaped, second: Shaped) -> float:
    made = 3 * (first.work + second.work)
    if [one[:2] for one in first.pieces] == [one[:2] for one in second.pieces]:
        return made + sum(relation_cost(one, other) for one, other in zip(first.pieces, second.pieces, strict=True))
    return made + relation_cost(whole(first.pieces), whole(second.pieces))


def whole(pieces: tuple[Shape, ...]) -> Shape:
    """Return (m, n, r) of the Kronecker product of the pieces.

    >>> whole(((2, 3, 2), (4, 5, 1)))
    (8, 15, 2)
    """
    return math.prod(m for m, _, _ in pieces), math.prod(n for _, n, _ in pieces), math.prod(r for _, _, r in pieces)


def compose_cost(parts: Mapping[str, Sequence[Shape]], configuration: Configuration) -> Estimate:
    """Return what it costs to add up updates: of each module, the shapes of its parts, of one shape of ΔW."""
    most, path, shape = -1.0, None, None
    alike = {tuple(shapes) for shapes in parts.values()}  # which are measured together
    total = sum(PER_SHAPE * (len(shapes) + 1) for shapes in alike)
    for name, shapes in parts.items():
        m, n, _ = shapes[0]
        whole = (m, n, sum(r for _, _, r in shapes))
        own = module_cost(whole, [configuration])
        own += sum(module_cost(one, [configuration]) + 2 * _basis(one) for one in shapes)
        ranks = sorted((min(one) for one in shapes), reverse=True)
        # Each of a part's pairs costs what the larger rank of the two does: the i-th largest is the larger of the rest.
        own += sum((len(ranks) - 1 - i) * (PER_MODULE + _basis((m, n, r))) for i, r in enumerate(ranks))
        total += own
        if own > most:
            most, path, shape = own, name, whole
    return Estimate(total, path, shape)


def null_cost(shapes: Iterable[Shape], draws: int) -> Estimate:
    """Return what it costs to draw random updates of these shapes and to measure them."""
    total, most, largest = 0.0, -1.0, None
    for shape in set(shapes):
        m, n, r = shape
        own = PER_SHAPE + draws * (DRAWN * r * (m + n) + _factors(shape) + _decomposed(shape))
        total += own
        if own > most or (own == most and largest is not None and shape < largest):
            most, largest = own, shape
    return Estimate(total, None, largest)


def afford(estimate: Estimate, limit: float, what: str, label: str | None = None) -> None:
    """Raise CostError if an estimate is beyond the limit: nothing of the work is done yet.

    Parameters:
        estimate: of the work.
        limit: operations that are allowed, above 0; `math.inf` allows everything.
        what: the work, as in `measuring 224 modules by mas-svd`.
        label: the adapter.

    Raises UsageError for a limit that is not above 0.
    """
    if not limit > 0:
        raise UsageError(f"max_cost must be above 0, not {limit:g}", fix="give a number of operations such as 1e12")
    if estimate.operations <= limit:
        return
    most = "" if estimate.shape is None else f", most of them for rank {estimate.shape[2]}"
    time = duration(estimate.operations / SPEED)
    raise CostError(
        f"{what} takes some {_short(estimate.operations)} operations, {time} of one core{most}; {_short(limit)} are "
        "allowed",
        file=label,
        module=estimate.path,
        shape=None if estimate.shape is None else estimate.shape[:2],
        fix=worded("give {max_cost}{operations} to have it done", operations=above(estimate.operations)),
    )


def above(operations: float) -> str:
    """Return a short number that is no less.

    >>> above(3.14e12), above(2e12)
    ('3.2e12', '2e12')
    """
    step = 10.0 ** (math.floor(math.log10(operations)) - 1)
    count = math.ceil(operations / step)
    while float(_short(count * step)) < operations:  # what rounding lost
        count += 1
    return _short(count * step)


def _short(operations: float) -> str:
    return f"{operations:.1e}".replace("e+0", "e").replace("e+", "e").replace(".0e", "e")


def duration(seconds: float) -> str:
    """Return seconds in the unit that suits.

    >>> duration(50), duration(700), duration(9000), duration(1e6)
    ('50 seconds', '12 minutes', '2.5 hours', '12 days')
    """
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} seconds"


class Sized:
    """A module of which only the path, the `pieces` and the `work` are known."""

    def __init__(self, path: str, pieces: tuple[Shape, ...], work: float = 0.0) -> None:
        """Take the sizes of the product of the pieces."""
        self.path, self.pieces, self.work = path, pieces, work
        self.m, self.n, self.rank = whole(pieces)


def _factors(shape: Shape) -> float:
    m, n, r = shape
    return sum(size * r * (PER_NUMBER + 3.0 * min(size, r)) for size in (m, n))


def _decomposed(shape: Shape) -> float:
    return DECOMPOSED * float(min(shape)) ** 3


def _basis(shape: Shape) -> float:
    m, n, r = shape
    return (m + n) * r * (PER_NUMBER + 4.0 * min(shape)) + _decomposed(shape)


def _method(shape: Shape, configuration: Configuration) -> float:
    m, n, r = shape
    method = METHODS[configuration.method]
    total = 0.0
    if method.dense and method.defined(m, n):
        total += DENSE * m * n * min(m, n) + m * n * r
    if method.fits and configuration.fit == "l1":
        kept = min(m, n, r, configuration.rank or r)
        sample = configuration.sample
        height, width = (size if sample is None else min(size, sample) for size in (m, n))
        fits = kept * (kept + 1) * (2 * kept + 1) / 6
        total += fits * height * width * (FITTED + 3 * (r + kept))
    return total


def _costly(shape: Shape) -> float:
    m, n, r = shape
    moments = (m + n) * (min(r, MOMENTS) + 2.0) ** 4 / 4
    return float(m) * n * (r + ENTRY) + moments
