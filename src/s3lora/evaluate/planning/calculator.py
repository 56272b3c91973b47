"""The Calculator tool: exact arithmetic on numbers, by a walk over the syntax tree. Nothing is evaluated as code."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction

MAX_CHARACTERS = 200
#: Bits of a numerator or denominator, on the way or at the end: about 77 digits.
MAX_BITS = 256
#: Digits of a result that is no whole number.
DIGITS = 15

#: What an expression is made of; without letters and quotes no name, call or text can be written.
EXPRESSION = re.compile(r"[0-9.+\-*/%() ]+")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
LEADING_ZEROS = re.compile(r"(?<![0-9.])0+(?=[0-9])")
SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**"})

BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}
UNARY: dict[type[ast.unaryop], Callable[[Fraction], Fraction]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def calculate(text: str) -> str | None:
    """Return the value of an arithmetic expression, or None where it is none, has no value or is out of bounds.

    Numbers, brackets, + - * / // % and ** with whole exponents are understood, as are ×, ÷, ^ and commas between
    thousands. Fractions are exact on the way; a result that is not whole is given to 15 digits.

    >>> calculate("1,200 / (2 + 3)"), calculate("0.1 + 0.2"), calculate("2 ** 999"), calculate("open('x')")
    ('240', '0.3', None, None)
    """
    if len(text) > MAX_CHARACTERS:
        return None
    text = " ".join(text.translate(SIGNS).split()).strip("\"'`=? ")
    text = LEADING_ZEROS.sub("", THOUSANDS.sub("", text))
    if not EXPRESSION.fullmatch(text):
        return None
    try:
        return _shown(_value(ast.parse(text, mode="eval").body))
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant):
        # The shortest text that reads as this float is what was written, up to 15 digits.
        return _bounded(Fraction(str(node.value)))
    if isinstance(node, ast.UnaryOp):
        return UNARY[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        return _power(left, right) if isinstance(node.op, ast.Pow) else _bounded(BINARY[type(node.op)](left, right))
    raise ValueError("not arithmetic")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """Raise to a power whose size is known to be small before it is computed."""
    if exponent.denominator != 1 or abs(exponent) * _bits(base) > 2 * MAX_BITS:
        raise ValueError("out of bounds")
    return _bounded(Fraction(base ** int(exponent)))


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > MAX_BITS:
        raise ValueError("out of bounds")
    return value


def _shown(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    rounded = Context(prec=DIGITS).divide(Decimal(value.numerator), Decimal(value.denominator))
    text = format(rounded, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
