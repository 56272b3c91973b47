"""A composition as text for people: which modules become sharper together, and how each pair of adapters lies."""

from __future__ import annotations

from itertools import combinations
from statistics import median

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.choose.ties import rounded
from s3lora.measure.composition import Composition
from s3lora.measure.scan import FLAT
from s3lora.measure.summing import Alignment, ModuleComposition
from s3lora.report.blocks import at_most, warned
from s3lora.report.compare_view import cosine, known, number, signed
from s3lora.report.names import NameCell, tail

SHOWN = 10
#: Adapters that the title names, and pairs that are shown.
NAMED, PAIRS = 4, 10
#: Says nothing of an adapter that is a file.
SUFFIX = ".safetensors"


def compose_text(composition: Composition, shown: int = SHOWN) -> RenderableType:
    """Return the sum in words, the `shown` modules whose energy gains most, and every pair in medians."""
    compared = [module for module in composition.modules if module.gain is not None]
    ranked = sorted(compared, key=lambda module: -rounded(module.gain or 0.0, scale_free=True))
    body: list[RenderableType] = [_title(composition), Text(), _verdict(compared)]
    if ranked and shown:
        body += [Text(), _gains(ranked, shown)]
    pairs = _pairs(composition)
    if pairs:
        body += [Text(), _alignments(composition, pairs)]
    return Group(*body, *warned(composition.warnings))


def _title(composition: Composition) -> Text:
    text = Text()
    for i, (source, weight) in enumerate(zip(composition.sources[:NAMED], composition.weights, strict=False)):
        sign = "" if i == 0 and weight >= 0 else "− " if weight < 0 else "+ "
        times = "" if abs(weight) == 1 else f"{abs(weight):g}·"
        text.append(f"{' ' if i else ''}{sign}{times}")
        text.append(tail(source.name, 30), "bold")
    if len(composition.sources) > NAMED:
        text.append(" + …")
    facts = [f"{len(composition.sources)} adapters", f"{len(composition.modules)} modules"]
    text.append(f"\n{' · '.join([*facts, f'method {composition.configuration.method}'])}", "dim")
    return text


def _verdict(compared: list[ModuleComposition]) -> Text:
    if not compared:
        return Text("No module has an update in more than one adapter that does not cancel.", "bold")
    count = sum(module.sharper for module in compared)
    return Text.assemble(
        (f"{count or 'None'} of {len(compared)} modules", "bold"),
        f" {'are' if count > 1 else 'is'} sharper together than any adapter alone,",
        f" by {FLAT} or more of energy, the share of ‖ΔW‖² in the first direction.",
    )


def _gains(ranked: list[ModuleComposition], shown: int) -> RenderableType:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("alone → together", ratio=1, no_wrap=True)
    for name in ("energy", "gain", "ssi", "‖ΔW‖"):
        table.add_column(name, justify="right", no_wrap=True)
    for module in ranked[:shown]:
        cells = [_step(module, "energy"), signed(module.gain), _step(module, "ssi"), number(_of(module, "frobenius"))]
        table.add_row(NameCell(module.path), *cells, style="bold" if module.sharper else "")
    if len(ranked) > shown:
        table.add_row(f"… and {len(ranked) - shown} more", *[""] * 4, style="dim")
    return at_most(table)


def _step(module: ModuleComposition, name: str) -> str:
    """Return the greatest value of the adapters alone, and that of the sum."""
    alone = known([None if update is None else update.indices[name] for update in module.alone])
    return f"{number(max(alone, default=None))} → {number(_of(module, name))}"


def _of(module: ModuleComposition, name: str) -> float | None:
    return None if module.together is None else module.together.indices[name]


def _pairs(composition: Composition) -> dict[tuple[int, int], list[Alignment]]:
    found: dict[tuple[int, int], list[Alignment]] = {}
    for pair in combinations(range(len(composition.sources)), 2):
        of_pair = [one for module in composition.modules for one in module.alignments if one.pair == pair]
        if of_pair:
            found[pair] = of_pair
    return found


def _alignments(composition: Composition, pairs: dict[tuple[int, int], list[Alignment]]) -> RenderableType:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("overlaps (by chance), medians", ratio=1, no_wrap=True)
    for name in ("modules", "cosine", "columns", "rows"):
        table.add_column(name, justify="right", no_wrap=True)
    for (i, j), found in list(pairs.items())[:PAIRS]:
        sides = [[one.columns for one in found], [one.rows for one in found]]
        overlaps = [f"{_middle([s.mean_square for s in side])} ({_middle([s.chance for s in side])})" for side in sides]
        both = " · ".join(tail(composition.sources[k].name.removesuffix(SUFFIX), 17) for k in (i, j))
        table.add_row(NameCell(both), str(len(found)), cosine(median(one.cosine for one in found)), *overlaps)
    if len(pairs) > PAIRS:
        table.add_row(f"… and {len(pairs) - PAIRS} more", *[""] * 4, style="dim")
    return at_most(table)


def _middle(values: list[float]) -> str:
    return f"{median(values):.2f}"
