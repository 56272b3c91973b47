"""`s3lora compare`."""

from __future__ import annotations

import click

from s3lora.adapter.checkpoints import checkpoints
from s3lora.cli.options import adapters_option, base_weights_option, cost_option, format_option
from s3lora.cli.output import check_output, emit, show
from s3lora.cli.progress import progress_line
from s3lora.measure.comparison import compare
from s3lora.report.documents import compare_csv, to_json
from s3lora.spectrum.methods import METHODS


@click.command("compare")
@click.argument("paths", nargs=-1, required=True, metavar="A B [C...] | RUN")
@adapters_option
@click.option(
    "--method", type=click.Choice(list(METHODS)), default="mas-svd", show_default=True, help="Spectral method."
)
@base_weights_option
@cost_option
@format_option("json", "csv", "html")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file.")
def compare_command(
    paths: tuple[str, ...],
    picked: tuple[str, ...],
    method: str,
    base_weights: str | None,
    max_cost: float,
    form: str,
    output: str | None,
) -> None:
    """Compare adapters of one base model, such as the checkpoints of one run, module by module.

    More than two are each compared with the one before. RUN is a folder with folders checkpoint-N in it; an adapter
    in RUN itself comes last.

    \b
    s3lora compare checkpoint-100 checkpoint-200
    s3lora compare my-adapter pruned --format html --output report.html
    """
    check_output(output)
    given = checkpoints(paths[0]) if len(paths) == 1 else paths
    comparison = compare(
        given, method, adapter=picked, progress=progress_line, max_cost=max_cost, base_weights=base_weights
    )
    if form == "html":
        from s3lora.report.compare_page import compare_page

        emit(compare_page(comparison), output)
    elif form == "json":
        emit(to_json(comparison), output)
    elif form == "csv":
        emit(compare_csv(comparison), output)
    else:
        from s3lora.report.compare_text import compare_text

        show(compare_text(comparison), output)
