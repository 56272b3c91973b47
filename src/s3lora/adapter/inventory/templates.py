"""What a chat template reaches for, found by parsing it: nothing is rendered.

A template is a program. Loaders run it in a sandbox, which has had holes, and some in none. What gets out of it begins
with an attribute or an item whose name begins with an underscore, however that name is put together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from s3lora.adapter.inventory.template_values import LONG, TemplateValue, block_text, value_of
from s3lora.errors import printable

#: Longest template that is parsed, in characters; real ones have up to 60,000.
MAX_TEMPLATE = 128 * 1024
#: Passes of a loop, loops in loops multiplied, from which on it is told.
MANY = 10_000_000
MAX_TOLD = 50
#: What reaches out of a sandbox, as text: Python's own names for what an object is made of.
_INNER = re.compile(
    r"__(?:class|globals|init|new|mro|bases?|subclasses|builtins|import|dict|getattribute|getattr|code|func|self|call|"
    r"reduce|reduce_ex|closure|module|loader|spec|wrapped|annotations|defaults|kwdefaults|getitem|setattr|delattr|"
    r"enter|exit|doc|name|qualname|weakref|slots|file)__"
)
#: A format that reaches into what it is given: `{0.__class__}`.
_FORMAT = re.compile(r"\{[^{}]*[.\[]_")
#: Filters and tests that take the name of an attribute.
_BY_NAME = frozenset(
    ("attr", "map", "selectattr", "rejectattr", "groupby", "sort", "unique", "sum", "min", "max", "dictsort")
)


@lru_cache(maxsize=256)
def reaches(source: str) -> tuple[tuple[str, ...], str]:
    """Return what a template reaches for, in words and in order, and a note where it was not understood.

    >>> reaches("{{ messages[0]['content'] | trim }}")
    ((), '')
    >>> reaches("{{ cycler.__init__ }}")[0]
    ('the attribute __init__',)
    """
    if len(source) > MAX_TEMPLATE:
        return (f"a template of {len(source):,} characters, which is too long to be parsed",), ""
    try:
        tree = _jinja().parse(source)
        found = dict.fromkeys(_told(tree))
    except RecursionError:
        return ("a template that is nested too deep to be parsed",), ""
    except Exception as error:  # jinja2 raises several classes for what it cannot parse
        return (), f"the template cannot be parsed ({printable(error, 80)})"
    told = sorted(found)
    more = (f"and {len(told) - MAX_TOLD} more",) if len(told) > MAX_TOLD else ()
    return (*told[:MAX_TOLD], *more), ""


@lru_cache(maxsize=1)
def _jinja() -> Any:
    """Return jinja2's parser with the tags that loaders know besides."""
    from jinja2 import Environment
    from jinja2.ext import Extension
    from jinja2.nodes import Node, Scope

    class _GenerationTag(Extension):
        """`{% generation %}` … `{% endgeneration %}`, which marks what an assistant said."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Node:
            line = next(parser.stream).lineno
            return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    extensions: list[str | type[Extension]] = ["jinja2.ext.loopcontrols", "jinja2.ext.do", _GenerationTag]
    return Environment(extensions=extensions)


def _told(tree: Any) -> Iterator[str]:
    """Yield what the nodes of a template reach for. The tree is walked with a list, for it may be deep."""
    from jinja2 import nodes

    known = _assigned(tree)
    waiting: list[tuple[Any, int]] = [(tree, 1)]
    while waiting:
        node, passes = waiting.pop()
        if isinstance(node, nodes.For):
            length = value_of(node.iter, known).length
            inside = min(passes * max(1, length), LONG * MANY)
            if inside > MANY:
                yield f"a loop of {inside:,} passes" if inside < LONG else "a loop without an end"
            waiting.extend((child, inside) for child in node.body)
            waiting.extend((child, passes) for child in (node.target, node.iter, node.test, *node.else_) if child)
        else:
            waiting.extend((child, passes) for child in node.iter_child_nodes())
        yield from _of_node(node, known)


def _assigned(tree: Any) -> dict[str, TemplateValue]:
    """Return what the names that a template sets once hold, as far as it can be told."""
    from jinja2 import nodes

    found: dict[str, TemplateValue] = {}
    several: set[str] = set()
    waiting = [tree]
    order: list[tuple[str, Any]] = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, nodes.Assign | nodes.AssignBlock):
            order.extend(_set_by(node))
        waiting.extend(node.iter_child_nodes())
    for name, node in reversed(order[:1000]):
        if name in found:
            several.add(name)
        found[name] = _set_to(node, found)
    # What is set twice may hold either, and where it is not known which, the text of both counts.
    for name in several:
        own = [node for other, node in order[:1000] if other == name]
        texts = [_set_to(node, found) for node in own]
        known = [value.text for value in texts if value.text is not None and value.text.startswith("_")]
        together = any(value.pieces for value in texts) or any(map(_grows, own))
        found[name] = TemplateValue(text=known[0], pieces=together) if known else TemplateValue(pieces=together)
    return found


def _set_by(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names that a tag sets, with what it sets them to: an expression, or the tag where it is a block."""
    from jinja2 import nodes

    value = node.node if isinstance(node, nodes.Assign) else node
    if isinstance(node.target, nodes.NSRef):
        yield f"{node.target.name}.{node.target.attr}", value
    elif isinstance(node.target, nodes.Name):
        yield node.target.name, value
        if isinstance(value, nodes.Call) and isinstance(value.node, nodes.Name) and value.node.name == "namespace":
            yield from ((f"{node.target.name}.{pair.key}", pair.value) for pair in value.kwargs)


