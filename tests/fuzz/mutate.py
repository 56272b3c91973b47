"""Seeded mutations of inputs: what stands in for atheris where it is not installed, and in the default suite."""

from __future__ import annotations

import random
from collections.abc import Sequence

INTERESTING = b"\x00\x01\x02\x7f\x80\xff 019-\"'{}[]()\\/.:,=<>\n\r\t#%"
LONGEST = 1 << 16


def mutated(draw: random.Random, corpus: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return an input of the corpus with a few changes: of bytes, of pieces, by words, or by a piece of another."""
    data = bytearray(draw.choice(corpus))
    for _ in range(draw.choice((1, 1, 2, 3, 5, 8))):
        at = draw.randrange(len(data) + 1)
        size = draw.choice((1, 2, 4, 8, 64))
        kind = draw.randrange(8)
        if kind == 0 and at < len(data):
            data[at] = draw.randrange(256)
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 2 and at < len(data):
            data[at] = draw.choice(INTERESTING)
        elif kind == 3:
            del data[at : at + size]
        elif kind == 4:
            data[at:at] = draw.randbytes(size)
        elif kind == 5:
            data[at:at] = data[at : at + size] * draw.choice((1, 1, 2, 100))
        elif kind == 6 and words:
            word = draw.choice(words)
            data[at : at + draw.choice((0, len(word)))] = word
        else:
            other = draw.choice(corpus)
            start = draw.randrange(len(other) + 1)
            data[at : at + draw.choice((0, size))] = other[start : start + size]
    return bytes(data[:LONGEST])
