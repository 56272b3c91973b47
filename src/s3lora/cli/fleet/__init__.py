"""`s3lora fleet`: commands for many adapters."""

from __future__ import annotations

import click

from s3lora.cli.lazy import LazyGroup

COMMANDS = {
    "scan": "Scan many adapters into one dataset.",
    "report": "Look at a population: distributions, what is unusual, errors, duplicates.",
    "query": "Ask a dataset in SQL.",
    "reference": "Make a reference population, or look at one.",
}


@click.group("fleet", cls=LazyGroup, package="s3lora.cli.fleet", about=COMMANDS)
def fleet_command() -> None:
    """Scan many adapters into one dataset, and say what is unusual among them.

    \b
    s3lora fleet scan adapters --out results            one Parquet dataset of all of them
    s3lora fleet report results -o population.html      look at it
    s3lora fleet query results "SELECT ..."             ask it
    """
