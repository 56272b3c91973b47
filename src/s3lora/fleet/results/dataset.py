"""The results of a fleet on disk: parts that appear whole, and what is needed to go on where a run ended.

    DIR/fleet.json                settings and counts
    DIR/parts/000123/adapters.parquet, modules.parquet, errors.parquet
    DIR/.work/                    parts that are being written; emptied when a run begins
    DIR/.lock                     held while a run writes

A part takes its place by one rename and is replaced by one exchange, so that at any moment every input that is done
has its rows in exactly one part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from s3lora.errors import AdapterFileError, OutputError, UsageError, printable
from s3lora.files import check_regular, locked, new_file, reason, replacing, write_whole
from s3lora.fleet.bounded import refuse_large
from s3lora.fleet.results.outcome import MeasuredBatch, Settings, Trace, to_parquet, trace_of
from s3lora.fleet.results.schema import SCHEMA_VERSION, TABLES, VERSION_KEY, Table, arrow_schema
from s3lora.fleet.results.summary import SUMMARY, Summary, read_summary
from s3lora.needs import need
from s3lora.partial import collect, is_left, remove_tree
from s3lora.wording import worded

PARTS = "parts"
WORKSHOP = ".work"
LOCK = ".lock"
_CONTENT = re.compile(r"[0-9a-f]{64}")
#: Columns of each table that make a trace.
_TRACED: dict[Table, list[str]] = {
    "adapters": ["uri", "fingerprint", "content", "tensors", "modules"],
    "errors": ["uri", "fingerprint", "kind", "transient"],
}


def part_files(folder: Path, table: Table) -> list[str]:
    """Return the files of one table, in order; raise AdapterFileError if `folder` holds no dataset."""
    files = sorted(str(path) for path in (folder / PARTS).glob(f"[0-9]*/{table}.parquet"))
    if not files:
        fix = "make one with: s3lora fleet scan INPUT --out DIR"
        raise AdapterFileError("holds no results of a fleet", file=folder, fix=fix)
    return files


def read_table(folder: Path, table: Table, columns: Sequence[str] | None = None) -> Any:
    """Return one table of a dataset as a `pyarrow.Table`; raise AdapterFileError if it is none, or is newer than we."""
    return need("pyarrow", "fleet").concat_tables(list(read_parts(folder, table, columns)), promote_options="default")


def read_parts(folder: Path, table: Table, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Yield one table of a dataset part by part, so that memory does not grow with it; errors as `read_table`."""
    for file in part_files(folder, table):
        yield _read(Path(file), columns)


def _read(file: Path, columns: Sequence[str] | None = None) -> Any:
    pq, pa = need("pyarrow.parquet", "fleet"), need("pyarrow", "fleet")
    try:
        check_regular(file)
        refuse_large(file, file, columns)
        with pq.ParquetFile(file) as opened:
            version = int((opened.schema_arrow.metadata or {}).get(VERSION_KEY, b"0"))
            if not 0 < version <= SCHEMA_VERSION:
                what = f"is of schema version {version}, and this s3lora knows {SCHEMA_VERSION}"
                raise AdapterFileError(what, file=file, fix="update s3lora")
            return opened.read(columns=None if columns is None else list(columns))
    except (OSError, ValueError, pa.ArrowException) as error:
        fix = f"remove {printable(file.parent)} and scan again: what was in it is then measured anew"
        raise AdapterFileError(f"cannot be read: {reason(error)}", file=file, fix=fix) from None


