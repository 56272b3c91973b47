"""The heat map of a scan alone, as SVG or PNG: equal scans give equal bytes."""

from __future__ import annotations

from collections.abc import Sequence

from s3lora.choose.rankings import Ranked
from s3lora.errors import NothingToAuditError
from s3lora.report.documents import ScanDocument
from s3lora.report.names import tail
from s3lora.report.picture import png_of, svg_file
from s3lora.report.scan_charts import heat_map, scale_ends
from s3lora.report.scan_view import view_of

TITLE = 60
#: Pixels above the map and below it, of the scale, and of a letter of the title and of what stands beside the scale.
HEAD, FOOT, SCALE, LETTERS = 34.0, 38.0, 300.0, (9.0, 7.2)


def heat_map_svg(document: ScanDocument, ranked: Sequence[Ranked]) -> str:
    """Return the layer × projection map of the plan's index as an SVG file.

    Raises NothingToAuditError where fewer than two modules have a layer and a value.
    """
    view = view_of(document, ranked)
    series = view.shown
    drawn = None if series is None else heat_map(view, series)
    if series is None or drawn is None:
        raise NothingToAuditError(
            "there is no map of fewer than two modules with a layer and an index",
            file=document.source.name,
            fix="use --format html or text",
        )
    title = f"{tail(document.source.name or 'adapter', TITLE)}: {series.label} by layer and projection"
    chosen = f"× chosen: {len(view.chosen)} of {len(document.modules)} modules" if drawn.crosses else ""
    least = max(20 + LETTERS[0] * len(title), SCALE + LETTERS[1] * len(chosen))
    size = max(drawn.width, least), drawn.height + HEAD + FOOT
    return svg_file("heatmap.svg.jinja", title, size, map=drawn, ends=scale_ends(series), chosen=chosen)


def heat_map_png(document: ScanDocument, ranked: Sequence[Ranked]) -> bytes:
    """Return the same map as a PNG.

    Raises MissingPackageError without resvg-py, and NothingToAuditError as `heat_map_svg`.
    """
    return png_of(heat_map_svg(document, ranked))
