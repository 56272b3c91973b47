"""LoHa and LoKr: updates that are a Hadamard or a Kronecker product of two matrices, as PEFT and LyCORIS store them.

    LoHa    ΔW = s·(w1_a·w1_b) ∘ (w2_a·w2_b)     `PATH.hada_w1_a` (m, r), `….hada_w1_b` (r, n), and so w2
    LoKr    ΔW = s·w1 ⊗ w2                       `PATH.lokr_w1` (m₁, n₁) or `….lokr_w1_a` (m₁, r)·`….lokr_w1_b` (r, n₁),
                                                 and so w2, which may be a kernel of a convolution

A Hadamard product of two matrices of ranks r₁ and r₂ has rank r₁·r₂ or less: it is B·A with B = w1_a * w2_a row by row
(the face-splitting product) and A = w1_b * w2_b column by column (Khatri–Rao). Where r₁·r₂ is no less than m or n, ΔW
itself is cheaper, and stands beside an identity.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from s3lora.adapter.factors import MAX_MADE, AnyFactor, DerivedFactor, Factor, IdentityFactor, KroneckerFactor
from s3lora.adapter.formats.base import check_pair, flattened, matrix, require_floating
from s3lora.adapter.model import LoraModule, Scaling
from s3lora.adapter.tensor import Array, Tensor
from s3lora.errors import AdapterFileError, UnsupportedAdapterError, printable

#: A key, with the adapter's name that PEFT gives by itself where a state dict was saved as it was.
KEY = re.compile(
    r"^(?P<path>.+)\.(?P<part>hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?)(?:\.(?P<adapter>[^.]+))?(?:\.weight)?$"
)
_HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


@dataclass(slots=True)
class Product:
    """The tensors of one LoHa or LoKr module by part, such as `hada_w1_a`; `extras` leave the file with them."""

    path: str
    key: str
    parts: dict[str, Tensor] = field(default_factory=dict)
    extras: list[str] = field(default_factory=list)
    dora: bool = False

    @property
    def form(self) -> str:
        """Return how people call it."""
        return "LoHa" if any(part.startswith("hada") for part in self.parts) else "LoKr"

    def add(self, part: str, tensor: Tensor, label: str) -> None:
        """Take a tensor as this part; raise AdapterFileError if there is one already."""
        if part in self.parts:
            raise AdapterFileError(f"has two {part} tensors", file=label, module=self.path)
        self.parts[part] = tensor

    def rank(self) -> int | None:
        """Return r, which alpha is divided by: None of a LoKr whose matrices are both stored whole."""
        inner = [self.parts[part].shape for part in ("hada_w1_b", "lokr_w1_b", "lokr_w2_b") if part in self.parts]
        return inner[-1][0] if inner and inner[-1] else None


def is_product(names: Iterable[str]) -> bool:
    """Return whether any of these is a key of LoHa or LoKr."""
    return any(KEY.match(name) for name in names if "hada_" in name or "lokr_" in name)


def collect(tensors: Mapping[str, Tensor], label: str) -> dict[str, Product]:
    """Return the modules by the base of their keys; raise UnsupportedAdapterError where one has a Tucker core."""
    found: dict[str, Product] = {}
    matches = {name: match for name in tensors if (match := KEY.match(name)) is not None}
    adapters = {match["adapter"] or "default" for match in matches.values()}
    if len(adapters) > 1:
        names = printable(", ".join(sorted(adapters)[:8]))
        fix = "save each adapter by itself"
        raise UnsupportedAdapterError(f"holds several adapters in one file ({names})", file=label, fix=fix)
    for name, match in matches.items():
        tensor = tensors[name]
        if match["part"][5] == "t":
            raise UnsupportedAdapterError(
                f"has a Tucker core ({match['part']}), whose update is no product of matrices",
                file=label,
                module=match["path"],
                shape=tensor.shape,
                fix="merge it into the base model, or train it without (`use_tucker`, `use_effective_conv2d`)",
            )
        key = match["path"]
        found.setdefault(key, Product(key, key)).add(match["part"], tensor, label)
    return found


def module_of(product: Product, scaling: Scaling, where: tuple[int | None, str, int | None], label: str) -> LoraModule:
    """Return the module; `where` are its layer, projection and expert.

    Raises AdapterFileError where a part is missing or does not fit, UnsupportedAdapterError as `matrix` does.
    """
    forms = {part[:4] for part in product.parts}
    if len(forms) > 1:
        raise AdapterFileError("holds parts of LoHa and of LoKr", file=label, module=product.path)
    a, b, conv = (_hadamard if forms == {"hada"} else _kronecker)(product, label)
    check_pair(product.path, a, b, label)
    layer, projection, expert = where
    return LoraModule(
        path=product.path,
        A=a,
        B=b,
        scaling=scaling,
        layer=layer,
        projection=projection,
        expert=expert,
        kind="conv" if conv else "linear",
        dora=product.dora,
        extras=tuple(product.extras),
        form="LoHa" if forms == {"hada"} else "LoKr",
    )


def _part(product: Product, part: str, label: str) -> Factor:
    tensor = product.parts.get(part)
    if tensor is None:
        has = ", ".join(sorted(product.parts))
        raise AdapterFileError(
            f"has {has} but no {part}", file=label, module=product.path, fix="the file is incomplete"
        )
    return matrix(tensor, label)


def _hadamard(product: Product, label: str) -> tuple[AnyFactor, AnyFactor, bool]:
    if unknown := product.parts.keys() - set(_HADAMARD):
        raise AdapterFileError(f"holds {min(unknown)}, which LoHa has not", file=label, module=product.path)
    w1a, w1b, w2a, w2b = (_part(product, part, label) for part in _HADAMARD)
    check_pair(product.path, w1b, w1a, label)
    check_pair(product.path, w2b, w2a, label)
    m, n = w1a.shape[0], w1b.shape[1]
    if (w2a.shape[0], w2b.shape[1]) != (m, n):
        raise AdapterFileError(
            f"its two products do not fit: {m} × {n} and {w2a.shape[0]} × {w2b.shape[1]}",
            file=label,
            module=product.path,
            fix="the file is damaged",
        )
    rank = w1a.shape[1] * w2a.shape[1]
    if min(rank * (m + n), m * n) > MAX_MADE:
        what = f"makes matrices of {min(rank * (m + n), m * n):,} numbers, which is too much to hold"
        raise UnsupportedAdapterError(what, file=label, module=product.path, shape=(m, n))
    if rank < min(m, n):
        b = DerivedFactor((w1a, w2a), (m, rank), _face_splitting, None)
        return DerivedFactor((w1b, w2b), (rank, n), _khatri_rao, None), b, False
    work = float(m) * n * (w1a.shape[1] + w2a.shape[1])
    whole = DerivedFactor((w1a, w1b, w2a, w2b), (m, n), _multiplied, None, work)
    if m <= n:
        return whole, IdentityFactor(m), False
    return IdentityFactor(n), whole, False


def _face_splitting(first: Array, second: Array) -> Array:
    made: Array = first[:, :, None] * second[:, None, :]  # (m, r₁, r₂)
    return made.reshape(len(first), -1)


def _khatri_rao(first: Array, second: Array) -> Array:
    made: Array = first[:, None, :] * second[None, :, :]  # (r₁, r₂, n)
    return made.reshape(-1, first.shape[1])


def _multiplied(w1a: Array, w1b: Array, w2a: Array, w2b: Array) -> Array:
    made: Array = w1a @ w1b
    made *= w2a @ w2b
    return made


def _kronecker(product: Product, label: str) -> tuple[AnyFactor, AnyFactor, bool]:
    a1, b1, _ = _side(product, "lokr_w1", label)
    a2, b2, conv = _side(product, "lokr_w2", label)
    return KroneckerFactor(a1, a2), KroneckerFactor(b1, b2), conv


def _side(product: Product, name: str, label: str) -> tuple[AnyFactor, AnyFactor, bool]:
    """Return (A, B) of one of the two matrices, and whether it is a kernel of a convolution."""
    whole = product.parts.get(name)
    halves = {f"{name}_a", f"{name}_b"} & product.parts.keys()
    if whole is None:
        if not halves:
            _part(product, name, label)
        a, b = _part(product, f"{name}_b", label), _part(product, f"{name}_a", label)
        check_pair(product.path, a, b, label)
        return a, b, False
    if halves:
        raise AdapterFileError(
            f"holds {name} and {min(halves)}, which exclude each other", file=label, module=product.path
        )
    factor = _flat(whole, label)
    if 0 in factor.shape:
        raise AdapterFileError("a factor is empty", file=label, module=product.path, shape=whole.shape)
    conv = len(whole.shape) > 2
    rows, columns = factor.shape
    return (factor, IdentityFactor(rows), conv) if rows <= columns else (IdentityFactor(columns), factor, conv)


def _flat(tensor: Tensor, label: str) -> Factor:
    """Return a matrix, or the kernel (a, b, k) or (a, b, h, w) of a convolution as (a, b·k)."""
    if len(tensor.shape) != 3:
        return matrix(tensor, label)
    require_floating(tensor, label)
    a, b, k = tensor.shape
    return Factor(tensor, (a, b * k), flattened)
