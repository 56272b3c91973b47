"""What results with one record a module have in common: to be looked into at a prompt."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec

from s3lora.arguments import check_types
from s3lora.errors import NoSuchModuleError, UsageError, printable
from s3lora.files import read_whole
from s3lora.needs import need
from s3lora.views import view


class _Record(Protocol):
    @property
    def path(self) -> str: ...


RecordT = TypeVar("RecordT", bound=_Record)
#: Paths among which the nearest is looked for; comparing all of a large model takes seconds.
_COMPARED = 5_000
#: Bytes of a document; 36,864 modules take some 50 million.
LARGEST = 256 * 1024 * 1024
SelfT = TypeVar("SelfT", bound="ByModule[Any]")


class ByModule(Generic[RecordT]):
    """Records by the paths of their modules: `result[path]`, `path in result`, `len(result)`, `for record in result`.

    The records come in the order of the model.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def modules(self) -> tuple[RecordT, ...]:
            """Return the records, in the order of the model."""

    def __getitem__(self, path: str) -> RecordT:
        """Return the record of the module at `path`.

        Raises NoSuchModuleError, which is a KeyError too and names the nearest path, if there is none.
        """
        for module in self.modules:
            if module.path == path:
                return module
        if not isinstance(path, str):
            what = f"a module is named by its path, not by {printable(repr(path), 40)}"
            raise UsageError(what, fix="give the path, or count in `.modules`")
        paths = [module.path for module in self.modules[:_COMPARED]]
        near = difflib.get_close_matches(path, paths, 1, 0.5) or [one for one in paths if path and path in one]
        fix = f"did you mean {printable(near[0])}?" if near else "`.modules` has them all"
        raise NoSuchModuleError(f"there is no module {printable(path)!r}", fix=fix)

    def module(self, path: str) -> RecordT:
        """Return the record of the module at `path`, as `result[path]` does."""
        return self[path]

    def __contains__(self, module: object) -> bool:
        """Return whether there is a module of this path, or this record."""
        return any(module in (one.path, one) for one in self.modules)

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

    def to_json(self) -> str:
        """Return the JSON that the command prints: equal results give equal text."""
        made: str = view("json", self)
        return made

    @classmethod
    def from_json(cls: type[SelfT], source: str | bytes | os.PathLike[str]) -> SelfT:
        """Read what `to_json`, or the command with `--format json`, wrote.

        Parameters:
            source: the document itself, which begins with a brace, or the path of a file that holds it.

        Raises UsageError where it cannot be read, is larger than 256 MB, is something else, or is of another version.
        """
        check_types(cls.from_json, {"source": source})
        file, raw = _document(source)
        what = f"is no {cls.__name__.lower()} as JSON"
        try:
            found = msgspec.json.decode(raw, type=_DocumentVersion)
            known = cls.__dataclass_fields__["schema_version"].default  # type: ignore[attr-defined]
            if found.schema_version != known:
                problem = f"is of schema version {found.schema_version}, and this s3lora knows {known}"
                raise UsageError(problem, file=file, fix="update s3lora, or make it again")
            made: SelfT = msgspec.json.decode(raw, type=cls)
            return made
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            several = raw.lstrip()[:1] == b"["
            fix = "it holds several: give one of them" if several else f"give what {cls.__name__}.to_json wrote"
            raise UsageError(f"{what}: {printable(error)}", file=file, fix=fix) from None

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame with the columns and rows of the CSV; raise MissingPackageError without pandas."""
        return need("pandas", None).DataFrame(view("table", self))

    def to_polars(self) -> Any:
        """Return a polars.DataFrame with the columns and rows of the CSV; raise MissingPackageError without polars."""
        return need("polars", None).DataFrame(view("table", self), strict=False)


class _DocumentVersion(msgspec.Struct):
    schema_version: int


def _document(source: str | bytes | os.PathLike[str]) -> tuple[str, bytes]:
    """Return the bytes of a document, and what an error calls it."""
    if isinstance(source, str) and source.lstrip()[:1] in ("{", "["):
        source = source.encode(errors="replace")
    if not isinstance(source, bytes):
        return printable(source, 240), read_whole(Path(source), LARGEST)
    if len(source) > LARGEST:
        raise UsageError(f"the document is larger than {LARGEST:,} bytes")
    return "the document", source
