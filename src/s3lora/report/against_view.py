"""An adapter against a reference as reports show it: its own two marks, and sentences on what was compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from s3lora.errors import printable
from s3lora.fleet.families import UNKNOWN
from s3lora.measure.against import ENDS, TELLING, Against, Hindrance, Mark, Standing, UnusualWord
from s3lora.measure.cells import FEWEST, MODULE_LEVELS
from s3lora.report.values import NOTHING
from s3lora.spectrum.indices import INDICES

#: What stands for an adapter → how it is called.
SUMMARIES = {"sharpest": "sharpest module", "median": "median of modules"}

#: Why ranks forbid a verdict.
_RANKS: dict[Hindrance, str] = {
    "rank_one": "all its modules have rank 1, of which this index says nothing, whatever the update.",
    "mixed_ranks": (
        "it is compared with adapters of other ranks, or its own modules differ in rank, and this index depends on the"
        " rank."
    ),
}


@dataclass(frozen=True, slots=True)
class AdapterMark:
    """One mark of the adapter itself, with what may be read from it."""

    index: str
    label: str
    mark: Mark
    reading: str


def rows_of(against: Against, index: str) -> tuple[AdapterMark, ...]:
    """Return the adapter's marks by an index, that of its sharpest module first."""
    marks = {} if against.adapter is None else against.adapter.marks
    return tuple(
        AdapterMark(index, label, marks[name], reading(index, against.unusual[name]))
        for summary, label in SUMMARIES.items()
        if (name := f"{index}_{summary}") in marks
    )


def reading(index: str, word: UnusualWord) -> str:
    """Return what may be read from a mark.

    >>> [reading("stable_rank", word) for word in ("low", "no", "unknown")]
    ['unusually low (sharp)', 'not unusual', 'cannot be told']
    """
    if word == "no":
        return "not unusual"
    if word == "unknown":
        return "cannot be told"
    spec = INDICES[index]
    # A norm has a large end, not a sharp one.
    end = f" ({'sharp' if spec.sharp == word else 'blunt'})" if spec.scale_free else ""
    return f"unusually {word}{end}"


def verdict(against: Against, index: str) -> str:
    """Return in a sentence whether the adapter is unusual by an index, which is no judgement on what it does."""
    rows = rows_of(against, index)
    adapter = against.adapter
    if adapter is None:
        return "No module of it has an index, so that nothing can be compared."
    if not rows:
        return "No module of it has this index, or the reference knows none, so that nothing can be compared."
    words = {against.unusual[f"{index}_{summary}"] for summary in SUMMARIES if f"{index}_{summary}" in against.unusual}
    if words & {"high", "low"}:
        return "It is unusual against this reference, which does not tell what it does, nor whether that is harmful."
    if hindered := [why for name, why in against.hindered.items() if name.rpartition("_")[0] == index]:
        return f"Whether it is unusual against this reference cannot be told: {_RANKS[hindered[0]]}"
    independent = adapter.adapters if adapter.sources is None else adapter.sources
    if "unknown" in words and independent < TELLING:
        return (
            f"Whether it is unusual against this reference cannot be told: its cell has {_from(adapter)},"
            f" and no percentile of fewer than {TELLING} is sure to lie beyond the {ENDS[1]:.0f}th."
        )
    if "unknown" in words:
        return (
            "Whether it is unusual against this reference cannot be told: half of its cell or more has one and the"
            " same value."
        )
    return "It is not unusual against this reference, which does not tell what it does, nor that it is harmless."


def remarks(against: Against, index: str) -> Iterator[str]:
    """Yield in sentences with what the adapter and its modules were compared, and what is to be expected by chance."""
    if against.adapter is None:
        return
    yield _family(against)
    yield f"The adapter is compared with {_from(against.adapter)}: {against.adapter.cell}."
    yield from _cells(against)
    if against.coarser:
        finest = MODULE_LEVELS[0].meaning.removeprefix("same ")
        yield (
            f"{against.coarser} of {_modules(len(against.standings))} fell back to a coarser cell: fewer than {FEWEST}"
            f" adapters of the reference share their {finest}."
        )
    yield from _chance(against, index)


