"""`s3lora fleet reference`."""

from __future__ import annotations

from pathlib import Path

import click

from s3lora.cli.command import Command
from s3lora.cli.options import format_option
from s3lora.cli.output import check_output, emit, show
from s3lora.fleet.populations.reference import Facts, build_reference, read_facts


@click.group("reference")
def reference_command() -> None:
    """Make a reference population of a dataset: what `scan --reference` holds an adapter against."""


@reference_command.command("build", cls=Command, writes="parquet", short_help="Make a reference of a dataset.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("-o", "--output", required=True, metavar="FILE", help="The reference to write, a Parquet file.")
@click.option("--name", metavar="NAME", help="What results will call it  [default: the name of DIR].")
@click.option("--source", metavar="NAME", help="Where adapters come from: a column, repository, owner or folder.")
def build_command(folder: Path, output: str, name: str | None, source: str | None) -> None:
    """Write how every index is distributed over the adapters of DIR, by base family, projection, rank and layer.

    \b
    s3lora fleet reference build results -o ref.parquet --name "our registry, November"
    s3lora fleet reference build results -o ref.parquet --source repository
    s3lora scan my-adapter --reference ref.parquet
    """
    check_output(output)
    _show(build_reference(folder, Path(output), name, source), output)


@reference_command.command("show", short_help="Say what a reference was made of.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@format_option("json")
def show_command(file: Path, form: str) -> None:
    """Say what a reference was made of: how many adapters, of which bases, and made by which recipes."""
    facts = read_facts(file)
    if form == "json":
        from s3lora.report.documents import to_json

        emit(to_json(facts), None)
    else:
        _show(facts, str(file))


def _show(facts: Facts, file: str) -> None:
    from s3lora.report.reference_text import reference_text

    show(reference_text(facts, file), None)
