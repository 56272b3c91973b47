"""A conversion, to read."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from s3lora.errors import printable
from s3lora.rewrite.conversion_record import ConversionRecord


def convert_text(record: ConversionRecord, out: str) -> Text:
    """Return what was written, and how near it is to what was read."""
    return Text("\n".join(_lines(record, out)))


def _lines(record: ConversionRecord, out: str) -> Iterator[str]:
    source = record.source
    many = "1 module" if record.modules == 1 else f"{record.modules:,} modules"
    to = record.to if record.loader is None else f"{record.to} for {record.loader}"
    yield f"{printable(source.name, 120)} ({source.format}, {many}) → {to}: {printable(out, 240)}"
    size = sum(file.bytes for file in record.written)
    yield f"  written: {', '.join(printable(file.name, 120) for file in record.written)}, {size:,} bytes"
    if record.dropped:
        yield f"  left out: {len(record.dropped):,} other tensors ({', '.join(record.drop)})"
    if record.differs is None:
        yield "  largest relative difference of an update: 0, every one is equal"
    else:
        yield f"  largest relative difference of an update: {record.difference:.2g} ({printable(record.differs, 120)})"
    for warning in record.warnings:
        yield f"  note: {warning}"
