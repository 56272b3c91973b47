"""Drawings as files of their own: SVG with its style, and the same as PNG. Equal drawings give equal bytes."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

from s3lora.needs import need
from s3lora.report.colours import LIGHT, in_light
from s3lora.report.html import environment_of_pages, style_sheet

#: Pixels of a PNG for one of the drawing.
ZOOM = 2.0
FONT = "DejaVu Sans"


def need_pictures() -> Any:
    """Return the library that makes a PNG; raise MissingPackageError where it is not installed."""
    return need("resvg_py", "plots")


def svg_file(template: str, title: str, size: tuple[float, float], **values: Any) -> str:
    """Return a drawing of `size` (width, height) pixels by a template that extends `file.svg.jinja`."""
    text: str = (
        environment_of_pages()
        .get_template(template)
        .render(
            title=title,
            width=size[0],
            height=size[1],
            style=in_light(style_sheet("drawing.css.jinja")),
            ink=LIGHT["ink"],
            paper=LIGHT["paper"],
            **values,
        )
    )
    return text


def png_of(svg: str) -> bytes:
    """Return an SVG file as PNG, its words in a font of this package; a sign that the font lacks becomes a box.

    Raises MissingPackageError without resvg-py.
    """
    with as_file(files("s3lora.data") / "fonts" / "DejaVuSans.ttf") as font:
        made: bytes = need_pictures().svg_to_bytes(
            svg_string=svg,
            zoom=ZOOM,
            skip_system_fonts=True,
            font_files=[str(font)],
            font_family=FONT,
            sans_serif_family=FONT,
        )
    return bytes(made)
