"""Answers that nobody knows: how many there are and why, and what they leave open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from s3lora.evaluate.results import MeasureColumn, SuiteOutcome

#: Why an answer is unknown → what is said of so many of them.
WHY = {
    "reasoning": "were cut off inside their reasoning",
    "nothing": "were cut off before they said anything",
    "filtered": "were held back by the server's own filter",
    "prompt": "have a prompt that does not fit into the model's context, and were not asked for",
}


def unknown_counts(found: Sequence[str], suffix: str = "") -> dict[str, int]:
    """Return how many answers are unknown for which reason, by `unknown_REASON`; nothing for those that are known."""
    counts = Counter(found)
    return {f"unknown_{why}{suffix}": counts[why] for why in WHY if counts[why]}


def known_column(known: Sequence[bool], values: Sequence[float | None]) -> MeasureColumn:
    """Return a column of these values in which an answer that is not known has none."""
    numbers = tuple(value if there else None for there, value in zip(known, values, strict=True))
    return MeasureColumn(numbers, unknown=sum(not there for there in known))


def unknown_note(outcome: SuiteOutcome, data: str, suffix: str, measure: str, tokens: int) -> list[str]:
    """Return the sentence on answers that are unknown and, for a rate, the bounds that they leave; none without any."""
    found = {why: outcome.counts.get(f"unknown_{why}{suffix}", 0) for why in WHY}
    unknown = sum(found.values())
    column = outcome.columns.get(measure)
    if not unknown or column is None:
        return []
    why = ", ".join(f"{n} {WHY[name]}" for name, n in found.items() if n)
    known = [value for value in column.values if value is not None]
    total, ones = len(known) + unknown, sum(known)
    note = f"{unknown} of {len(column.values)} answers to {data} are unknown ({why}): {measure} leaves them out"
    if all(value in (0, 1) for value in known):
        note += f", and lies between {ones / total:.2f} and {(ones + unknown) / total:.2f} with them"
    cut = found["reasoning"] + found["nothing"]
    return [note + (f"; give answers more than {tokens} tokens (--tokens)" if cut else "")]