class Dataset:
    """A dataset that one run writes to; a context manager that holds its lock.

    `traces` maps every uri that is done to what is known of it, and `parts` to the number of its part.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        """Open or begin the dataset in `folder`.

        Raises OutputError if the folder holds something else, cannot be written, or another run writes to it, and
        UsageError if it holds results of other settings.
        """
        self.folder = folder
        self.settings = settings
        self.traces: dict[str, Trace] = {}
        self.parts: dict[str, int] = {}
        self._sources: dict[str, str] = {}  # content → a uri whose rows hold it
        self._lock: BinaryIO | None = None
        self._begun = False
        self._unsettled: int | None = None
        try:
            self._open()
        except OSError as error:
            self.close()
            raise OutputError(f"cannot be written ({reason(error)})", file=folder) from None
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._check()
        (self.folder / PARTS).mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        summary = self._check()  # again: another run may have begun and ended before the lock was ours
        self._begun = summary is None
        if summary is None:
            self.record(Summary(settings=self.settings))
        collect(self.folder / WORKSHOP, self.folder / PARTS)
        remove_tree(self.folder / WORKSHOP)
        (self.folder / WORKSHOP).mkdir()
        for number in self.numbers():
            for trace in self._traced(number):
                self._note(trace, number)
        self._next = max(self.numbers(), default=-1) + 1

    def _check(self) -> Summary | None:
        """Return the summary that is there; raise unless the folder is new, empty, or a dataset of these settings."""
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError("is not a folder", file=self.folder, fix=worded("give {folder} a new folder"))
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return None
        parts = self.folder / PARTS
        inner = [] if parts.is_symlink() or not parts.is_dir() else list(parts.iterdir())
        for path in (*(self.folder / name for name in (PARTS, WORKSHOP, SUMMARY, LOCK)), *inner):
            if path.is_symlink():  # what is replaced or removed there would be elsewhere
                raise OutputError("is a link", file=path, fix=worded("give {folder} a new folder"))
        if not (self.folder / SUMMARY).is_file():
            names = {path.name for path in self.folder.iterdir() if not is_left(path.name)}
            if names <= {PARTS, WORKSHOP, LOCK}:
                return None  # a run that ended before its first part
            raise OutputError("is not empty and holds no results of a fleet", file=self.folder, fix="give a new folder")
        summary = read_summary(self.folder)
        if summary.settings != self.settings:
            other = _difference(summary.settings, self.settings)
            raise UsageError(
                f"{printable(self.folder)} holds results of other settings ({other})",
                fix=worded("give {folder} a new folder, or the same options"),
            )
        return summary

    def numbers(self) -> list[int]:
        """Return the numbers of the parts that are in place, in order."""
        return sorted(int(path.name) for path in (self.folder / PARTS).iterdir() if path.name.isdecimal())

    def new_number(self) -> int:
        """Return the next number that no part has."""
        self._next += 1
        return self._next - 1

    def path(self, number: int) -> Path:
        """Return the folder of a part."""
        return self.folder / PARTS / f"{number:06d}"

    def commit(self, number: int, result: MeasuredBatch) -> tuple[str, ...]:
        """Put the rows of a batch in place, and out of the part `number` what they replace.

        An error that may pass does not replace a measurement: see `keeps`. Returns the uris whose content is in the
        dataset no more, and which have to be measured after all. Raises OutputError where the system refuses, as it
        does when the disk is full; the dataset is then as it was.
        """
        lost = tuple(row["uri"] for row in result.copies if row["content"] not in self._sources)
        result = dataclasses.replace(result, copies=tuple(row for row in result.copies if row["uri"] not in lost))
        traces = [trace for trace in result.traces if not self.keeps(trace)]
        tables: Mapping[Table, bytes] = result.tables
        old = self.path(number)
        if result.copies or (old.exists() and traces):
            tables, copied = self._merged(number, result)
            traces += copied
        if not traces:
            return lost
        self._unsettled = number
        with replacing(old, self.folder / WORKSHOP) as partial:
            for table in TABLES:
                _write(partial / f"{table}.parquet", tables[table])
        for trace in traces:
            self._note(trace, number)
        self._unsettled = None
        return lost

    def keeps(self, trace: Trace) -> bool:
        """Return whether what is there stays: an adapter that cannot be reached now has not changed for all we know."""
        there = self.traces.get(trace.uri)
        return trace.transient and there is not None and there.kind is None

    def settle(self) -> None:
        """Look again at the part that an interruption met between its rename and its traces."""
        number, self._unsettled = self._unsettled, None
        if number is not None:
            for uri in [uri for uri, part in self.parts.items() if part == number]:
                self._forget(uri)
            if self.path(number).exists():
                for trace in self._traced(number):
                    self._note(trace, number)

    def remove(self, uris: Iterable[str]) -> None:
        """Take the rows of these inputs out."""
        gone = set(uris)
        for number in sorted({self.parts[uri] for uri in gone}):
            here = {uri for uri in gone if self.parts[uri] == number}
            with replacing(self.path(number), self.folder / WORKSHOP) as partial:
                for table in TABLES:
                    kept = _without(_read(self.path(number) / f"{table}.parquet"), here)
                    _write(partial / f"{table}.parquet", to_parquet(kept))
            for uri in here:
                self._forget(uri)

    def record(self, summary: Summary) -> None:
        """Write `fleet.json`, whole or not at all."""
        write_whole(self.folder / SUMMARY, summary.encode())

    def abandon(self) -> None:
        """Take back a dataset that this run began and that holds nothing."""
        if self._begun and not self.numbers():
            for path in (self.folder / PARTS, self.folder / WORKSHOP):
                remove_tree(path)
            for name in (SUMMARY, LOCK):
                (self.folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def known(self) -> bytes:
        """Return the sorted digests of all contents that are measured, as `Work.known` has them."""
        return b"".join(sorted(map(bytes.fromhex, self._sources)))

    def close(self) -> None:
        """Clean the workshop and let the lock go."""
        if self._lock is not None:
            remove_tree(self.folder / WORKSHOP)
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Dataset:
        """Return the dataset itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _note(self, trace: Trace, number: int) -> None:
        self._forget(trace.uri)
        self.traces[trace.uri] = trace
        self.parts[trace.uri] = number
        if trace.content is not None:
            self._sources.setdefault(trace.content, trace.uri)

    def _forget(self, uri: str) -> None:
        trace = self.traces.pop(uri, None)
        self.parts.pop(uri, None)
        if trace is not None and trace.content is not None and self._sources.get(trace.content) == uri:
            del self._sources[trace.content]

    def _traced(self, number: int) -> Iterator[Trace]:
        for table, columns in _TRACED.items():
            file = self.path(number) / f"{table}.parquet"
            for row in _read(file, columns).to_pylist():
                if row.keys() != set(columns) or not _CONTENT.fullmatch(str(row.get("content") or "0" * 64)):
                    raise AdapterFileError("is no table of a dataset", file=file, fix="scan into another folder")
                yield Trace(**row)

    def _merged(self, number: int, result: MeasuredBatch) -> tuple[dict[Table, bytes], list[Trace]]:
        """Return what the part holds when the new rows have taken the place of older ones, and traces of the copies."""
        pa, pq = need("pyarrow", "fleet"), need("pyarrow.parquet", "fleet")
        new = {table: [pq.read_table(pa.BufferReader(raw))] for table, raw in result.tables.items()}
        kept = {trace.uri for trace in result.traces if self.keeps(trace)}
        new["errors"] = [_without(new["errors"][0], kept)]
        copied = [self._copy(row) for row in result.copies]
        for adapter, modules in copied:
            new["adapters"].append(adapter)
            new["modules"].append(modules)
        traces = [trace_of(adapter.to_pylist()[0]) for adapter, _ in copied]
        if self.path(number).exists():
            fresh = {trace.uri for trace in (*result.traces, *traces)} - kept
            for table in TABLES:
                new[table].insert(0, _without(_read(self.path(number) / f"{table}.parquet"), fresh))
        joined = {table: pa.concat_tables(parts, promote_options="default") for table, parts in new.items()}
        return {table: to_parquet(whole) for table, whole in joined.items()}, traces

    def _copy(self, row: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return (adapters, modules) for an adapter whose content was measured under another uri."""
        pa = need("pyarrow", "fleet")
        source = self._sources[row["content"]]
        part = self.path(self.parts[source])
        adapter, modules = (_only(_read(part / f"{table}.parquet"), source) for table in ("adapters", "modules"))
        merged = {**adapter.to_pylist()[0], **row}
        at = modules.schema.get_field_index("uri")
        uris = pa.array([row["uri"]] * modules.num_rows, pa.string())
        return (
            pa.Table.from_pylist([merged], schema=arrow_schema("adapters")),  # that of the source may be older
            modules.set_column(at, modules.schema.field(at), uris),
        )


def _locked(folder: Path) -> BinaryIO:
    try:
        return locked(folder / LOCK)
    except BlockingIOError:
        raise OutputError("is being written by another run", file=folder, fix="wait for its end, or stop it") from None


def _write(path: Path, data: bytes) -> None:
    with new_file(path) as file:
        file.write(data)


def _without(table: Any, uris: set[str]) -> Any:
    pa, pc = need("pyarrow", "fleet"), need("pyarrow.compute", "fleet")
    return table.filter(pc.invert(pc.is_in(table["uri"], pa.array(sorted(uris), pa.string()))))


def _only(table: Any, uri: str) -> Any:
    return table.filter(need("pyarrow.compute", "fleet").equal(table["uri"], uri))


def _difference(there: Settings, asked: Settings) -> str:
    """Name the first setting that differs, and what it is in the dataset."""
    for one, other in ((there.scan, asked.scan), (there, asked)):
        for name in one.__dataclass_fields__:
            if getattr(one, name) != getattr(other, name) and name != "scan":
                return f"{name} {printable(getattr(one, name), 40)}"
    return "of another version"


def first_errors(folder: Path, most: int = 5) -> list[tuple[str, str]]:
    """Return (uri, reason) of the first errors of a dataset, in order of its parts."""
    errors: list[tuple[str, str]] = []
    for file in part_files(folder, "errors"):
        if len(errors) < most:
            rows = _read(Path(file), ("uri", "reason")).to_pylist()
            errors += [(row["uri"], row["reason"]) for row in rows[: most - len(errors)]]
    return errors
