"""What a reference population was made of, as text for people."""

from __future__ import annotations

import shlex

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.errors import printable
from s3lora.fleet.populations.reference import Facts
from s3lora.fleet.results.distinct import Recipe
from s3lora.measure.cells import FEWEST
from s3lora.report.blocks import at_most
from s3lora.report.names import NameCell

SHOWN = 10


def reference_text(facts: Facts, file: str) -> RenderableType:
    """Return the size of a reference, its base families and recipes, and how to use it."""
    head = Text.assemble(
        ("reference ", "bold"),
        (printable(facts.name), "bold"),
        f"  {facts.adapters:,} adapters, {facts.modules:,} modules, {facts.settings.scan.method}",
    )
    body: list[RenderableType] = [Text(), _families(facts), Text(), _recipes(facts), Text()]
    if facts.copies:
        body.append(Text(f"{facts.copies:,} copies of these adapters were left out"))
    if facts.checkpoints:
        body.append(Text(f"{facts.checkpoints:,} earlier checkpoints of their runs were left out"))
    if facts.sources is not None:
        body.append(Text(f"{facts.sources:,} sources, by {printable(facts.source, 60)}"))
    if facts.adapters < FEWEST:
        body.append(Text(f"with fewer than {FEWEST} adapters a percentile says little", "yellow"))
    command = shlex.join(["s3lora", "scan", "ADAPTER", "--reference", printable(file, 200)])
    return Group(head, *body, Text(f"next  {command}", "dim"))


def _families(facts: Facts) -> RenderableType:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("base family", ratio=1, no_wrap=True)
    table.add_column("adapters", justify="right", no_wrap=True)
    for family, count in list(facts.families.items())[:SHOWN]:
        table.add_row(NameCell(family), f"{count:,}")
    if len(facts.families) > SHOWN:
        table.add_row(f"… and {len(facts.families) - SHOWN:,} more", "", style="dim")
    return at_most(table)


def _form(recipe: Recipe) -> str:
    return "" if recipe.form in (None, "LoRA") else f"({recipe.form})"


def _recipes(facts: Facts) -> RenderableType:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("recipe, as far as files tell", ratio=1, no_wrap=True)
    for name in ("rank", "alpha", "dropout", "adapters"):
        table.add_column(name, justify="right", no_wrap=True)
    for recipe in facts.recipes[:SHOWN]:
        numbers = (recipe.rank, recipe.lora_alpha, recipe.lora_dropout)
        shown = ("–" if number is None else f"{number:g}" for number in numbers)
        table.add_row(
            NameCell(" ".join(filter(None, (recipe.base_family, recipe.projections, _form(recipe))))),
            *shown,
            f"{recipe.adapters:,}",
        )
    more = len(facts.recipes) - SHOWN + facts.more_recipes
    if more > 0:
        table.add_row(f"… and {more:,} more", "", "", "", "", style="dim")
    return at_most(table)
