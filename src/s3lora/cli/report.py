"""`s3lora report`."""

from __future__ import annotations

import click

from s3lora.cli.command import Command
from s3lora.cli.output import check_output, emit


@click.command("report", cls=Command, writes="html")
@click.argument("result", metavar="FILE")
@click.option("-o", "--output", metavar="FILE", help="Write the page to a file.")
def report_command(result: str, output: str | None) -> None:
    """Make the page of a result again, from the JSON that a command wrote.

    FILE is the JSON of scan, prune (s3lora.json), compare, eval, sweep, tune, repair or fleet report, or
    the series of a training; older ones are read as well. Nothing is measured: the page shows what stands in the file.

    \b
    s3lora report sweep.json -o sweep.html
    s3lora report pruned/s3lora.json -o pruned.html
    """  # fmt: skip
    check_output(output)
    from s3lora.report.again import page_of

    emit(page_of(result), output)
