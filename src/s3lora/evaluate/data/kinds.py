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
        """Yield the rows that are of the kind that is wanted, or of none.

        Raises DataFileError where all are of the other kind, or the column cannot tell which are harmless.
        """
        chosen = {one.column for one in self.choice.conditions}
        kept = 0
        left_out: dict[KindColumn, int] = {}
        for line, row in rows:
            kind = kind_of(row) if self.wanted and isinstance(row, Mapping) else None
            if kind is not None and kind.column not in chosen and isinstance(row, Mapping):
                found = kind.of(values_of(row, kind.column)[0])
                if found is not None and self.wanted == "benign" and not kind.benign:
                    raise self._cannot_tell(kind)
                if found not in (None, self.wanted):
                    left_out[kind] = left_out.get(kind, 0) + 1
                    continue
            kept += 1
            yield line, row
        for kind, n in left_out.items():
            meant = f"{self.wanted} by the column {kind.column}"
            if not kept:
                problem = f"holds no prompt that is {meant}"
                raise DataFileError(
                    problem,
                    file=self.where,
                    fix=worded("{where_is}{column}!= takes them all the same", column=kind.column),
                )
            self.notes.append(f"{kept} of {kept + n} rows are {meant}; the others are left out")

    def _cannot_tell(self, kind: KindColumn) -> DataFileError:
        return DataFileError(
            f"holds harmful prompts; its column {kind.column} labels answers and does not tell which are harmless",
            file=self.where,
            fix=worded("{where_is}{column}=true takes those whose answers were safe all the same", column=kind.column),
        )
