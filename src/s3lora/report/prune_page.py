"""What a pruning did, as a page made of its record alone: without the scan there is no map and no table of all."""

from __future__ import annotations

from collections.abc import Iterable

from s3lora.report.html import render
from s3lora.report.values import count, percent
from s3lora.rewrite.provenance import Provenance

#: Modules in the table; `s3lora.json` has all.
LISTED = 1000


def prune_page(record: Provenance) -> str:
    """Return the page of a pruning, out of its `s3lora.json`."""
    return render(
        "prune.html.jinja",
        styles=("scan.css.jinja",),
        record=record,
        tool=record.tool,
        tiles=list(_tiles(record)),
        modules=record.modules[:LISTED],
        total=len(record.modules),
        made=list(_made(record)),
    )


def _tiles(record: Provenance) -> Iterable[tuple[str, str, str]]:
    share = record.plan.share
    yield "modules", count(share.modules), f"of {count(share.modules_total)}"
    yield "LoRA parameters", percent(share.parameters / max(share.parameters_total, 1)), ""
    yield "LoRA FLOPs", percent(share.compute), ""
    yield "Frobenius energy", percent(share.frobenius_energy), ""


def _made(record: Provenance) -> Iterable[tuple[str, str]]:
    yield "adapter", f"{record.source.name or 'in memory'} ({record.source.format})"
    if record.source.sha256:
        yield "SHA-256 of the weights", record.source.sha256
    yield "method", record.configuration.method
    plan = record.plan
    yield "rule", "; ".join(filter(None, (f"{plan.rule} of {plan.candidates} by {plan.index}", plan.only)))
    yield "mode", f"{record.mode}, for {record.loader}"
    for file in record.written:
        yield f"SHA-256 of {file.name}", file.sha256
