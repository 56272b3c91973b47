"""Notes of a measurement, each told once: what is said of several variants or sets of data in the same words is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from s3lora.evaluate.results import Evaluation, SuiteInfo, Sweep, Tuning
from s3lora.repair.results import Repair

#: Names before a note that are shown; a sweep may have a hundred.
NAMED = 3


def once(notes: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the notes in their order, those that differ in nothing but the name before the colon as one.

    >>> once(["base: 2 answers were cut off", "few items", "pruned: 2 answers were cut off"], ["base", "pruned"])
    ['base and pruned: 2 answers were cut off', 'few items']
    """
    known = sorted(set(names), key=len, reverse=True)  # a name may begin with another
    said: dict[tuple[str, bool], dict[str, None]] = {}
    for note in notes:
        name = next((name for name in known if note.startswith(f"{name}: ")), None)
        if name is None:
            said.setdefault((note, False), {})
        else:
            said.setdefault((note[len(name) + 2 :], True), {})[name] = None
    return [f"{_listed(list(found))}: {text}" if found else text for (text, _), found in said.items()]


def names_in(result: Evaluation | Sweep | Tuning | Repair) -> set[str]:
    """Return the names that notes on a result begin with: of variants, prunings and data."""
    names = data_names(result.suites)
    if isinstance(result, Evaluation):
        return names | {variant.name for variant in result.variants}
    if isinstance(result, Repair):
        states = (result.base, result.adapter, result.repaired, result.shrunk)
        return names | {state.name for state in states if state is not None}
    points = result.points if isinstance(result, Sweep) else result.tried
    return names | {one.variant for point in points for one in point.comparisons}


def data_names(suites: Sequence[SuiteInfo]) -> set[str]:
    """Return the names of all data of some suites."""
    return {data.name for suite in suites for data in suite.data}


def _listed(names: Sequence[str]) -> str:
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
