"""A surveyed population as its page shows it: names that may be passed on, and numbers as text. Nothing is computed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from s3lora.errors import printable
from s3lora.fleet.populations.distributions import Distribution, Group
from s3lora.fleet.populations.standing import Mark
from s3lora.fleet.populations.survey import Survey
from s3lora.fleet.populations.unusual import Ranking, UnusualAdapter
from s3lora.measure.against import ENDS, FAR, TELLING
from s3lora.report.compare_view import number
from s3lora.report.heatmap import row_key
from s3lora.report.values import count
from s3lora.spectrum.indices import INDICES

#: With so many adapters, one in a thousand is a number of them.
MANY = 1000
#: Characters of a uri that are shown.
LONGEST = 120
#: When an adapter is unusual; see `against.unusual`.
RULE = (
    f"that takes a robust z beyond ±{FAR:g} and a percentile whose 95 % interval lies wholly above {ENDS[1]:g} or below"
    f" {ENDS[0]:g}, by one of two numbers"
)
_PRIVATE = re.compile(r"^([a-z][a-z0-9+.-]*://)[^/@]*@", re.IGNORECASE)


def label(uri: str, inputs: Sequence[str] = ()) -> str:
    """Return a uri as a page shows it, since a page is passed on: without private folders, passwords and signatures.

    A path from the root begins with the last folder of the input that it was found in.

    >>> label("/home/me/adapters/run/one", ["/home/me/adapters"])
    'adapters/run/one'
    >>> label("https://me:secret@example.org/a.safetensors?signature=1")
    'https://example.org/a.safetensors'
    """
    if "://" in uri:
        return _short(_PRIVATE.sub(r"\1", re.split(r"[?#]", uri)[0]))
    path = PurePosixPath(uri.replace("\\", "/"))
    if not (path.is_absolute() or re.match(r"[A-Za-z]:/", str(path))):
        return _short(uri)
    folders = [folder for one in inputs if (folder := PurePosixPath(one.replace("\\", "/"))) in (path, *path.parents)]
    if folders:
        inner = max(folders, key=lambda folder: len(folder.parts))
        return _short(str(PurePosixPath(inner.name) / path.relative_to(inner)))
    return _short("/".join(path.parts[-2:]).lstrip("/"))


def _short(text: str) -> str:
    clean = printable(text, 4096)
    return clean if len(clean) <= LONGEST else f"…{clean[1 - LONGEST :]}"


def group_label(group: Group) -> str:
    """Return the name of a group, or how many were joined into it."""
    return group.name if group.joined == 1 else f"{group.joined} others"


def ordered(groups: Sequence[Group], *, by_name: bool = False) -> list[Group]:
    """Return the groups as they are, the largest first, or in the order in which a transformer uses projections."""
    if not by_name:
        return list(groups)
    return sorted(groups, key=lambda group: (group.joined > 1, row_key(group.name)))


def percentile_text(mark: Mark) -> str:
    """Return a percentile with its interval."""
    return f"{_percent(mark.percentile)} [{_percent(mark.low)}, {_percent(mark.high)}]"


def _percent(value: float) -> str:
    """Return a percentile with as many decimals as tell it from an end.

    >>> [_percent(value) for value in (50.04, 99.5, 99.987, 100.0)]
    ['50.0', '99.5', '99.99', '100']
    """
    if value in (0.0, 100.0):
        return f"{value:.0f}"
    decimals = 1 if 0.05 <= value <= 99.95 else 2
    return f"{min(max(value, 0.01), 99.99):.{decimals}f}"


def z_text(z: float | None) -> str:
    """Return a robust z with its sign.

    >>> [z_text(z) for z in (None, 0.0, 3.456, -12.5, 123.4)]
    ['–', '0.0', '+3.5', '−12.5', '+123']
    """
    if z is None:
        return number(None)
    size = f"{abs(z):.1f}" if abs(z) < 100 else f"{abs(z):.0f}" if abs(z) < 1e5 else f"{abs(z):.1e}"
    return size if not size.strip("0.") else f"{'−' if z < 0 else '+'}{size}"


def farther(one: UnusualAdapter) -> Mark:
    """Return the mark that counts: the one whose z is farther from 0."""
    return one.sharpest if one.sharpest.z is not None and abs(one.sharpest.z) >= abs(one.z) else one.median


def place_tag(one: UnusualAdapter) -> str | None:
    """Return why it cannot be told whether an adapter is unusual, in a word or two; None where it can."""
    if one.hindered == "mixed_ranks":
        return "mixed ranks"
    if one.verdict != "unknown":
        return None
    return "too few to tell" if one.adapters < TELLING else "cannot be told"


def is_unusual(one: UnusualAdapter) -> bool:
    """Return whether an adapter is unusual, at whichever end."""
    return one.verdict in ("high", "low")


def unusual_text(ranking: Ranking) -> str:
    """Return how many adapters are unusual, by what rule, and of how many that cannot be told."""
    where = "against this reference" if ranking.against == "reference" else "in this population"
    some, verb = count(ranking.unusual), "is" if ranking.unusual == 1 else "are"
    if not ranking.unusual:
        some, verb = "None", "can be called" if ranking.few + ranking.mixed == ranking.adapters else "is"
    return f"{some} of {_adapters(ranking.adapters)} {verb} unusual {where}: {RULE}.{_untold(ranking)}"


def _untold(ranking: Ranking) -> str:
    few, mixed = ranking.few, ranking.mixed
    reasons = []
    if few:
        reasons.append(
            f"of {count(few)} that {'has' if few == 1 else 'have'} fewer than {TELLING} adapters to be compared with"
        )
    if mixed:
        verb, name = "is" if mixed == 1 else "are", INDICES[ranking.index].title
        reasons.append(f"of {count(mixed)} that {verb} compared over several ranks, on which the {name} depends")
    return f" It cannot be told {', and '.join(reasons)}." if reasons else ""


def rank_one_text(ranking: Ranking) -> str | None:
    """Return how many adapters of rank 1 have no place in a ranking by this index, and why; None if there are none."""
    many = ranking.rank_one
    if not many:
        return None
    verb, whose = ("is", "its") if many == 1 else ("are", "their")
    index = INDICES[ranking.index]
    return f"{_adapters(many)} of rank 1 {verb} not ranked: {whose} {index.title} {index.at_rank_one}."


def _adapters(number_of: int) -> str:
    return f"{count(number_of)} adapter{'' if number_of == 1 else 's'}"


def chance(adapters: int) -> str:
    """Return how many of so many adapters lie beyond a percentile by chance alone.

    >>> chance(98_537)
    'about one adapter in 1,000 lies above the 99.9th percentile of its kind: some 99 of these 98,537'
    """
    share, name = (1000, "99.9th") if adapters >= MANY else (20, "95th")
    some = max(1, round(adapters / share))
    return (
        f"about one adapter in {count(share)} lies above the {name} percentile of its kind:"
        f" some {count(some)} of these {count(adapters)}"
    )


def facts(survey: Survey) -> Iterable[tuple[str, str]]:
    """Yield (term, text) of what the population holds."""
    census = survey.census
    yield "adapters", count(census.adapters)
    if census.distinct != census.adapters:
        yield "distinct", count(census.distinct)
    yield "LoRA modules", count(census.modules)
    yield "LoRA parameters", scaled(census.parameters)
    yield "base families", count(census.families)
    if set(survey.forms) - {"LoRA"}:
        yield "stored as", ", ".join(f"{form} {count(modules)}" for form, modules in survey.forms.items())
    if census.zero_modules:
        yield "zero updates", count(census.zero_modules)
    if census.nonfinite_modules:
        yield "modules with NaN or infinity", count(census.nonfinite_modules)
    yield "errors", count(census.errors)


def scaled(value: int) -> str:
    """Return a large number as people say it.

    >>> [scaled(value) for value in (999, 147_808_576, 823_513_907_200)]
    ['999', '148 million', '824 billion']
    """
    for size, name in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return count(value)


def bin_label(one: Distribution, i: int) -> str:
    """Return the values of a bin; the outer ones of the fixed scale hold what lies beyond them too."""
    return f"{number(one.edges[i])} – {number(one.edges[i + 1])}"
