"""What a result shows of itself, in words, as a table or as a drawing: the one door from below to the report.

`report` stands above the results, so nothing here imports it before somebody asks to see something.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3lora.errors import UsageError
from s3lora.files import check_writable, write_whole

#: What can be asked for → the module and the function that has it.
VIEWS = {
    "text": ("s3lora.report.shown", "text_of"),
    "published": ("s3lora.report.shown", "published_of"),
    "html": ("s3lora.report.shown", "html_of"),
    "json": ("s3lora.report.shown", "json_of"),
    "table": ("s3lora.report.shown", "table_of"),
    "map": ("s3lora.report.shown", "map_of"),
    "png": ("s3lora.report.picture", "png_of"),
}


def view(name: str, *given: Any) -> Any:
    """Return what the report makes of a result."""
    module, function = VIEWS[name]
    return getattr(importlib.import_module(module), function)(*given)


@dataclass(frozen=True, slots=True, repr=False)
class Drawing:
    """A drawing as SVG, which a notebook shows as it stands; `save` writes it as SVG or PNG.

    Examples:
        >>> import s3lora
        >>> s3lora.scan("my-adapter").plot().save("map.svg")
    """

    svg: str
    title: str = "a drawing"

    def __repr__(self) -> str:
        """Return what is drawn."""
        return f"<Drawing: {self.title}>"

    def _repr_svg_(self) -> str:
        return self.svg

    def png(self) -> bytes:
        """Return it as PNG; raise MissingPackageError without the extra `plots`."""
        made: bytes = view("png", self.svg)
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, by the end of its name as SVG or PNG.

        Raises UsageError for another end, OutputError where it cannot be written, MissingPackageError for PNG without
        the extra `plots`.
        """
        file = Path(path)
        if file.suffix.lower() not in (".svg", ".png"):
            raise UsageError("a drawing is written as .svg or .png", file=path, fix="give a name that ends so")
        check_writable(file, option="path")
        write_whole(file, self.svg.encode() if file.suffix.lower() == ".svg" else self.png())
