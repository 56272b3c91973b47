"""Bytes → choices: how a target makes a structured input out of what a fuzzer gives it.

A fuzzer changes bytes here and there; each choice takes the next ones from the front, and zeros when they have run
out. So a small change of the bytes is a small change of the input, and the same bytes always give the same input.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

INTEGERS = (0, 1, 2, 3, -1, 8, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63))
NUMBERS = (0.0, -0.0, 0.5, 1.0, -1.0, 1e-320, 1e308, 1e-9, 2.5e15)
WORDS = (
    "",
    "LORA",
    "r",
    "a\nb",
    "../x",
    "\x1b[2J",
    "\u202e",
    "é",
    "x" * 300,
    "(a+)+$",
    "=1+1",
    "<b>",
    "::error::",
    "\0",
)


class Draw:
    """Takes choices from bytes.

    >>> draw = Draw(b"\\x05abc")
    >>> draw.number(3), draw.take(2), draw.rest(), draw.number(9)
    (1, b'ab', b'c', 0)
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        piece = self._data[self._at : self._at + count]
        self._at += len(piece)
        return piece

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data))

    def number(self, most: int) -> int:
        """Return a number from 0 to `most`, 0 where nothing is left."""
        size = (most.bit_length() + 7) // 8
        return int.from_bytes(self.take(size), "little") % (most + 1)

    def chance(self, one_in: int) -> bool:
        """Return True once in so many times, and never where nothing is left."""
        return self.number(255) % one_in == one_in - 1

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices, the first where nothing is left."""
        return choices[self.number(len(choices) - 1)]

    def text(self, most: int = 40) -> str:
        """Return a text of up to so many bytes of UTF-8."""
        return self.take(self.number(most)).decode("utf-8", "replace")

    def word(self) -> str:
        """Return a text that has made trouble elsewhere, or any."""
        return self.pick((*WORDS, None)) or self.text()

    def value(self, depth: int = 3) -> Any:
        """Return what JSON can hold, lists and objects nested as deep as that."""
        kind = self.number(8 if depth else 5)
        if kind < 3:
            return (None, False, True)[kind]
        if kind == 3:
            return self.pick(INTEGERS)
        if kind == 4:
            return self.pick(NUMBERS)
        if kind == 5:
            return self.word()
        count = self.number(3)
        if kind == 6:
            return [self.value(depth - 1) for _ in range(count)]
        return {self.word(): self.value(depth - 1) for _ in range(count)}

    def edited(self, document: Any) -> Any:
        """Return a document in which some values are others, gone, or there twice."""
        made = json.loads(json.dumps(document))
        for _ in range(self.number(4)):
            self._edit(made)
        return made

    def _edit(self, node: Any) -> None:
        """Change one value somewhere below a list or an object."""
        while isinstance(node, list | dict) and node:
            key: Any = self.pick(sorted(node)) if isinstance(node, dict) else self.number(len(node) - 1)
            if isinstance(node[key], list | dict) and not self.chance(4):
                node = node[key]
                continue
            what = self.number(5)
            if what == 1:
                del node[key]
            elif what == 2 and isinstance(node, list):
                node.append(node[key])
            elif what == 2:
                node[self.word()] = node[key]
            elif what == 3 and isinstance(node[key], int | float):
                node[key] = self.pick((*INTEGERS, *NUMBERS))
            elif what == 4 and isinstance(node[key], str):
                node[key] = self.word()
            else:
                node[key] = self.value()
            return
        if isinstance(node, dict):
            node[self.word()] = self.value()
