"""What the expressions of a template come to, as far as it can be told without running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: Longest text and largest number that are computed.
MAX_TEXT = 10_000
LONG = 10**18
#: Most characters that replacing and joining make on the way.
MOST_JOINED = 10**6
#: How deep an expression is followed.
MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class TemplateValue:
    """What is known of the value of an expression.

    `length` is how many passes a loop over it makes, 0 where that is not known. `pieces` tells that text with an
    underscore is a part of it, `huge` that computing it would take too much.
    """

    text: str | None = None
    number: int | None = None
    items: tuple[TemplateValue, ...] | None = None
    length: int = 0
    pieces: bool = False
    huge: bool = False


UNKNOWN = TemplateValue()
HUGE = TemplateValue(huge=True, length=LONG)


def value_of(node: Any, known: Mapping[str, TemplateValue], depth: int = 0) -> TemplateValue:
    """Return what is known of the value of an expression, given what names hold."""
    if node is None:
        return UNKNOWN
    if depth > MAX_DEPTH:
        return TemplateValue(pieces=True)  # nobody needs so much, but who hides a name
    make = _KINDS.get(type(node).__name__)
    return UNKNOWN if make is None else make(node, known, depth + 1)


def _of(value: Any) -> TemplateValue:
    if isinstance(value, str):
        return TemplateValue(text=value, length=len(value)) if len(value) <= MAX_TEXT else UNKNOWN
    if isinstance(value, bool) or not isinstance(value, int):
        return UNKNOWN
    return TemplateValue(number=value) if abs(value) < LONG else HUGE


def _const(node: Any, known: Mapping[str, TemplateValue], depth: int) -> TemplateValue:
    return _of(node.value)


def _name(node: Any, known: Mapping[str, TemplateValue], depth: int) -> TemplateValue:
    return known.get(node.name, UNKNOWN)


def _attribute(node: Any, known: Mapping[str, TemplateValue], depth: int) -> TemplateValue:
    """Follow `ns.key`, an attribute of a namespace."""
    return known.get(f"{node.node.name}.{node.attr}", UNKNOWN) if type(node.node).__name__ == "Name" else UNKNOWN


def _list(node: Any, known: Mapping[str, TemplateValue], depth: int) -> TemplateValue:
    if len(node.items) > 1000:
        return TemplateValue(length=len(node.items))
    items = tuple(value_of(item, known, depth) for item in node.items)
    return TemplateValue(items=items, length=len(items), pieces=any(_has_piece(item) for item in items))


def block_text(node: Any, known: Mapping[str, TemplateValue]) -> TemplateValue:
    """Return what is known of the text that a block writes."""
    parts = [part for output in node.body for part in getattr(output, "nodes", [None])]
    return _joined(
        [_of(part.data) if type(part).__name__ == "TemplateData" else value_of(part, known) for part in parts]
    )


def _has_piece(value: TemplateValue) -> bool:
    return value.pieces or (value.text is not None and "__" in value.text)


def _text_of(value: TemplateValue) -> str | None:
    return value.text if value.text is not None else None if value.number is None else str(value.number)


def _joined(values: list[TemplateValue], between: str = "") -> TemplateValue:
    texts = [_text_of(value) for value in values]
    if any(value.huge for value in values):
        return HUGE
    if all(text is not None for text in texts):
        if len(between) * len(texts) + sum(len(text) for text in texts if text) > MOST_JOINED:
            return TemplateValue(pieces=True)
        whole = between.join(text for text in texts if text is not None)
        return _of(whole)
    told = "\n".join(text if text is not None else "\n" for text in texts).replace("_\n_", "__")
    return TemplateValue(pieces="__" in told or any(value.pieces for value in values))


def _concat(node: Any, known: Mapping[str, TemplateValue], depth: int) -> TemplateValue:
    return _joined([value_of(part, known, depth) for part in node.nodes])


def _add(node: Any, known: Mapping[str, TemplateValue], depth: int) -> TemplateValue:
    left, right = value_of(node.left, known, depth), value_of(node.right, known, depth)
    if left.number is not None and right.number is not None:
        return _of(left.number + right.number)
    if left.text is not None and right.text is not None:
        return _joined([left, right])
    if left.items is not None and right.items is not None and len(left.items) + len(right.items) < 1000:
        return TemplateValue(items=left.items + right.items, length=left.length + right.length)
    if left.huge or right.huge:
        return HUGE
    return _joined([left, right])


def _times(node: Any, known: Mapping[str, TemplateValue], depth: int) -> TemplateValue:
    left, right = value_of(node.left, known, depth), value_of(node.right, known, depth)
    if left.huge or right.huge:
        return HUGE
    if left.number is not None and right.number is not None:
        return _of(left.number * right.number)
    counted, count = (left, right.number) if right.number is not None else (right, left.number)
    if count is not None and counted.length:
        if counted.length * count > LONG // 10**11:
            return HUGE
        if counted.text is not None and len(counted.text) * count <= MAX_TEXT:
            return _of(counted.text * max(0, count))
        return TemplateValue(length=counted.length * max(0, count), pieces=_has_piece(counted))
    return TemplateValue(huge=count is not None and count > LONG // 10**11)


def _power(node: Any, known: Mapping[str, TemplateValue], depth: int) -> TemplateValue:
    left, right = value_of(node.left, known, depth), value_of(node.right, known, depth)
    if left.huge or right.huge:
        return HUGE
    if left.number is None or right.number is None or right.number < 0:
        return UNKNOWN
    if left.number.bit_length() * right.number > 64 and abs(left.number) > 1:
        return HUGE
    return _of(left.number**right.number) if abs(left.number) > 1 else UNKNOWN


def _slice(node: Any, known: Mapping[str, TemplateValue], depth: int) -> TemplateValue:
    """Follow `x[…]`: a part of a text, one of a list, or anything."""
    owner = value_of(node.node, known, depth)
    if type(node.arg).__name__ == "Slice":
        ends = [value_of(end, known, depth).number for end in (node.arg.start, node.arg.stop, node.arg.step)]
        if owner.text is not None and ends[2] != 0:
            return _of(owner.text[slice(*ends)])
        return TemplateValue(pieces=_has_piece(owner))
    key = value_of(node.arg, known, depth).number
    if key is None:
        return UNKNOWN
    if owner.text is not None and -len(owner.text) <= key < len(owner.text):
        return _of(owner.text[key])
    if owner.items is not None and -len(owner.items) <= key < len(owner.items):
        return owner.items[key]
    return UNKNOWN


def _percent(node: Any, known: Mapping[str, TemplateValue], depth: int) -> TemplateValue:
    """Follow `'%s%s' % (a, b)`."""
    left, right = value_of(node.left, known, depth), value_of(node.right, known, depth)
    if left.text is None:
        return UNKNOWN
    return _formatted(left.text, list(right.items) if right.items is not None else [right])


def _formatted(form: str, values: list[TemplateValue]) -> TemplateValue:
    plain = form.replace("%s", "").replace("%c", "").replace("{}", "")
    texts = [_text_of(value) for value in values]
    if "%" in plain or "{" in plain or not all(text is not None for text in texts):
        return TemplateValue(pieces="__" in form or any(_has_piece(value) for value in values))
    for value, text in zip(values, texts, strict=True):
        mark = min((mark for mark in ("%s", "%c", "{}") if mark in form), key=form.find, default="")
        if mark == "%c" and value.number is not None and 0 <= value.number < 0x110000:
            text = chr(value.number)
        form = form.replace(mark, text or "", 1) if mark else form
        if len(form) > MAX_TEXT:
            return TemplateValue(pieces=True)
    return _of(form)


def _filter(node: Any, known: Mapping[str, TemplateValue], depth: int) -> TemplateValue:
    given = [value_of(argument, known, depth) for argument in (node.node, *node.args)]
    return _changed(node.name, given)


def _call(node: Any, known: Mapping[str, TemplateValue], depth: int) -> TemplateValue:
    if type(node.node).__name__ == "Name" and node.node.name == "range":
        ends = [value_of(argument, known, depth) for argument in node.args]
        if any(end.huge for end in ends):
            return HUGE
        numbers = [end.number for end in ends if end.number is not None]
        if len(numbers) != len(ends) or not 1 <= len(numbers) <= 3 or numbers[2:] == [0]:
            return UNKNOWN
        counted = range(*numbers)
        return TemplateValue(length=max(0, -(-(counted.stop - counted.start) // counted.step)))
    if type(node.node).__name__ == "Getattr":
        owner = value_of(node.node.node, known, depth)
        given = [value_of(argument, known, depth) for argument in node.args]
        if node.node.attr == "join" and given:
            return _changed("join", [given[0], owner])
        if node.node.attr == "format" and owner.text is not None:
            return _formatted(owner.text, given)
        return _changed(node.node.attr, [owner, *given])
    return UNKNOWN


#: Filters and methods that make text of text.
_TEXT: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "trim": str.strip,
    "strip": str.strip,
    "lstrip": str.lstrip,
    "rstrip": str.rstrip,
    "capitalize": str.capitalize,
    "title": str.title,
    "swapcase": str.swapcase,
    "reverse": lambda text: text[::-1],
    "string": str,
    "safe": str,
    "e": str,
    "escape": str,
}


def _changed(name: str, given: list[TemplateValue]) -> TemplateValue:
    """Return what a filter or a method makes of its first value."""
    first = given[0]
    text = first.text
    if name == "join" and first.items is not None:
        between = given[1].text if len(given) > 1 else ""
        return _joined(list(first.items), between or "")
    if name == "join" and text is not None:
        between = (given[1].text or "") if len(given) > 1 else ""
        return _of(between.join(text)) if len(between) * len(text) < MOST_JOINED else TemplateValue(pieces=True)
    if name in ("list", "sort") and text is not None:
        return TemplateValue(items=tuple(_of(c) for c in text[:1000]), length=len(text))
    if name == "reverse" and first.items is not None:
        return TemplateValue(items=first.items[::-1], length=first.length)
    if name in ("first", "last") and first.items:
        return first.items[0 if name == "first" else -1]
    if text is None:
        return TemplateValue(pieces=first.pieces, length=first.length if name in ("list", "sort", "reverse") else 0)
    if name == "format":
        return _formatted(text, given[1:])
    if name == "replace" and len(given) >= 3 and given[1].text is not None and given[2].text is not None:
        few = len(text) * len(given[2].text) < MOST_JOINED
        return _of(text.replace(given[1].text, given[2].text)) if few else UNKNOWN
    if name in _TEXT and len(given) == 1:
        return _of(_TEXT[name](text))
    return TemplateValue(pieces="__" in text)


_KINDS: dict[str, Callable[[Any, Mapping[str, TemplateValue], int], TemplateValue]] = {
    "Const": _const,
    "TemplateData": lambda node, known, depth: _of(node.data),
    "Name": _name,
    "Getattr": _attribute,
    "List": _list,
    "Tuple": _list,
    "Concat": _concat,
    "Add": _add,
    "Mul": _times,
    "Pow": _power,
    "Mod": _percent,
    "Getitem": _slice,
    "Filter": _filter,
    "Call": _call,
}
