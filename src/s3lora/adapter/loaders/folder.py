"""What a loader looks at in a folder, and which files it takes of it: told from names alone, as the loaders do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from s3lora.adapter.weights import PEFT_WEIGHTS, is_peft


@dataclass(frozen=True, slots=True)
class LoaderView:
    """What a loader looks at: the names of the files in the folder, its configuration and the format of the adapter."""

    names: tuple[str, ...]
    config: Mapping[str, Any] | None
    format: str

    def first(self, *names: str) -> tuple[str, ...]:
        """Return the first of these names that is there, as a tuple of one or none."""
        return next(((name,) for name in names if name in self.names), ())

    def ending(self, suffix: str) -> list[str]:
        """Return the names with this ending, in order."""
        return [name for name in self.names if name.endswith(suffix)]


#: Files that a loader takes; none where it finds none or refuses, and then a note that says why.
Taken = tuple[tuple[str, ...], str]


def of_peft(view: LoaderView) -> bool:
    """Return whether the folder is a PEFT adapter's."""
    return is_peft(view.config)


def first_of(*names: str) -> Callable[[LoaderView], Taken]:
    """Return the rule of a loader that takes the first of these names."""

    def takes(view: LoaderView) -> Taken:
        found = view.first(*names)
        return found, "" if found else f"finds no {' or '.join(names)}"

    return takes


#: PEFT 0.21.2, `load_peft_weights`, and those that do the same.
peft_files = first_of(*PEFT_WEIGHTS)
