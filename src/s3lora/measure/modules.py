"""What results with one record a module have in common: to be looked into at a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec


class _Record(Protocol):
    @property
    def path(self) -> str: ...


RecordT = TypeVar("RecordT", bound=_Record)


class ByModule(Generic[RecordT]):
    """Records by the paths of their modules: `result[path]`, `len(result)`, and in order `for record in result`."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def modules(self) -> tuple[RecordT, ...]:
            """Return the records, in the order of the model."""

    def __getitem__(self, path: str) -> RecordT:
        """Return the record of the module at `path`; raise KeyError if there is none."""
        for module in self.modules:
            if module.path == path:
                return module
        raise KeyError(path)

    def __iter__(self) -> Iterator[RecordT]:
        """Go through the records in the order of the model."""
        return iter(self.modules)

    def __len__(self) -> int:
        """Return the number of modules."""
        return len(self.modules)

    def to_dict(self) -> dict[str, Any]:
        """Return what the JSON document holds, as dictionaries, lists, text and numbers."""
        made: dict[str, Any] = msgspec.to_builtins(self)
        return made
