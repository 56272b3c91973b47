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
#: Pixels above the map and below it, and the least width, which holds the scale.
HEAD, FOOT, LEAST = 34.0, 38.0, 420.0


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
    return svg_file(
        "heatmap.svg.jinja",
        f"{tail(document.source.name or 'adapter', TITLE)}: {series.label} by layer and projection",
        (max(drawn.width, LEAST), drawn.height + HEAD + FOOT),
        map=drawn,
        ends=scale_ends(series),
        chosen=f"{len(view.chosen)} of {len(document.modules)} modules",
    )


def heat_map_png(document: ScanDocument, ranked: Sequence[Ranked]) -> bytes:
    """Return the same map as a PNG.

    Raises MissingPackageError without resvg-py, and NothingToAuditError as `heat_map_svg`.
    """
    return png_of(heat_map_svg(document, ranked))
