"""A named array: the interface of every stored tensor, and one that is in memory already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]
#: Makes a matrix of a stored array without copying or looking into it.
View = Callable[[Array], Array]


def as_stored(stored: Array) -> Array:
    """Return the stored array: the layout of most factors."""
    return stored


class Tensor(Protocol):
    """A named array that is read only when asked for."""

    @property
    def name(self) -> str:
        """Return the key in the file."""

    @property
    def dtype(self) -> str:
        """Return the NumPy / ml_dtypes name, e.g. `bfloat16`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape as stored."""

    def array(self) -> Array:
        """Return the values in their stored dtype, not to be written to."""

    def matrix(self, view: View = as_stored) -> Any:
        """Return the matrix that `view` makes of the values or, of a long tensor, what reads its rows when needed."""


@dataclass(frozen=True, slots=True)
class ArrayTensor:
    """A tensor that is in memory already."""

    name: str
    values: Array

    @property
    def dtype(self) -> str:
        """Return the NumPy name of the dtype."""
        return self.values.dtype.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape."""
        return self.values.shape

    def array(self) -> Array:
        """Return the values."""
        return self.values

    def matrix(self, view: View = as_stored) -> Array:
        """Return the matrix that `view` makes of the values."""
        return view(self.values)