def _grows(value: Any) -> bool:
    """Return whether an expression makes text of several, one of them with an underscore."""
    from jinja2 import nodes

    if not (isinstance(value, nodes.Add) or _makes_text(value)):
        return False
    return any("_" in str(part.value) for part in value.find_all(nodes.Const))


def _set_to(node: Any, known: dict[str, TemplateValue]) -> TemplateValue:
    return block_text(node, known) if type(node).__name__ == "AssignBlock" else value_of(node, known)


def _of_node(node: Any, known: dict[str, TemplateValue]) -> Iterator[str]:
    from jinja2 import nodes

    if isinstance(node, nodes.Getattr):
        if node.attr.startswith("_"):
            yield f"the attribute {_shown(node.attr)}"
    elif isinstance(node, nodes.Getitem):
        key = value_of(node.arg, known)
        if key.text is not None and key.text.startswith("_"):
            yield f"the item {_shown(key.text)}"
        elif key.text is None and key.number is None and (key.pieces or _makes_text(node.arg)):
            yield "an item by a name that is put together"
    elif isinstance(node, nodes.Include):
        yield "another file (include)"
    elif isinstance(node, nodes.Import | nodes.FromImport):
        yield "another file (import)"
    elif isinstance(node, nodes.Extends):
        yield "another file (extends)"
    elif isinstance(node, nodes.Filter | nodes.Test):
        yield from _of_filter(node, known)
    elif isinstance(node, nodes.Keyword):
        if node.key.startswith("__"):
            yield f"the name {_shown(node.key)}"
    elif isinstance(node, nodes.Name):
        if node.name == "lipsum" and node.ctx == "load":
            yield "lipsum, which is of no use to a chat"
        elif node.name.startswith("__"):
            yield f"the name {_shown(node.name)}"
    elif isinstance(
        node, nodes.Const | nodes.Concat | nodes.Add | nodes.Mul | nodes.Pow | nodes.Call | nodes.TemplateData
    ):
        yield from _of_value(value_of(node, known))


def _makes_text(node: Any) -> bool:
    """Return whether an expression makes a text of several."""
    kind = type(node).__name__
    return kind == "Concat" or (kind == "Filter" and node.name in ("join", "format", "replace"))


def _of_value(value: TemplateValue) -> Iterator[str]:
    if value.text is not None:
        if match := _INNER.search(value.text):
            yield f"the name {match[0]}"
        if _FORMAT.search(value.text):
            yield "an attribute with an underscore, by a format"
    if value.huge:
        yield "a value too large to be computed"


def _of_filter(node: Any, known: dict[str, TemplateValue]) -> Iterator[str]:
    arguments = [*node.args, *(pair.value for pair in node.kwargs)]
    values = [value_of(argument, known) for argument in arguments]
    if node.name in _BY_NAME:
        for value in values:
            parts = (value.text or "").split(".")
            if any(part.startswith("_") for part in parts):
                yield f"the attribute {_shown(value.text)}"
    if node.name == "attr" and any(value.text is None for value in values):
        yield "an attribute by a name that is put together"
    if any(value.number is not None and abs(value.number) >= MANY for value in values):
        yield f"the filter {printable(node.name, 40)} with a huge number"


def _shown(name: Any) -> str:
    return printable(name, 60)
