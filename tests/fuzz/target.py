"""A target: one kind of input that others write, and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """One kind of input.

    `fuzz` makes the input of some bytes, in an empty folder, and gives it to the library; it raises an S3LoRAError
    where that refuses it. `seeds` returns bytes that make valid inputs, to begin with, and `words` what such inputs are
    made of. `needs` names packages without which it is left out, and `quick` is how many mutations the default suite
    tries.
    """

    name: str
    about: str
    fuzz: Callable[[bytes, Path], object]
    seeds: Callable[[], Sequence[bytes]]
    words: tuple[bytes, ...] = ()
    needs: tuple[str, ...] = ()
    quick: int = 300

    def missing(self) -> str | None:
        """Return a package that is not here, None where nothing is missing."""
        return next((name for name in self.needs if find_spec(name) is None), None)


def has_atheris() -> bool:
    """Return whether inputs can be guided by coverage here."""
    return find_spec("atheris") is not None
