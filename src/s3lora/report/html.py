"""What every page has in common: one file that stands alone, names that cannot become markup, and a closed policy."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from typing import Any

from s3lora.errors import printable
from s3lora.report.colours import DARK, GREYS, HUES, LIGHT, SCALE
from s3lora.report.names import tail
from s3lora.report.notes import data_names, once
from s3lora.report.values import (
    NOTHING,
    count,
    decimal,
    difference_text,
    heading,
    learned_text,
    metric_text,
    p_text,
    percent,
    reading_text,
)

#: The first and the last script of every page: what sorts tables and saves drawings.
COMMON = ("save.js", "pages.js")
#: The longest name, sentence and command that are shown whole.
NAME = 80
LONGEST = 400
LONGEST_COMMAND = 4000


def render(template: str, *, styles: tuple[str, ...] = (), scripts: tuple[str, ...] = (), **values: Any) -> str:
    """Return a page. `styles` are style sheets besides the common one, `scripts` what it has besides `COMMON`.

    All scripts are joined to the page's only one, which nobody needs to read the page.
    The page's Content-Security-Policy lets nothing run or load but exactly these, named by their digests.
    """
    environment = environment_of_pages()
    style = "\n".join(map(style_sheet, ("style.css.jinja", *styles)))
    code = "\n".join(environment.loader.get_source(environment, name)[0] for name in (COMMON[0], *scripts, COMMON[1]))
    policy = f"default-src 'none'; style-src {_digest(style)}; base-uri 'none'; form-action 'none'"
    policy += f"; script-src {_digest(code)}"
    text: str = environment.get_template(template).render(style=style, code=code, policy=policy, **values)
    return text


def style_sheet(name: str) -> str:
    """Return a style sheet, which has its colours by name."""
    text: str = (
        environment_of_pages().get_template(name).render(light=LIGHT, dark=DARK, scale=SCALE, hues=HUES, greys=GREYS)
    )
    return text


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def environment_of_pages() -> Any:
    """Return the environment of all templates; who needs more filters adds them once."""
    import jinja2  # only here: a scan is done before it would be imported
    from markupsafe import Markup

    def shown(value: object) -> object:
        """Return what a page shows of a value: names out of untrusted files lose their control characters."""
        if value is None:
            return NOTHING
        return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value, LONGEST)

    def at_dots(path: str, most: int = LONGEST) -> Markup:
        """Return a path that breaks where its parts meet."""
        return Markup("<wbr>").join(re.split(r"(?<=\.)", printable(path, most)))

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("s3lora.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        at_dots=at_dots,
        count=count,
        decimal=decimal,
        difference=difference_text,
        learned=learned_text,
        heading=heading,
        long=lambda text: Markup.escape("\n".join(printable(line, LONGEST_COMMAND) for line in text.splitlines())),
        name=lambda text: tail(text, NAME),
        metric=metric_text,
        once=lambda suite: once(suite.notes, data_names([suite])),
        p=p_text,
        percent=percent,
        pixel=lambda value: f"{value:.1f}".removesuffix(".0"),
        reading=reading_text,
        shape=Markup,  # signs and code are our own, and longer than names
        zip=lambda a, b: list(zip(a, b, strict=True)),
    )
    return environment
