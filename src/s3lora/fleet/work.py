"""The work itself, the same for every engine: a batch of URIs → rows, one result or one error for each.

What a batch returns is Parquet already, so that the driver of a large fleet has nothing to do but to put files in
their places.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from threadpoolctl import threadpool_limits

from s3lora.adapter.inventory.inventory import inventory_of, read_others
from s3lora.adapter.model import Adapter
from s3lora.adapter.open import open_one
from s3lora.errors import CostError, S3LoRAError, printable
from s3lora.fleet.results.content import content_of
from s3lora.fleet.results.inside import inside
from s3lora.fleet.results.outcome import MeasuredBatch, Settings, Trace, to_parquet, trace_of
from s3lora.fleet.results.rows import Row, adapter_row, error_row, kind_of, measured, module_rows, stored_uri, to_table
from s3lora.fleet.results.schema import TABLES, Table
from s3lora.fleet.signature import signature
from s3lora.fleet.sources.remote import Local, UnreachableError, localised
from s3lora.measure.cost import MAX_COST
from s3lora.measure.scan import affordable, scan_modules, warnings_of
from s3lora.needs import MissingPackageError, need

#: Longest reason, in characters.
LONGEST = 600
#: Rows that are kept as they are before they are packed: a thousand weigh some megabytes.
LOOSE = 1000
#: Bytes of one digest.
DIGEST = 32


@dataclass(frozen=True, slots=True)
class Item:
    """One input, and what is known of it.

    `fingerprint` is that of the row which an earlier run left: where the files still have it, nothing is read. `fresh`
    asks for a measurement even where the content is known. `kind` and `reason` are those of an error that is known
    before any file is opened.
    """

    uri: str
    fingerprint: str | None = None
    fresh: bool = False
    kind: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs that are measured together and end in one part; `part` is the number of that part."""

    part: int
    items: tuple[Item, ...]


def is_known(content: str, known: bytes) -> bool:
    """Return whether a digest, in hexadecimal, is in a block of sorted ones: a set would need thrice the memory."""
    raw = bytes.fromhex(content)
    at = bisect_left(range(len(known) // DIGEST), raw, key=lambda i: known[i * DIGEST : (i + 1) * DIGEST])
    return known[at * DIGEST : (at + 1) * DIGEST] == raw


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker is given once: the settings, and the contents that need not be measured again.

    `known` are the sorted SHA-256 of these contents, 32 bytes each; `follow` are hosts that web servers may redirect
    to. An adapter that would take more operations than `max_cost` is an error.
    """

    settings: Settings
    known: bytes = b""
    follow: tuple[str, ...] = ()
    max_cost: float = MAX_COST


@dataclass(slots=True)
class _Rows:
    """The rows of a batch as they come, a few of them as they are and the others in Arrow's narrow columns."""

    loose: dict[Table, list[Row]] = field(default_factory=lambda: {table: [] for table in TABLES})
    packed: dict[Table, list[Any]] = field(default_factory=lambda: {table: [] for table in TABLES})
    traces: list[Trace] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    copies: list[Row] = field(default_factory=list)

    def add(self, table: Table, rows: Sequence[Row]) -> None:
        self.loose[table].extend(rows)
        if len(self.loose[table]) >= LOOSE:
            self.pack(table)

    def pack(self, table: Table) -> None:
        self.packed[table].append(to_table(table, self.loose[table]))
        self.loose[table].clear()

    def measured(self) -> MeasuredBatch:
        """Return the batch as Parquet."""
        for table in TABLES:
            self.pack(table)
        whole = need("pyarrow", "fleet").concat_tables
        tables: dict[Table, bytes] = {table: to_parquet(whole(parts)) for table, parts in self.packed.items()}
        return MeasuredBatch(tables, tuple(self.traces), tuple(self.unchanged), tuple(self.copies))


def measure(batch: Batch, work: Work) -> MeasuredBatch:
    """Measure every adapter of a batch. Nothing is raised for an adapter: what goes wrong becomes its error row."""
    rows = _Rows()
    with threadpool_limits(limits=1, user_api="blas"):
        for item in batch.items:
            _one(item, work, rows)
    return rows.measured()


def failed(batch: Batch, kind: str, reason: str) -> MeasuredBatch:
    """Return an error for every input of a batch that could not be measured for a reason outside of it."""
    rows = _Rows()
    for item in batch.items:
        _fail(rows, item.uri, kind, reason, None, transient=True)
    return rows.measured()


def _one(item: Item, work: Work, rows: _Rows) -> None:
    if item.kind is not None:
        _fail(rows, item.uri, item.kind, item.reason or "", None, transient=False)
        return
    fingerprint: str | None = None
    try:
        named = work.settings.adapter
        with localised(item.uri, unless=item.fingerprint, follow=work.follow, adapter=named) as local:
            fingerprint = local.fingerprint
            if local.path is None:
                rows.unchanged.append(stored_uri(item.uri))
                return
            with open_one(local.path, named) as adapter:
                _measure(stored_uri(item.uri), adapter, local, replace(work, known=b"") if item.fresh else work, rows)
    except Exception as error:
        _fail(rows, item.uri, kind_of(error), _sentence(error), fingerprint, transient=_may_pass(error))


def _measure(uri: str, adapter: Adapter, local: Local, work: Work, rows: _Rows) -> None:
    settings = work.settings
    # The signature decomposes both factors of a module once more.
    affordable(adapter, [settings.scan] * (2 if settings.signature else 1), work.max_cost)
    content = content_of(adapter)
    row = adapter_row(uri, adapter, content, local.fingerprint, local.size)
    if is_known(content.measured, work.known):
        # What is in it besides its modules, and beside it, is its own.
        row.update(inside(inventory_of(adapter, read_others(adapter)), local.beside, partial=local.partial))
        rows.copies.append(row)
        return
    (records,), _, inventory, _ = scan_modules(adapter, [settings.scan], nonfinite=True, hashed=False)
    numbers = signature(adapter) if settings.signature else {}
    adapter.check_unchanged()  # since it was scanned
    row.update(inside(inventory, local.beside, partial=local.partial))
    row.update(measured(records, (*adapter.warnings, *warnings_of(records, settings.scan)), numbers))
    rows.add("adapters", [row])
    rows.add("modules", module_rows(uri, records))
    rows.traces.append(trace_of(row))


def _fail(rows: _Rows, uri: str, kind: str, reason: str, fingerprint: str | None, *, transient: bool) -> None:
    row = error_row(stored_uri(uri), kind, reason, transient=transient, fingerprint=fingerprint)
    rows.add("errors", [row])
    rows.traces.append(Trace(row["uri"], fingerprint, kind=kind, transient=transient))


def _sentence(error: BaseException) -> str:
    """Return what is wrong without the uri, which has a column of its own."""
    if isinstance(error, MissingPackageError):
        return printable(error.problem, LONGEST)  # what to do names the checkout, which no result may
    if isinstance(error, S3LoRAError):
        return printable(error.for_command(), LONGEST)  # the same, whoever started the work
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror, LONGEST)
    return printable(f"{type(error).__name__}: {error}", LONGEST)


def _may_pass(error: BaseException) -> bool:
    """Return whether another try may go better: the network, the disk or the memory failed, or more may be allowed."""
    return isinstance(error, UnreachableError | OSError | MemoryError | CostError)
