"""A named array: the interface of every stored tensor, and one that is in memory already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]


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
        """Return a read-only view of the values in their stored dtype."""

    def release(self) -> None:
        """Let the operating system take the memory behind the views back."""


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

    def release(self) -> None:
        """Do nothing: the caller owns the memory."""
