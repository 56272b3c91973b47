"""The two factors of an update, as matrices, whatever tensors they are stored as.

Most are one stored tensor. Others are multiplied out of several (`DerivedFactor`), are the Kronecker product of two
factors (`KroneckerFactor`), or are not stored at all (`IdentityFactor`): a matrix that stands for the whole update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from s3lora.adapter.tensor import Array, Layout, Tensor, as_stored
from s3lora.errors import UnsupportedAdapterError
from s3lora.wording import worded

__all__ = ["AnyFactor", "DerivedFactor", "Factor", "IdentityFactor", "KroneckerFactor", "Shape", "dtypes"]

#: (m, n, r) of a product B·A.
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Factor:
    """One of the two low-rank factors, as a matrix, whatever its layout in the file.

    `view` turns the stored array into the matrix of shape `shape` without copying, so that assigning to the view of
    a copy writes the factor back in the file's own layout. Several factors may be views of one tensor (fused
    experts), as long as they do not overlap. `shared` tells that other modules are made of this tensor as well, so that
    it neither leaves nor changes with one of them.
    """

    tensor: Tensor
    shape: tuple[int, int]
    view: Layout = as_stored
    shared: bool = False

    @property
    def parts(self) -> tuple[Factor, ...]:
        """Return the factors that are stored: this one."""
        return (self,)

    @property
    def dtype(self) -> str:
        """Return the stored dtype."""
        return self.tensor.dtype

    @property
    def parameters(self) -> int:
        """Return how many stored numbers the factor is made of, none where it is shared."""
        return 0 if self.shared else self.shape[0] * self.shape[1]

    @property
    def work(self) -> float:
        """Return how many operations it takes to make the matrix: none."""
        return 0.0

    @property
    def free(self) -> bool:
        """Return whether it can become any matrix of its shape: where the tensor is not shared."""
        return not self.shared

    def array(self) -> Array:
        """Return the factor as a read-only matrix view in its stored dtype."""
        return self.view(self.tensor.array())

    def matrix(self) -> Any:
        """Return what `array` does or, of a tensor too long to be held, a matrix whose rows are read when needed."""
        return self.tensor.matrix(self.view)

    def write_back(self, matrix: Array) -> tuple[Array, ...]:
        """Return the new values of each part, given the new matrix: the matrix itself."""
        return (matrix,)


#: Most numbers of a factor that is made of stored ones: 4 GB as float64. A small file can ask for any size.
MAX_MADE = 1 << 29


@dataclass(frozen=True, slots=True)
class DerivedFactor:
    """A low-rank factor that is stored as several parts and multiplied out when it is read.

    `join` makes the matrix of shape `shape` out of the parts, which it gets in float64: a product of float32 numbers
    is exact there, and takes `work` operations. `split` makes new parts out of a new matrix, so that joining them gives
    that matrix; it raises UnsupportedAdapterError for a matrix that no parts of these shapes give, and is None where
    that is so of nearly all of them.

    >>> import numpy as np
    >>> from s3lora.adapter.tensor import ArrayTensor
    >>> values = Factor(ArrayTensor("x.E", np.array([[2.0], [3.0]])), (2, 1))
    >>> rows = Factor(ArrayTensor("x.A", np.ones((2, 4))), (2, 4))
    >>> a = DerivedFactor((values, rows), (2, 4), np.multiply, lambda new: (np.ones((2, 1)), new))
    >>> a.array()[:, 0].tolist(), a.parameters
    ([2.0, 3.0], 10)
    """

    parts: tuple[Factor, ...]
    shape: tuple[int, int]
    join: Callable[..., Array]
    split: Callable[[Array], tuple[Array, ...]] | None
    work: float = 0.0

    @property
    def free(self) -> bool:
        """Return whether it can become any matrix, or one as the form asks for."""
        return self.split is not None

    @property
    def dtype(self) -> str:
        """Return the stored dtypes of the parts, joined by `/` where they differ."""
        return dtypes(part.dtype for part in self.parts)

    @property
    def parameters(self) -> int:
        """Return how many stored numbers the factor is made of."""
        return sum(part.parameters for part in self.parts)

    def array(self) -> Array:
        """Return the factor as a matrix in float64."""
        with np.errstate(invalid="ignore"):  # a signalling NaN, which whoever looks at the numbers finds
            return self.join(*(part.array().astype(np.float64) for part in self.parts))

    def matrix(self) -> Any:
        """Return what `array` does: joining needs all of it."""
        return self.array()

    def write_back(self, matrix: Array) -> tuple[Array, ...]:
        """Return the new values of each part, given the new matrix; raise UnsupportedAdapterError if there are none."""
        if self.split is None:
            raise _not_free(self)
        return self.split(matrix)


@dataclass(frozen=True, slots=True)
class IdentityFactor:
    """The identity of `size` rows: the other factor is then the whole update, or a whole factor of a Kronecker product.

    >>> IdentityFactor(2).array()
    array([[1., 0.],
           [0., 1.]])
    """

    size: int
    parts: tuple[Factor, ...] = ()
    dtype: str = ""
    parameters: int = 0
    work: float = 0.0
    free: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Return (size, size)."""
        return self.size, self.size

    def array(self) -> Array:
        """Return the matrix in float64."""
        return np.eye(self.size)

    def matrix(self) -> Any:
        """Return what `array` does."""
        return self.array()

    def write_back(self, matrix: Array) -> tuple[Array, ...]:
        """Raise UnsupportedAdapterError: nothing is stored."""
        raise _not_free(self)