def percentile(mark: Mark | None) -> str:
    """Return a percentile without digits, with one where it would else seem to be an end, or one of `ENDS`.

    >>> [percentile(Mark(1.0, p, 0.0, 100.0, None)) for p in (0.0, 0.2, 49.7, 99.8, 100.0)]
    ['0', '0.2', '50', '99.8', '100']
    """
    return NOTHING if mark is None else _percent(mark.percentile)


def interval(mark: Mark) -> str:
    """Return a percentile with its interval.

    >>> interval(Mark(1.0, 98.3, 91.2, 99.95, None))
    '98 [91, 99.9]'
    >>> interval(Mark(1.0, 100.0, 95.4, 100.0, None))
    '100 [95.4, 100]'
    """
    return f"{_percent(mark.percentile)} [{_percent(mark.low)}, {_percent(mark.high)}]"


def robust_z(mark: Mark | None) -> str:
    """Return a robust z with its sign.

    >>> [robust_z(Mark(1.0, 50.0, 40.0, 60.0, z)) for z in (3.94, -0.04, -12345.6, None)]
    ['+3.9', '0.0', '−1.2e+04', '–']
    """
    if mark is None or mark.z is None:
        return NOTHING
    size = abs(mark.z)
    text = f"{size:.1f}" if size < 1000 else f"{size:.1e}"
    return text if text == "0.0" else f"{'−' if mark.z < 0 else '+'}{text}"


def mark_of(against: Against | None, path: str, index: str) -> Mark | None:
    """Return where a module stands by an index, None where that is not known."""
    standing = None if against is None else against.standings.get(path)
    return None if standing is None else standing.marks.get(index)


def _percent(value: float) -> str:
    whole = f"{value:.0f}"
    if whole not in ("0", "5", "95", "100") or value in (0, 100):
        return whole
    return f"{min(max(value, 0.1), 99.9):.1f}"


def _family(against: Against) -> str:
    name = printable(against.base_family, 64)
    if against.base_family == UNKNOWN:
        return f"It names no base model, as {_adapters(against.family_adapters)} of the reference."
    if not against.family_adapters:
        return f"Its base family {name} is not known to the reference: all comparisons are with other bases."
    return f"Its base family {name} has {_adapters(against.family_adapters)} in the reference."


def _cells(against: Against) -> Iterator[str]:
    """Yield for each kind of cell, the finest first, how many modules were compared with one, and its adapters."""
    levels: dict[int, list[Standing]] = {}
    for standing in against.standings.values():
        levels.setdefault(standing.level, []).append(standing)
    for _, found in sorted(levels.items()):
        sizes = sorted({standing.adapters for standing in found})
        n = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        many = "adapter" if sizes == [1] else "adapters"
        yield f"{_modules(len(found))} {'is' if len(found) == 1 else 'are'} compared with {n} {many}: {found[0].cell}."


def _chance(against: Against, index: str) -> Iterator[str]:
    marks = [mark for path in against.standings if (mark := mark_of(against, path, index)) is not None]
    if not marks:
        return
    low, high = ENDS
    sharp = INDICES[index].sharp == "high"
    beyond = sum(mark.percentile > high if sharp else mark.percentile < low for mark in marks)
    where = f"above the {high:.0f}th" if sharp else f"below the {low:.0f}th"
    share = len(marks) / 20
    about = f"{share:.0f}" if share >= 2 else f"{share:.1f}"
    yield f"Of {_modules(len(marks))} about {about} lie {where} percentile by chance; here {beyond} {_do(beyond)}."


def _do(count: int) -> str:
    return "does" if count == 1 else "do"


def _from(standing: Standing) -> str:
    """Return how many adapters a cell has, and of how many sources, where these are known."""
    told = _adapters(standing.adapters)
    return told if standing.sources is None else f"{told} of {standing.sources:,} source{'s'[: standing.sources != 1]}"


def _modules(count: int) -> str:
    return f"{count:,} module{'' if count == 1 else 's'}"


def _adapters(count: int) -> str:
    return f"{count:,} adapter{'' if count == 1 else 's'}"
