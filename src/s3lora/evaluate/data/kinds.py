"""Tables that hold prompts of both kinds: `--harmful` means the harmful ones, `--benign` the harmless ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from s3lora.evaluate.data.choice import Fields, RowChoice, values_of
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.delimited import DataRow
from s3lora.wording import worded

PromptKind = Literal["harmful", "benign"]


@dataclass(frozen=True, slots=True)
class KindColumn:
    """A column that tells harmful prompts from harmless ones, and the values that mean each, as regular expressions.

    `benign` is empty where the column says nothing of harmless prompts: BeaverTails labels answers.
    """

    column: str
    harmful: str
    benign: str

    def of(self, value: str) -> PromptKind | None:
        """Return what a value means, None for one that is not known."""
        if re.fullmatch(self.harmful, value, re.IGNORECASE | re.DOTALL):
            return "harmful"
        return "benign" if re.fullmatch(self.benign or "true", value, re.IGNORECASE | re.DOTALL) else None


#: Columns that mean this in any table; a shape may have another one.
KINDS = (
    KindColumn("label", "unsafe|harmful", "safe|harmless|unharmful|benign"),
    KindColumn("prompt_label", "unsafe|harmful", "safe|harmless|unharmful|benign"),
    KindColumn("prompt_harm_label", "harmful|unsafe", "unharmful|harmless|safe|benign"),
)


@dataclass(slots=True)
class KindFilter:
    """Keeps the rows of one kind, where a column tells; `notes` says afterwards what was left out.

    None of it is done for a column that the choice of the user is about: then he has chosen.
    """

    wanted: PromptKind | None
    choice: RowChoice
    where: object
    notes: list[str] = field(default_factory=list)

    def rows(self, rows: Iterable[DataRow], kind_of: Callable[[Fields], KindColumn | None]) -> Iterator[DataRow]:
        """Yield the rows that are of the kind that is wanted, or of a table without a column that tells.

        Rows of which the column says neither are left out where it tells of others. Raises DataFileError where no row
        is of the kind, or the column cannot tell which are harmless.
        """
        told = [(row, *self._told(row[1], kind_of)) for row in rows]
        telling = dict.fromkeys(column for _, column, kind in told if column is not None and kind is not None)
        kept = [row for row, column, kind in told if column not in telling or kind == self.wanted]
        for column in telling:
            of = [kind for _, one, kind in told if one == column]
            meant = f"{self.wanted} by the column {column.column}"
            if not kept:
                fix = worded("{where_is}{column}!= takes them all the same", column=column.column)
                raise DataFileError(f"holds no prompt that is {meant}", file=self.where, fix=fix)
            if of.count(self.wanted) < len(of):
                neither = f" ({of.count(None)} say neither)" if None in of else ""
                are = f"{of.count(self.wanted)} of {len(of)} rows are {meant}"
                self.notes.append(f"{are}; the others are left out{neither}")
        yield from kept

    def _told(
        self, row: object, kind_of: Callable[[Fields], KindColumn | None]
    ) -> tuple[KindColumn | None, PromptKind | None]:
        """Return the column that tells of a row, None where it is not asked, and what it says, None for neither."""
        column = kind_of(row) if self.wanted and isinstance(row, Mapping) else None
        if column is None or not isinstance(row, Mapping):
            return None, None
        if column.column in {one.column for one in self.choice.conditions}:
            return None, None
        kind = column.of(values_of(row, column.column)[0])
        if kind is not None and self.wanted == "benign" and not column.benign:
            raise self._cannot_tell(column)
        return column, kind

    def _cannot_tell(self, kind: KindColumn) -> DataFileError:
        return DataFileError(
            f"holds harmful prompts; its column {kind.column} labels answers and does not tell which are harmless",
            file=self.where,
            fix=worded("{where_is}{column}=true takes those whose answers were safe all the same", column=kind.column),
        )
