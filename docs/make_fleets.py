"""Write the tables of columns in docs/fleets.md, from the schema of the dataset.

    python docs/make_fleets.py

A test fails where they are not what this would write.
"""

from __future__ import annotations

import re
from pathlib import Path

from s3lora.fleet.results.schema import COLUMNS, Column

PAGE = Path(__file__).parent / "fleets.md"
#: A table of columns, by what stands in its head.
TABLE = re.compile(r"\| column of `(\w+)` \|.*?(?=\n\n|\Z)", re.DOTALL)


def table(name: str) -> str:
    """Return the table of the columns of one table of the dataset; those of the signature are one row."""
    rows = [f"| column of `{name}` | type | |", "|---|---|---|"]
    signed = [column for column in _columns(name) if column.name.startswith("signature_")]
    rows += [_row(column) for column in _columns(name) if column not in signed]
    if signed:
        what = f"the [weight-space signature](unusual.md#the-signature), {len(signed)} columns"
        rows.append(
            f"| `signature_q_sigma1`, …, `signature_o_entropy_squared` | double | {what}; null without `--signature` |"
        )
    return "\n".join(rows)


def _columns(name: str) -> tuple[Column, ...]:
    return next(columns for table, columns in COLUMNS.items() if table == name)


def _row(column: Column) -> str:
    null = "" if column.required else "; may be null"
    kind = column.type.replace("<", "&lt;").replace(">", "&gt;")
    return f"| `{column.name}` | {kind} | {column.meaning}{null} |"


def page() -> str:
    """Return the whole page, with its tables as they should be."""
    return TABLE.sub(lambda found: table(found[1]), PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