@dataclass(frozen=True, slots=True)
class KroneckerFactor:
    """The Kronecker product of two factors: B₁⊗B₂, or A₁⊗A₂, of an update (B₁A₁)⊗(B₂A₂).

    Whatever is known of such an update follows from its two parts, so that the product is mostly not formed.
    """

    first: AnyFactor
    second: AnyFactor

    @property
    def shape(self) -> tuple[int, int]:
        """Return the products of both sizes."""
        return self.first.shape[0] * self.second.shape[0], self.first.shape[1] * self.second.shape[1]

    @property
    def parts(self) -> tuple[Factor, ...]:
        """Return the stored factors of both."""
        return (*self.first.parts, *self.second.parts)

    @property
    def dtype(self) -> str:
        """Return the stored dtypes, joined by `/` where they differ."""
        return dtypes((self.first.dtype, self.second.dtype))

    @property
    def parameters(self) -> int:
        """Return how many stored numbers the factor is made of."""
        return self.first.parameters + self.second.parameters

    @property
    def work(self) -> float:
        """Return how many operations it takes to make both of its parts."""
        return self.first.work + self.second.work

    @property
    def free(self) -> bool:
        """Return False: few matrices are Kronecker products."""
        return False

    def array(self) -> Array:
        """Return the product in float64, which may be large."""
        first, second = (one.array().astype(np.float64) for one in (self.first, self.second))
        return np.kron(first, second)

    def matrix(self) -> Any:
        """Return what `array` does."""
        return self.array()

    def write_back(self, matrix: Array) -> tuple[Array, ...]:
        """Raise UnsupportedAdapterError."""
        raise _not_free(self)


AnyFactor = Factor | DerivedFactor | KroneckerFactor | IdentityFactor


def dtypes(names: Iterable[str]) -> str:
    """Return the names of dtypes, joined by `/` where they differ; the empty name is none.

    >>> dtypes(["float16", "", "float32/float16"])
    'float16/float32'
    """
    return "/".join(dict.fromkeys(name for joined in names for name in joined.split("/") if name))


def _not_free(factor: AnyFactor) -> UnsupportedAdapterError:
    return UnsupportedAdapterError(
        "cannot be given other factors: its update is no product of two free matrices",
        module=factor.parts[0].tensor.name if factor.parts else None,
        shape=factor.shape,
        fix=worded("use {remove}, {zero} or {scale}"),
    )
