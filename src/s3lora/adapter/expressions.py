"""Regular expressions that others wrote, matched without Python's matcher, which has no limit on its time.

A part of an expression is a function on sets of positions: from where it may begin in a text to where it may then
end. A set is an integer with one bit a position, so a part costs a few operations on integers however many ways there
are to match it, and `(a+)+b` is as quick as `a+b`. Python's own engine reads each single character, class and boundary,
so these mean what they mean in `re`.

What no such function exists for is refused: references to groups, conditions, atomic groups and possessive repeats.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache

from s3lora.errors import printable

MAX_LENGTH = 1024
#: Groups within groups.
MAX_DEPTH = 50
#: Most steps for one expression on one text, some 0.1 s; what people write takes tens.
MAX_STEPS = 200_000
#: A step is an operation on so many positions.
_STEP = 1000
#: Where a part may begin in a text → where it may then end.
Part = Callable[["Text", int], int]

_TOKEN = re.compile(
    r"""(?P<repeat>[*+?]|\{(?:[0-9]+(?:,[0-9]*)?|,[0-9]*)\})(?P<how>[+?]?)
      | \(\?(?P<flags>[ims]+)\)
      | (?P<open>\((?:\?(?:[ims]*:|P<\w+>|<?[=!]))?(?!\?))
      | (?P<close>\))
      | (?P<bar>\|)
      | (?P<class>\[\^?\]?(?:\\.|[^\]\\])*\])
      | (?P<boundary>[$^]|\\[AZbB])
      | (?P<single>\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]*\}|[^0-9])|[^()\\])""",
    re.VERBOSE | re.DOTALL,
)
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]|\\[uUN]")


class ExpressionError(ValueError):
    """An expression that is not one, is not supported or takes too long; the message is the reason, in words."""


class Text:
    """A text that expressions are tried on, and what that has cost so far.

    What is the same in several expressions is looked for once.
    """

    def __init__(self, text: str) -> None:
        """Begin with a text."""
        self.text = text
        #: Every position, the end included.
        self.everywhere = (2 << len(text)) - 1
        self.steps = 0
        self._limit = 0
        self._price = 1 + len(text) // _STEP
        self._places: dict[re.Pattern[str], int] = {}
        self._one_line = "\n" not in text

    def begin(self) -> None:
        """Allow MAX_STEPS from here."""
        self._limit = self.steps + MAX_STEPS

    def pay(self) -> None:
        """Count a step; raise ExpressionError after too many."""
        self.steps += self._price
        if self.steps > self._limit:
            raise ExpressionError("takes too long to match")

    def places(self, atom: re.Pattern[str]) -> int:
        """Return the positions at which the atom matches."""
        places = self._places.get(atom)
        if places is None:
            if atom is _DOT and self._one_line:
                places = self.everywhere >> 1
            else:
                self.steps += len(self.text) // 8
                places = 0
                for match in atom.finditer(self.text):
                    places |= 1 << match.start()
            self._places[atom] = places
        return places


class Expression:
    """A regular expression whose matching takes bounded time; what it matches is what it matches in `re`.

    >>> Expression(r"(?!.*visual).*\\.(q|v)_proj").fullmatch("layers.0.q_proj")
    True

    Raises ExpressionError for what is no expression or not supported, and in matching where that takes too long.
    """

    def __init__(self, pattern: str) -> None:
        """Read the expression."""
        _check(pattern)
        self._part = _Reader(pattern).read()

    def fullmatch(self, text: str) -> bool:
        """Return whether all of `text` matches."""
        return bool(self.ends(Text(text), 1) >> len(text))

    def search(self, text: str) -> bool:
        """Return whether there is a match anywhere in `text`."""
        whole = Text(text)
        return bool(self.ends(whole, whole.everywhere))

    def ends(self, text: Text, starts: int) -> int:
        """Return the positions in `text` where a match that begins at one of `starts` can end, one bit a position."""
        text.begin()
        return self._part(text, starts)


def _check(pattern: str) -> None:
    """Raise ExpressionError for what `re` would refuse, and for what is too long to look at."""
    if len(pattern) > MAX_LENGTH:
        raise ExpressionError(f"has {len(pattern)} characters")
    if "[" in pattern and _BEYOND_ASCII.search(pattern):
        # A range of 65,536 characters takes `re` milliseconds to compile, and there is room for a hundred.
        raise ExpressionError("has characters beyond ASCII beside a class in brackets, which is not supported")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ExpressionError(f"is no regular expression ({printable(error, 80)})") from None


class _Reader:
    """Reads a pattern that `re` accepts, from left to right."""

    def __init__(self, pattern: str) -> None:
        self._tokens = _tokens(pattern)
        self._next = next(self._tokens, None)
        self._depth = 0

    def read(self) -> Part:
        flags = ""
        while self._next is not None and self._next["flags"]:
            flags += self._take()["flags"]
        return self._choice(flags)

    def _take(self) -> re.Match[str]:
        token = self._next
        assert token is not None
        self._next = next(self._tokens, None)
        return token

    def _choice(self, flags: str) -> Part:
        choices = [self._sequence(flags)]
        while self._next is not None and self._next["bar"]:
            self._take()
            choices.append(self._sequence(flags))
        return _either(choices) if len(choices) > 1 else choices[0]

    def _sequence(self, flags: str) -> Part:
        parts: list[Part] = []
        literals: list[str] = []  # in a row they are looked for as one

        def add_literals() -> None:
            if literals:
                parts.append(_atom(_compiled(flags, "".join(literals)), len(literals)))
                literals.clear()

        while self._next is not None and not (self._next["bar"] or self._next["close"]):
            token = self._take()
            if token["flags"] or token["repeat"]:
                raise ExpressionError(f"has {printable(token[0], 20)} in a place that is not supported")
            repeated = self._next is not None and self._next["repeat"]
            if token["single"] and _is_literal(token[0]) and not repeated:
                literals.append(token[0])
                continue
            add_literals()
            parts.append(self._item(token, flags))
        add_literals()
        return parts[0] if len(parts) == 1 else _sequence(parts)

    def _item(self, token: re.Match[str], flags: str) -> Part:
        if token["open"]:
            return self._repeated(self._group(token["open"], flags))
        atom = _compiled(flags, token[0])
        if token["boundary"]:
            return _atom(atom, 0)
        return self._repeated(_atom(atom, 1), atom)

    def _group(self, opening: str, flags: str) -> Part:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"has more than {MAX_DEPTH} groups within each other")
        if opening.endswith(":"):
            flags += opening[2:-1]
        body = self._choice(flags)
        self._take()
        self._depth -= 1
        if opening in ("(?=", "(?!"):
            return _ahead(body, wanted=opening == "(?=")
        if opening in ("(?<=", "(?<!"):
            return _behind(body, wanted=opening == "(?<=")
        return body

    def _repeated(self, body: Part, atom: re.Pattern[str] | None = None) -> Part:
        if self._next is None or not self._next["repeat"]:
            return body
        token = self._take()
        if token["how"] == "+":
            raise ExpressionError(f"has the possessive repeat {token[0]}, which is not supported")
        text = {"*": "{0,}", "+": "{1,}", "?": "{0,1}"}.get(token["repeat"], token["repeat"])
        low, comma, high = text[1:-1].partition(",")
        least = int(low or 0)
        most = None if comma and not high else int(high or low)
        if most is None and least < 2 and atom is not None:
            return _run(body, atom, least)
        return _repeat(body, least, most)


def _tokens(pattern: str) -> Iterator[re.Match[str]]:
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise ExpressionError(f"has {printable(pattern[at : at + 3])}…, which is not supported")
        yield token
        at = token.end()


def _is_literal(token: str) -> bool:
    """Return whether a token stands for itself: letters, digits and the like, and what a backslash protects."""
    return token != "." and (len(token) == 1 or (len(token) == 2 and not token[1].isalnum()))


@lru_cache(maxsize=4096)
def _compiled(flags: str, atom: str) -> re.Pattern[str]:
    """Return an expression that matches, with no length, wherever the atom does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(f"(?={atom})", sum({getattr(re, flag.upper()) for flag in flags}, re.RegexFlag(0)))


