"""Reads the columns that the page of a scan has for its script, as docs of `report/packed.py` say they are."""

from __future__ import annotations

import base64
import struct
from typing import Any


def unpack(column: dict[str, Any], count: int) -> list[Any]:
    """Return the numbers of a column, None where there is none."""
    if "plain" in column:
        return list(column["plain"])
    raw = base64.b64decode(column["text"])
    bits = f"{int.from_bytes(raw, 'big'):0{8 * len(raw)}b}" if raw else ""
    wide = column["bits"]
    codes = [int(bits[i * wide : (i + 1) * wide] or "0", 2) for i in range(count)]
    holes = column["holes"]
    return [None if holes and not code else _value(column.get("kind"), column["low"] + code - holes) for code in codes]


def _value(kind: str | None, code: int) -> float:
    if kind == "steps":
        return code / 2**23
    if kind == "single":
        found: float = struct.unpack(">f", struct.pack(">I", code if code >= 0 else 2**31 - code))[0]
        return found
    if kind == "digits":
        return 0.0 if code == -400 * 900 else float(f"{code % 900 + 100}e{code // 900 - 2}")
    return code


def paths(names: dict[str, Any], count: int) -> list[str]:
    """Return the paths that `names` holds."""
    columns = [unpack(column, count) for column in names["numbers"]]
    texts = [names["texts"][i] for i in unpack(names["text"], count)]
    return [
        text[0] + "".join(f"{columns[n][i]}{part}" for n, part in enumerate(text[1:])) for i, text in enumerate(texts)
    ]
