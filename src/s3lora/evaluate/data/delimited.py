"""Tables as text: cells between commas, tabs or semicolons, below a line with the names of the columns.

Which of the three it is, is told from the first line and held against the lines below. A text without a known column is
taken for plain text only where nothing looks like a table: what is half of one is an error that says how to tell.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from s3lora.errors import printable
from s3lora.evaluate.data.content import DataFileError

#: Where a row stands ("line 3"), and the row: a text or fields.
DataRow = tuple[str, object]

DELIMITERS = (",", "\t", ";")
#: Rows that a delimiter is held against; lines that must agree before they look like a table without a header.
TRIED = 50
AGREEING = 3
#: The name of a column: short, with no mark that ends a sentence, and not after a space, as words after a comma are.
NAME = re.compile(r"\w[\w./()#-]{0,39}(?: [\w./()#-]{1,20}){0,2}")


def delimiter_of(text: str, known: Collection[str]) -> str:
    """Return what parts the cells of a table: of those under which the first line has a known column, the best.

    The best one fits the rows below and makes the most columns; of equals, the comma. `known` is in lower case.
    """
    headers = {one: _header(text, one) for one in DELIMITERS}
    named = [one for one, header in headers.items() if known_column(header, known)]
    return max(named or DELIMITERS, key=lambda one: (_fits(text, one, len(headers[one])), len(headers[one])))


def is_table(text: str, known: Collection[str]) -> bool:
    """Return whether the first line names a known column."""
    return any(known_column(_header(text, one), known) for one in DELIMITERS)


def known_column(header: Collection[str], known: Collection[str]) -> bool:
    """Return whether one of the names is known, in any case."""
    return any(name.strip().lower() in known for name in header)


def looks_like_table(text: str) -> list[str] | None:
    """Return the cells of the first line where a text without a known column looks like a table, else None.

    It does where the first line is made of names, or where its lines have equally many tabs, or commas or semicolons
    without the space that follows them in prose. A text whose first line is a comment (`# …`) never does.

    >>> looks_like_table("topic,wording\\na,b"), looks_like_table("Hello, world\\nHi, you")
    (['topic', 'wording'], None)
    """
    lines = [line for line in islice(io.StringIO(text), 10 * TRIED) if line.strip()][:TRIED]
    if not lines or re.match(r"#(\s|$)", lines[0]):
        return None
    for one in DELIMITERS:
        header = _header(lines[0], one)
        if len(header) > 1 and len({*header}) == len(header) and all(NAME.fullmatch(name) for name in header):
            return header
    for one in DELIMITERS:
        counts = {len(re.findall(rf"{one}(?! )", line.strip("\r\n"))) for line in lines}
        if len(lines) >= AGREEING and len(counts) == 1 and counts != {0}:
            return _header(lines[0], one)
    return None


def delimited_rows(text: str, where: object, delimiter: str) -> Iterator[DataRow]:
    """Yield the rows of a table; raise DataFileError, with the line, where it is none."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    line = "line 1"
    try:
        header = next(reader, [])
        refuse_double(header, where)
        while True:
            # A text may hold line breaks: name the line where its row begins.
            line = f"line {reader.line_num + 1}"
            row = next(reader, None)
            if row is None:
                return
            if len(row) > len(header):
                fix = "put a text that holds commas in quotation marks"
                raise DataFileError(f"{line} has more cells than the first line", file=where, fix=fix)
            if row:
                yield line, dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise DataFileError(f"{line} is not CSV ({printable(error, 80)})", file=where) from None


def refuse_double(names: Iterable[str], where: object) -> None:
    """Raise DataFileError where two columns have one name, in whatever case; columns without a name may be several."""
    counts = Counter(name.strip().lower() for name in names)
    if double := next((name for name, count in counts.items() if name and count > 1), None):
        problem = f"has {counts[double]} columns called {printable(double, 40)}"
        raise DataFileError(problem, file=where, fix="rename all but the one that is meant")


def _header(text: str, delimiter: str) -> list[str]:
    """Return the cells of the first line, also where its quotation marks are no CSV."""
    try:
        return next(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter), [])
    except csv.Error:
        return [cell.strip(' "') for cell in text.partition("\n")[0].rstrip("\r").split(delimiter)]


def _fits(text: str, delimiter: str, columns: int) -> bool:
    """Return whether no row among the first has more cells than there are columns."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        return all(len(row) <= columns for row in islice(rows, TRIED))
    except csv.Error:
        return False
