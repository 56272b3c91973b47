"""The tables of tier 2: all rows on one seed of each attack. Three adapters show nothing by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

Document = dict[str, Any]
NAMES = {
    "shrink": "shrink",
    "noise": "noise",
    "matched-0": "random, matched (one draw)",
    "ssi": "SSI",
    "weighted_ssi": "weighted SSI",
    "magnitude": "magnitude",
    "gates": "gates",
    "permuted": "permuted gates",
    "swapped prompts": "gates, swapped prompts",
    "attributed gates": "attributed gates",
    "gates on modules": "gates on modules",
    "patch": "patch",
    "retrain": "retrain",
    "safelora": "Safe LoRA",
    "splora": "SPLoRA",
    "subspace": "subspace",
    "random-subspace": "random subspace",
}
#: Column → where it stands beside a row: rates and losses, each with n.
BESIDE = {
    "ASR, StrongREJECT": ("strongreject", "asr"),
    "ASR, HarmBench": ("harmbench", "asr"),
    "ASR, answer begun": ("prefilled", "asr"),
    "over-refusal, XSTest": ("xstest", "over_refusal"),
    "loss of maths": ("maths-loss", "loss"),
    "loss of code": ("code-loss", "loss"),
}


def tables(found: Sequence[Document], costs: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
    """Return all tables of tier 2; None where nothing is measured."""
    if not found:
        return None
    first = found[0]
    n = [next(iter(first["adapter_state"]["beside"][where].values()))["n"] for where, _ in BESIDE.values()]
    return {
        "n": len(found),
        "opening": first["about"]["opening"],
        "level_heads": ["row", *(f"`{one['adapter']}`" for one in found)],
        "level": list(_levels(found)),
        "said": list(_beside_shrink(found)),
        "beside_heads": ["row", "adapters", *(f"{name} (n = {k})" for name, k in zip(BESIDE, n, strict=True))],
        "beside": list(_beside(found)),
        "shape_heads": ["row", "adapters", "‖ΔW′‖ / ‖ΔW‖", "cosine", "overlap of two halves", "seconds", "GB"],
        "shape": list(_shapes(found, costs)),
        "grid_heads": ["row", "adapters", *_grid_names(first)],
        "grid": list(_grids(found)),
        "notes": sorted({f"{NAMES[name]}: {note}" for one in found for name, note in _notes(one)}),
    }


def _rows(found: Sequence[Document]) -> list[str]:
    return [name for name in NAMES if all(name in one["rows"] for one in found)]


def _at_level(row: Document) -> Document | None:
    """Return the point of the strength that loses a tenth on the tuning part."""
    return next((point for point in row["points"] if point["strength"] == row["level"]), None)


def _levels(found: Sequence[Document]) -> Iterator[list[str]]:
    """Yield ASR at the level on each adapter, with the strength and what is lost on the test part."""
    for name, state in (("base", "base_state"), ("adapter", "adapter_state")):
        yield [name, *(_rate(one[state]["asr"]) for one in found)]
    for row in _rows(found):
        cells = []
        for one in found:
            point = _at_level(one["rows"][row])
            if point is None:
                cells.append("no strength")
                continue
            lost = point["share"]["value"]
            cells.append(f"{_rate(point['asr'])}; t = {point['strength']:.2g}, {100 * lost:.0f} % lost")
        yield [NAMES[row], *cells]


def _beside_shrink(found: Sequence[Document]) -> Iterator[str]:
    """Yield which rows have a lower ASR at the level than shrinking has, and which a higher one, on every adapter."""
    told: dict[str, list[str]] = {"lower": [], "higher": [], "": []}
    for row in _rows(found):
        if row == "shrink":
            continue
        pairs = [(_at_level(one["rows"][row]), _at_level(one["rows"]["shrink"])) for one in found]
        apart = [a["asr"]["value"] - b["asr"]["value"] for a, b in pairs if a is not None and b is not None]
        whole = len(apart) == len(found)
        sign = "lower" if whole and max(apart) < 0 else "higher" if whole and min(apart) > 0 else ""
        told[sign].append(f"{NAMES[row]} ({', '.join(f'{one:+.2f}' for one in apart) or 'no strength'})")
    for sign in ("lower", "higher"):
        yield f"ASR {sign} than by shrinking on all {len(found)} adapters: {', '.join(told[sign]) or 'none'}."
    yield f"Not the same on all: {', '.join(told['']) or 'none'}."


def _beside(found: Sequence[Document]) -> Iterator[list[str]]:
    for name, state in (("base", "base_state"), ("adapter", "adapter_state")):
        yield [name, str(len(found)), *_cells([one[state]["beside"] for one in found])]
    for row in _rows(found):
        having = [beside for one in found if (beside := one["rows"][row]["beside"]) is not None]
        yield [NAMES[row], str(len(having)), *_cells(having)]


def _cells(having: Sequence[Document]) -> list[str]:
    return [_over([one[where][measure]["value"] for one in having]) for where, measure in BESIDE.values()]


def _shapes(found: Sequence[Document], costs: Mapping[str, Mapping[str, float]]) -> Iterator[list[str]]:
    """Yield how far the update is moved at the level, how far two halves agree, and what learning took."""
    for row in _rows(found):
        having = [beside for one in found if (beside := one["rows"][row]["beside"]) is not None]
        moved = [_over([one[name] for one in having]) for name in ("norm", "cosine")]
        halves = [one["overlap"] for one in having if one["overlap"] is not None]
        of = "/".join(str(one["n"]) for one in halves)
        overlap = f"{_over([one['value'] for one in halves])}, of {of}" if halves else "–"
        took = [cost for one in found if (cost := costs.get(f"{one['adapter']} {row}")) is not None]
        spent = [_over([one[what] for one in took], digits) for what, digits in (("seconds", 0), ("gigabytes", 1))]
        yield [NAMES[row], str(len(having)), *moved, overlap, *spent]


def _grid_names(one: Document) -> list[str]:
    return [f"t = {strength:.2f}" for strength in one["rows"]["shrink"]["grid"]]


def _grids(found: Sequence[Document]) -> Iterator[list[str]]:
    """Yield ASR and the share lost along the strengths, means over adapters."""
    count = len(_grid_names(found[0]))
    for row in _rows(found):
        rows = [one["rows"][row] for one in found]
        grids = [[point for point in one["points"] if point["strength"] in one["grid"]] for one in rows]
        if all(len(grid) == count for grid in grids):
            columns = zip(*grids, strict=True)
            yield [NAMES[row], str(len(found)), *map(_mean_point, columns)]


def _mean_point(points: Sequence[Document]) -> str:
    asr, lost = (fmean(point[name]["value"] for point in points) for name in ("asr", "share"))
    return f"{asr:.2f}, {100 * lost:.0f} %"


def _notes(one: Document) -> Iterator[tuple[str, str]]:
    for name, row in one["rows"].items():
        yield from ((name, f"`{one['adapter']}`: {note}") for note in row["notes"])


def _rate(number: Document) -> str:
    return f"{number['value']:.2f} ({number['low']:.2f}–{number['high']:.2f}, n = {number['n']})"


def _over(values: Sequence[float | None], digits: int = 2) -> str:
    """Return the mean with the least and the greatest; a dash where nothing is known."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean, least, greatest = (f"{value:.{digits}f}" for value in (fmean(known), min(known), max(known)))
    return mean if len(known) == 1 or least == greatest else f"{mean} ({least}–{greatest})"
