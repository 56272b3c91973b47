"""What a loader looks at in a folder, and which files it takes of it: told from names alone, as the loaders do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import PEFT_WEIGHTS, is_peft, parsed_config, raw_config
from s3lora.errors import AdapterFileError

#: Where a tokenizer keeps the words that were added to it.
ADDED = "added_tokens.json"


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


def added_words(adapter: Adapter) -> dict[str, int]:
    """Return the words of `added_tokens.json` beside the weights, with their numbers; none where nobody can read it."""
    folder = adapter.path
    if folder is None or not folder.is_dir() or not (folder / ADDED).is_file():
        return {}
    try:
        held = parsed_config(raw_config(folder / ADDED), ADDED)
    except AdapterFileError:
        return {}
    return {str(word): number for word, number in held.items() if type(number) is int}


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