_DOT = _compiled("", ".")


def _atom(atom: re.Pattern[str], length: int) -> Part:
    def part(text: Text, starts: int) -> int:
        text.pay()
        return (starts & text.places(atom)) << length

    return part


def _sequence(parts: list[Part]) -> Part:
    def part(text: Text, starts: int) -> int:
        for each in parts:
            if not starts:
                return 0
            starts = each(text, starts)
        return starts

    return part


def _either(choices: list[Part]) -> Part:
    def part(text: Text, starts: int) -> int:
        ends = 0
        for each in choices:
            ends |= each(text, starts)
        return ends

    return part


def _run(once: Part, atom: re.Pattern[str], least: int) -> Part:
    """Return `x*` or `x+` of one character: the carry of an addition runs through all of them at once."""

    def part(text: Text, starts: int) -> int:
        text.pay()
        if least:
            starts = once(text, starts)
        places = text.places(atom)
        return (((starts & places) + places) ^ places) | starts

    return part


def _repeat(body: Part, least: int, most: int | None) -> Part:
    def part(text: Text, starts: int) -> int:
        # After as many rounds as there are positions a round can change nothing more.
        size = len(text.text) + 1
        for _ in range(min(least, size)):
            before, starts = starts, body(text, starts)
            text.pay()
            if starts in (0, before):
                break
        ends = fresh = starts
        for _ in range(size if most is None else min(most - least, size)):
            if not fresh:
                break
            fresh = body(text, fresh) & ~ends
            ends |= fresh
            text.pay()
        return ends

    return part


def _ahead(body: Part, *, wanted: bool) -> Part:
    def part(text: Text, starts: int) -> int:
        left, ends = starts, 0
        while left:
            start = left & -left
            left ^= start
            text.pay()
            if bool(body(text, start)) == wanted:
                ends |= start
        return ends

    return part


def _behind(body: Part, *, wanted: bool) -> Part:
    def part(text: Text, starts: int) -> int:
        text.pay()
        ends = body(text, text.everywhere)
        return starts & (ends if wanted else ~ends)

    return part
