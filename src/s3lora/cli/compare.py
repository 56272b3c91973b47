"""`s3lora compare`."""

from __future__ import annotations

import click

from s3lora.cli.options import format_option
from s3lora.cli.output import check_output, emit, show
from s3lora.compare import compare
from s3lora.report.documents import compare_csv, to_json
from s3lora.spectrum.methods import METHODS


@click.command("compare", short_help="What changed between two adapters, module by module.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--method", type=click.Choice(list(METHODS)), default="mas-svd", show_default=True, help="Spectral method."
)
@format_option
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file.")
def compare_command(a: str, b: str, method: str, form: str, output: str | None) -> None:
    """Compare two adapters of one base model, or two checkpoints of one run, module by module.

    \b
    s3lora compare checkpoint-100 checkpoint-200
    s3lora compare my-adapter pruned --format csv
    """
    check_output(output)
    comparison = compare(a, b, method)
    if form == "json":
        emit(to_json(comparison), output)
    elif form == "csv":
        emit(compare_csv(comparison), output)
    else:
        from s3lora.report.text import compare_text

        show(compare_text(comparison), output)
