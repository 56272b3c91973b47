"""What a public function is given, held against its annotations before it runs: one sentence for what cannot be meant.

A wrong type would else surface as an AttributeError in the middle of the program, in words that only its authors know.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from s3lora.errors import UsageError, printable

P = ParamSpec("P")
R = TypeVar("R")
#: Class → what to give where one is wanted.
MEANT = {
    "Adapter": "an adapter that open_adapter opened",
    "BaseModel": "a base that read_base read",
    "Converted": "what convert returns",
    "Filter": 'a filter, such as Filter(projections=("q_proj",))',
    "Mode": "a mode, such as Remove()",
    "Plan": "a plan that select returned",
    "Pruned": "what prune returns",
    "Rule": "a rule, such as Top(10)",
    "Scan": "a scan that scan returned",
}
_PLAIN = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    bytes: "bytes",
    os.PathLike: "a path",
    type(None): "None",
}
_LISTS = (collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that raises UsageError for an argument of another type than its annotation has."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # Python says best which argument is missing, or is none
        check_types(function, given)
        return function(*args, **kwargs)

    return call


def check_fields(made: object) -> None:
    """Raise UsageError where a field of a dataclass is of another type than its annotation has."""
    kind: Callable[..., Any] = type(made)
    check_types(kind, {name: getattr(made, name) for name in typing.get_type_hints(kind) if hasattr(made, name)})


def check_types(owner: Callable[..., Any], given: Mapping[str, object]) -> None:
    """Raise UsageError, which says what is meant, for the first value that is not what its annotation has."""
    hints = _hints(owner)
    for name, value in given.items():
        hint = hints.get(name, Any)
        if not _is(value, hint):
            what = f"{printable(owner.__name__)}: {name} must be {_named(hint)}, not {_shown(value)}"
            raise UsageError(what, fix=_mended(value, hint))


@functools.cache
def _hints(owner: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function or a class, but those of what belongs to the class alone."""
    return {
        name: hint for name, hint in typing.get_type_hints(owner).items() if get_origin(hint) is not typing.ClassVar
    }


def _is(value: object, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return True
    if origin in (Union, types.UnionType):
        return any(_is(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str)  # which of them, the function says better
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, tuple) and _all_are(value, inner)
    if origin in _LISTS:
        text = isinstance(value, str | bytes | collections.abc.Mapping)
        return isinstance(value, collections.abc.Collection) and not text and all(_is(one, inner[0]) for one in value)
    kind = origin or hint
    if kind is collections.abc.Callable:
        return callable(value)
    if kind is type or isinstance(value, type):  # a class has the methods of what it makes, and is none
        return kind is type and isinstance(value, type)
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that nobody can ask at run time
        return True


def _all_are(value: tuple[object, ...], inner: tuple[Any, ...]) -> bool:
    if len(inner) == 2 and inner[1] is Ellipsis:
        return all(_is(one, inner[0]) for one in value)
    return len(value) == len(inner) and all(map(_is, value, inner))


def _named(hint: Any) -> str:
    """Return what is meant, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        names = list(dict.fromkeys(_named(one) for one in inner if one is not type(None)))
        if "a path" in names and "text" in names:  # a path is given as either
            names.remove("text")
        return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple and Ellipsis not in inner:
        return f"({', '.join(_named(one) for one in inner)})"
    if origin in _LISTS or origin is tuple:
        return f"a {'tuple' if origin is tuple else 'list'}, each item {_named(inner[0])}"
    kind = origin or hint
    if kind is collections.abc.Callable:
        return "a function"
    return _PLAIN.get(kind) or MEANT.get(kind.__name__) or f"a {kind.__name__}"


def _shown(value: object) -> str:
    """Return a value as a reader may know it again, or its class where it is none that is written in a line."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, str | bytes | bool | numbers.Number):
        return printable(repr(value), 60)
    if isinstance(value, list | tuple) and value:
        return f"a {type(value).__name__} of {_shown(value[0])}{' and more' if value[1:] else ''}"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {printable(name, 60)}"


def _mended(value: object, hint: Any) -> str | None:
    """Return what to write instead, where it can be told."""
    if isinstance(value, type) and _is_made_by(value, hint):
        return f"write {value.__name__}(…)"
    if isinstance(value, str) and _is([value], hint):
        return f"write [{printable(repr(value), 60)}]"
    if not isinstance(value, str | list | tuple) and _is([value], hint):
        return "write a list, such as [first, second]"
    if isinstance(value, str) and _is((value,), hint):
        return f"write ({printable(repr(value), 60)},)"
    return None


def _is_made_by(kind: type, hint: Any) -> bool:
    made = [one for one in (hint, *get_args(hint)) if isinstance(one, type)]
    return any(issubclass(kind, one) for one in made if one is not type(None))
