"""Which rows of a table are meant, and which column holds the prompt: `--where label=unsafe`, `--prompt-field NAME`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3lora.errors import UsageError, printable
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.delimited import DataRow, refuse_double
from s3lora.wording import Worded, worded

#: The inputs of an evaluation that are read as rows; an option that names one before a colon is for it alone.
INPUTS = ("harmful", "benign", "references", "tasks", "maths", "code")
CONDITION = re.compile(r"(.+?)(!=|=)(.*)", re.DOTALL)
#: Columns and values that an error lists, and the most different values of a column that are counted.
LISTED = 12
COUNTED = 1_000

#: A row whose columns are in lower case.
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowCondition:
    """A column (in lower case) and a value that its rows have, or do not have."""

    column: str
    value: str
    equal: bool = True

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{self.column}{'=' if self.equal else '!='}{self.value}"

    def holds(self, fields: Fields) -> bool:
        """Return whether a row has this value, or one of its values where the cell is a list; case does not count."""
        return self.equal == (
            self.value.strip().casefold() in {one.casefold() for one in values_of(fields, self.column)}
        )


@dataclass(frozen=True, slots=True)
class RowChoice:
    """The column of the prompt, None where it is known by its name, and what holds of the rows that are meant.

    Of several conditions `=` on one column, one must hold; all others must.
    """

    prompt_field: str | None = None
    conditions: tuple[RowCondition, ...] = ()

    def holds(self, fields: Fields) -> bool:
        """Return whether a row is meant."""
        wanted: dict[str, bool] = {}
        for one in self.conditions:
            if one.equal:
                wanted[one.column] = wanted.get(one.column, False) or one.holds(fields)
            elif not one.holds(fields):
                return False
        return all(wanted.values())


#: All rows, and the prompt where it is known to be.
EVERY_ROW = RowChoice()


def values_of(fields: Fields, column: str) -> list[str]:
    """Return a cell as texts: more than one for a list, and `category.theft` for what is inside an object.

    >>> values_of({"tags": ["a", "b"], "is_safe": True}, "is_safe")
    ['true']
    """
    value: Any = fields.get(column)
    if column not in fields and "." in column:
        outer, _, inner = column.partition(".")
        found = fields.get(outer)
        value = found.get(inner) if isinstance(found, Mapping) else None
    values = value if isinstance(value, list) else [value]
    return [str(one).lower() if isinstance(one, bool) else str(one).strip() for one in values if one is not None] or [
        ""
    ]


def choices(
    where: Sequence[str], prompt_fields: Sequence[str], given: Collection[str], inputs: Sequence[str] = INPUTS
) -> dict[str, RowChoice]:
    """Return the choice for each input that is given, from the options as they are written.

    `benign:label=safe` is for that one of the `inputs` alone, `label=safe` for all. Raises UsageError for what cannot
    be read, and for an option that is for no input.

    >>> choices(["label=unsafe"], [], ["harmful"])["harmful"].conditions
    (RowCondition(column='label', value='unsafe', equal=True),)
    """
    conditions: dict[str, list[RowCondition]] = {name: [] for name in given}
    fields: dict[str, str] = {}
    for text in where:
        one, rest = _scope(text, inputs)
        condition = _condition(text, rest)
        for name in _scopes(text, "where", one, given):
            conditions[name].append(condition)
    for text in prompt_fields:
        one, rest = _scope(text, inputs)
        for name in _scopes(text, "prompt_field", one, given):
            column = rest.strip().lower()
            if not column or fields.get(name, column) != column:
                problem = worded(
                    "{prompt_field_is}{given} names no column, or a second one for {name}",
                    given=printable(text, 60),
                    name=name,
                )
                raise UsageError(problem, fix="name the column that holds the prompts")
            fields[name] = column
    return {name: RowChoice(fields.get(name), tuple(conditions[name])) for name in given}


def _condition(text: str, rest: str) -> RowCondition:
    found = CONDITION.fullmatch(rest)
    if found is None or not found[1].strip():
        raise UsageError(
            worded("{where_is}{given} cannot be read", given=printable(text, 60)),
            fix="write COLUMN=VALUE or COLUMN!=VALUE",
        )
    return RowCondition(found[1].strip().lower(), found[3].strip(), found[2] == "=")


def _scope(text: str, inputs: Collection[str]) -> tuple[str | None, str]:
    """Return the input that an option is for, None for all, and what it says."""
    one, colon, rest = text.partition(":")
    return (one, rest) if colon and one in inputs else (None, text)


def _scopes(text: str, option: str, one: str | None, given: Collection[str]) -> list[str]:
    names = [name for name in given if one in (None, name)]
    if not names:
        needed = Worded(f"{one}=", f"--{one.replace('_', '-')} FILE") if one else "a file of one's own"
        raise UsageError(
            worded("{" + option + "_is}{given} does nothing without {needed}", given=printable(text, 60), needed=needed)
        )
    return names


def chosen_rows(rows: Iterable[DataRow], choice: RowChoice, where: object) -> Iterator[DataRow]:
    """Yield the rows that are meant, with their columns in lower case.

    Raises DataFileError, which names the columns, where one that the choice asks for is in no row, and, with the
    values that there are, where no row is left.
    """
    columns: dict[str, str] = {}
    counts: dict[str, Counter[str]] = {one.column: Counter() for one in choice.conditions}
    seen = left = 0
    for line, row in rows:
        seen += 1
        if not isinstance(row, Mapping):
            if isinstance(row, str) and (choice.conditions or choice.prompt_field):
                raise DataFileError(
                    "is plain text without columns", file=where, fix=worded("leave out {where}, {prompt_field}")
                )
            left += 1
            yield line, row
            continue
        fields = {str(name).strip().lower(): value for name, value in row.items()}
        if len(fields) < len(row):
            refuse_double(map(str, row), where)
        if len(columns) < COUNTED:
            columns.update((name, str(given).strip()) for name, given in zip(fields, row, strict=False))
        _check_prompt_field(choice, fields, line, where)
        for column, values in counts.items():
            if column in fields or column.partition(".")[0] in fields:
                values.update(one for one in values_of(fields, column) if len(values) < COUNTED or one in values)
        if choice.holds(fields):
            left += 1
            yield line, fields
    if seen and not left:
        raise _nothing_left(choice, columns.values(), counts, where)
    # A row may lack a column that others have; a column that no row has is a mistake, also for `!=`.
    for column, values in counts.items():
        if seen and not values:
            raise _no_column(column, columns.values(), where)


def _check_prompt_field(choice: RowChoice, fields: Fields, line: str, where: object) -> None:
    if choice.prompt_field is not None and choice.prompt_field not in fields:
        raise DataFileError(
            f"{line} has no column {printable(choice.prompt_field, 40)}; its columns are {listed(fields)}",
            file=where,
            fix=worded("{prompt_field} names one of them; write INPUT:NAME where it is for one input alone"),
        )


def _nothing_left(
    choice: RowChoice, columns: Collection[str], counts: Mapping[str, Counter[str]], where: object
) -> DataFileError:
    for one in choice.conditions:
        if not counts[one.column]:
            return _no_column(one.column, columns, where)
    there = "; ".join(
        f"{printable(column, 40)} is {listed([value for value, _ in values.most_common(LISTED + 1)])}"
        for column, values in counts.items()
    )
    asked = " and ".join(printable(one, 60) for one in choice.conditions)
    return DataFileError(
        f"has no row with {asked}: {there}", file=where, fix=worded("{where} takes one of these values")
    )


def _no_column(column: str, columns: Collection[str], where: object) -> DataFileError:
    problem = f"has no column {printable(column, 40)}; its columns are {listed(columns)}"
    fix = worded("{where} takes one of them; write INPUT:COLUMN=VALUE where it is for one input alone")
    return DataFileError(problem, file=where, fix=fix)


def listed(names: Iterable[str]) -> str:
    """Return some names for a sentence, each of them cut short: a first line may be a prompt."""
    found = list(names)
    shown = ", ".join(printable(name, 40) or '""' for name in found[:LISTED])
    return shown + (f" and {len(found) - LISTED} more" if len(found) > LISTED else "") if found else "none"
