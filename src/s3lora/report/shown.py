"""Results as they show themselves in Python: at a prompt, in a notebook, as a table and as JSON."""

from __future__ import annotations

import base64
import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from s3lora.arguments import checked
from s3lora.choose.ranking import usual_index
from s3lora.choose.rankings import survey
from s3lora.choose.select import Plan, choose_none
from s3lora.choose.ties import sharpest
from s3lora.errors import NothingToAuditError, SelectionError, UsageError, printable
from s3lora.measure.against_published import AgainstPublished
from s3lora.measure.comparison import Comparison
from s3lora.measure.composition import Composition
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.report.compose_csv import compose_rows
from s3lora.report.documents import ScanDocument, compare_rows, scan_document, scan_rows, to_json
from s3lora.report.heatmap_file import heat_map_svg
from s3lora.report.html import environment_of_pages
from s3lora.report.names import tail
from s3lora.report.published_view import published_lines
from s3lora.spectrum.indices import INDICES
from s3lora.views import Drawing

#: Columns of a name, and names of one line.
NAME, NAMED = 60, 8
#: Notes that a notebook shows; `.warnings` has all.
NOTES = 5


def text_of(scan: Scan) -> str:
    """Return a scan in five lines: what it is of, what it holds, its index, the sharpest module, what to know."""
    notes = f"{len(scan.warnings)} to read in .warnings" if scan.warnings else "none"
    return "\n ".join((f"<Scan of {_name(scan)}: {_measured(scan)}", *_lines(scan), f"warnings: {notes}>"))


def published_of(against: AgainstPublished) -> str:
    """Return where an adapter stands among published ones, a sentence a line."""
    compared = f"{len(against)} of {len(against) + sum(against.left_out.values())} modules with an update compared"
    return "\n ".join((f"<AgainstPublished: {compared}", *published_lines(against))) + ">"


def html_of(scan: Scan) -> str:
    """Return the same and the map as HTML that stands alone: nothing is fetched, and no name becomes markup."""
    try:
        drawn = base64.b64encode(map_of(scan).svg.encode()).decode()
    except NothingToAuditError:
        drawn = None
    made: str = (
        environment_of_pages()
        .get_template("notebook.html.jinja")
        .render(
            name=_name(scan),
            measured=_measured(scan),
            lines=_lines(scan),
            notes=[printable(note, 400) for note in scan.warnings[:NOTES]],
            more=max(0, len(scan.warnings) - NOTES),
            map=drawn,
        )
    )
    return made


@checked
def json_of(result: object, plan: Plan | None = None) -> str:
    """Return the document that the command prints."""
    if isinstance(result, Scan) and not isinstance(result, ScanDocument):
        result = scan_document(result, plan)
    return to_json(result)


def table_of(result: object) -> dict[str, list[Any]]:
    """Return the columns of the CSV by their names, with numbers as numbers, None for nothing, and σ̃ as lists."""
    if isinstance(result, Scan):
        head, *rows = scan_rows([result if isinstance(result, ScanDocument) else scan_document(result, None)])
    elif isinstance(result, Comparison):
        head, *rows = compare_rows(result)
    elif isinstance(result, Composition):
        head, *rows = compose_rows(result)
    else:
        raise UsageError(f"there is no table of a {type(result).__name__}")
    cells = [[list(cell) if isinstance(cell, tuple) else cell for cell in row] for row in rows]
    return {str(name): [row[i] for row in cells] for i, name in enumerate(head)}


@checked
def map_of(scan: Scan, index: str | None = None, plan: Plan | None = None) -> Drawing:
    """Return the layer × projection map of an index; what a plan chose is crossed.

    Raises UsageError for no such index, SelectionError where the scan does not have it, NothingToAuditError where fewer
    than two modules have a layer and a value.
    """
    wanted = (index or (plan.index if plan is not None else usual_index(scan.modules))).replace("-", "_")
    if wanted not in INDICES:
        raise UsageError(f"no index {printable(wanted, 40)!r} to draw", fix=f"choose one of {', '.join(INDICES)}")
    if all(wanted not in module.indices for module in scan.modules):
        raise SelectionError(f"the scan has no {wanted}", fix=f"scan with {wanted} switched on, it is costly")
    shown = dataclasses.replace(plan or choose_none(scan), index=wanted)
    svg = heat_map_svg(scan_document(scan, shown), survey([scan], index=wanted))
    return Drawing(svg, f"{wanted} of {_name(scan)} by layer and projection")


def _name(scan: Scan) -> str:
    return printable(scan.source.name, NAME) or "a model in memory"


def _measured(scan: Scan) -> str:
    return f"{len(scan)} module{'s' * (len(scan) != 1)} by {scan.configuration.method}"


def _lines(scan: Scan) -> tuple[str, str, str]:
    """Return what it holds, how its index lies, and the sharpest module."""
    modules = scan.modules
    index = usual_index(modules)
    values = [value for module in modules if (value := module.indices.get(index)) is not None]
    if not values:
        return _held(modules), f"{index} is defined for no module", "sharpest: none"
    spread = f"{index} from {min(values):.4g} to {max(values):.4g}, median {statistics.median(values):.4g}"
    first = sharpest(modules, index)[0]
    return _held(modules), spread, f"sharpest: {tail(first.path, NAME)}, {first.indices[index]:.4g}"


def _held(modules: Sequence[ModuleScan]) -> str:
    ranks = _range([module.rank for module in modules])
    layers = _range([module.layer for module in modules if module.layer is not None])
    if all(module.dense for module in modules):
        what = f"updates of full rank, {ranks} components of each"
    else:
        what = f"{'/'.join(sorted({module.form for module in modules}))} of rank {ranks}"
    names = list(dict.fromkeys(module.projection for module in modules))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    told = ", ".join(printable(name, 24) for name in names[:NAMED])
    return f"{what}{f', layers {layers}' if layers else ''}: {told}{more}"


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return ""
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least} to {most}"
