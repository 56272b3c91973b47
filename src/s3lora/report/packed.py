"""Columns of numbers and names as the script of a page reads them: each stored once, in no more bits than it needs.

`packed.js` of the templates reads them back.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Whole numbers of more bits are written out: a script's numbers have 53.
_BITS = 44
#: A step of an index without a unit (see `choose.ties`), as a power of two.
_STEP = 23
#: Numbers in a path that are told apart from its text: those that a script writes as they are here.
_NUMBER = re.compile(r"(?<![0-9])(0|[1-9][0-9]{0,8})(?![0-9])")
#: Codes of numbers of three digits: 900 to a power of ten; zero lies below them all.
_DIGITS, _ZERO = 900, -400 * 900


def integers(values: Sequence[int | None]) -> dict[str, Any]:
    """Return whole numbers as differences to the least, each in as many bits as the greatest takes.

    Where some are None, 0 stands for None and all others are one more.

    >>> integers([7, 9, None, 8])
    {'low': 7, 'bits': 2, 'holes': 1, 'text': 'cg=='}
    >>> integers([5, 5, 5])
    {'low': 5, 'bits': 0, 'holes': 0, 'text': ''}
    """
    known = [value for value in values if value is not None]
    low, holes = min(known, default=0), int(len(known) < len(values))
    bits = (max(known, default=0) - low + holes).bit_length()
    if bits > _BITS:
        return {"plain": list(values)}
    codes = np.array([0 if value is None else value - low + holes for value in values], dtype=np.uint64)
    raised = (codes[:, None] >> np.arange(bits - 1, -1, -1, dtype=np.uint64)) & np.uint64(1)
    packed = np.packbits(raised.astype(np.uint8).ravel())
    return {"low": low, "bits": bits, "holes": holes, "text": base64.b64encode(packed.tobytes()).decode()}


def numbers(values: Sequence[float | None]) -> dict[str, Any]:
    """Return numbers with all their digits: as steps of 2⁻²³, as the bits of a float32, or else written out.

    What `choose.ties.rounded` returns is one of the first two, but for numbers beyond the range of a float32.
    """
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    ways = []
    with np.errstate(over="ignore"):
        steps, single = known * 2.0**_STEP, known.astype(np.float32)
    if np.all(np.abs(steps) < 2.0**40) and np.all(steps == np.floor(steps)):
        ways.append({"kind": "steps", **integers([None if v is None else int(v * 2.0**_STEP) for v in values])})
    if np.all(single == known) and np.all(np.isfinite(single)):
        raw = single.view(np.uint32).astype(np.int64)
        signed = np.where(raw < 2**31, raw, 2**31 - raw)  # in the order of the numbers
        codes = iter(signed.tolist())
        ways.append({"kind": "single", **integers([None if v is None else next(codes) for v in values])})
    if ways:
        return min(ways, key=lambda way: way["bits"])
    return {"plain": list(values)}


def digits(values: Sequence[float | None]) -> dict[str, Any]:
    """Return numbers that are not negative with three digits each, as many as are shown.

    >>> digits([0.0123, None, 4560.0])["low"] == 23 + 900 * -2
    True
    """
    return {"kind": "digits", **integers([None if value is None else _code(value) for value in values])}


def _code(value: float) -> int:
    if not 0 < value < float("inf"):
        return _ZERO
    size, _, power = f"{value:.2e}".partition("e")
    return _DIGITS * int(power) + int(size.replace(".", "")) - 100


def names(paths: Sequence[str], starts: Sequence[str | None]) -> dict[str, Any]:
    """Return paths as their texts without numbers, each once, and columns of the numbers between.

    `starts` are the beginnings of the paths that end with the number of a layer, None where a path has none; `layers`
    tells for each text which of its numbers that is.

    >>> made = names(["a.0.q2", "a.1.q2", "b"], ["a.0", "a.1", None])
    >>> made["texts"], made["layers"], len(made["numbers"])
    ([('a.', '.q', ''), ('b',)], [0, None], 2)
    """
    texts: dict[tuple[str, ...], int] = {}
    layers: list[int | None] = []
    which, found = [], []
    for path, start in zip(paths, starts, strict=True):
        parts = _NUMBER.split(path)
        text = tuple(parts[::2])
        if text not in texts:
            texts[text] = len(texts)
            before = [] if start is None else _NUMBER.split(start)
            layers.append(len(before) // 2 - 1 if len(before) > 1 and not before[-1] else None)
        which.append(texts[text])
        found.append(parts[1::2])
    most = max(map(len, found), default=0)
    columns = [[int(row[i]) if i < len(row) else None for row in found] for i in range(most)]
    return {
        "texts": list(texts),
        "layers": layers,
        "text": integers(which),
        "numbers": [integers(column) for column in columns],
    }
