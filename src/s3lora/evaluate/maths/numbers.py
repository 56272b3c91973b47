"""The number that an answer comes to: after `####`, in a box, after "the answer is", or the last one."""

from __future__ import annotations

import re
from fractions import Fraction

#: Characters at the end of an answer that are searched; what stands before is working.
SEARCHED = 4_000
#: Digits of a number that are read: no problem has more, and a longer one would take time to compare.
DIGITS = 30

_DASHES = str.maketrans(dict.fromkeys("−–‒﹣－", "-"))
_SPACES = str.maketrans(dict.fromkeys("\u00a0\u202f\u2009", " "))
#: Thousands with commas or thin spaces, then decimals; or plain digits. A fraction has a whole number on both sides.
_NUMBER = (
    rf"(?P<sign>-\s?)?[$€£]?\s?(?P<whole>\d{{1,3}}(?:[, ]\d{{3}})+(?!\d)|\d{{1,{DIGITS}}})(?!\d)"
    rf"(?P<decimals>\.\d{{1,{DIGITS}}})?(?:\s?/\s?(?P<below>\d{{1,{DIGITS}}})(?![\d.]))?"
)
NUMBER = re.compile(rf"(?<![\w.,]){_NUMBER}|(?<=[$€£(=]){_NUMBER.replace('?P<', '?P<_')}")
#: What stands between the first number of a sum and its result.
_SUM = re.compile(r"\s*[-+*/×·÷]\s*[$€£(]*\d(?:[^=.;\n]|\.\d)*=")
#: Where a final answer is announced, the surest first.
MARKS = (
    re.compile(r"####"),
    re.compile(r"\\boxed\s*\{"),
    re.compile(r"\b(?:final\s+answer|answer|result|total)\b\s*(?:is|=|:)", re.IGNORECASE),
)


def final_number(text: str) -> Fraction | None:
    """Return the number that an answer gives as its result, exactly; None where it has none.

    After the last `####`, else in the last `\\boxed{}`, else after the last "answer is" or "answer:", the first number
    counts, or what a sum that it begins comes to; without any of these the last number of the text. Thousands may be
    grouped, and signs of currency and units stand beside it.

    >>> final_number("She has 3 + 4 = 7 apples. The answer is 7.")
    Fraction(7, 1)
    >>> final_number("So the total is 16 + 4 = 20 dollars.")
    Fraction(20, 1)
    >>> final_number("The answer is 3 * 1.50 = 4.50"), final_number("The answer is 42 - since x = 3")
    (Fraction(9, 2), Fraction(42, 1))
    >>> final_number("#### 1,250.50")
    Fraction(2501, 2)
    """
    text = text[-SEARCHED:].translate(_DASHES).translate(_SPACES)
    for mark in MARKS:
        last = None
        for last in mark.finditer(text):  # noqa: B007
            pass
        if last is not None and (found := NUMBER.search(text, last.end())) is not None:
            line = text[found.end() :].partition("\n")[0]
            # Where a sum follows, as in "the total is 16 + 4 = 20", its result counts.
            sum_of = _SUM.match(line)
            result = NUMBER.search(line, sum_of.end()) if sum_of is not None else None
            return _value(result or found)
    last = None
    for last in NUMBER.finditer(text):  # noqa: B007
        pass
    return None if last is None else _value(last)


def _value(found: re.Match[str]) -> Fraction | None:
    parts = found.groupdict()
    sign, whole, decimals, below = (parts[name] or parts[f"_{name}"] for name in ("sign", "whole", "decimals", "below"))
    value = Fraction(re.sub(r"[, ]", "", whole) + (decimals or ""))
    if below is not None:
        if decimals or not int(below):
            return None
        value /= int(below)
    return -value if sign else value
