"""Regular expressions in configurations and policies."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from s3lora.adapter.expressions import Expression, ExpressionError
from s3lora.errors import UsageError
from tests.fuzz.contract import BrokenContract
from tests.fuzz.target import Target

#: Characters of an expression and a text, and repeats of the former, with which Python's own engine takes no time.
SHORT, FEW = 24, 3


def _fuzz(data: bytes, _: Path) -> None:
    pattern, _, text = data.decode("utf-8", "surrogateescape").partition("\0")
    text = text[:2000]
    try:
        expression = Expression(pattern)
        found = expression.fullmatch(text), expression.search(text)
    except ExpressionError as error:
        raise UsageError(str(error)) from None
    if len(pattern) > SHORT or len(text) > SHORT or len(re.findall(r"[*+?{]", pattern)) > FEW:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = re.fullmatch(pattern, text) is not None, re.search(pattern, text) is not None
    if found != theirs:
        raise BrokenContract(f"{pattern!r} on {text!r}: {found}, and {theirs} by re")


def _seeds() -> Sequence[bytes]:
    pairs = (
        (r".*\.q_proj", "layers.0.q_proj"), (r"(?!.*visual).*\.(q|v)_proj", "layers.0.q_proj"), ("(a+)+$", "aaaaaaab"),
        (r"[^a-c]{2,3}\d?", "xyz1"), (r"(?i)A|b", "a"), (r"^a\b.(?<=x)$", "a\nx"), (r"(?P<n>a)(?:b)*?", "abb"),
    )  # fmt: skip
    return [f"{pattern}\0{text}".encode() for pattern, text in pairs]


_WORDS = ("(?:", "(?=", "(?!", "(?<=", "(?<!", "(?P<a>", "(?i)", "{2,3}", "{,3}", r"\b", r"\w", r"\Z", "[^", "*?", "|")
TARGETS = (
    Target("expression", "regular expressions of others", _fuzz, _seeds, tuple(word.encode() for word in _WORDS)),
)
