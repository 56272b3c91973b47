"""`s3lora compare`."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from s3lora.adapter.checkpoints import checkpoints
from s3lora.cli.command import Command, OneOf
from s3lora.cli.options import adapters_option, base_weights_option, cost_option, format_option
from s3lora.cli.output import check_output, emit, show
from s3lora.cli.progress import progress_line
from s3lora.errors import UsageError
from s3lora.measure.comparison import Comparison, compare
from s3lora.measure.series import as_comparison, read_series
from s3lora.report.documents import compare_csv, to_json
from s3lora.spectrum.methods import METHODS


@click.command("compare", cls=Command)
@click.argument("paths", nargs=-1, required=True, metavar="A B [C...] | RUN | SERIES")
@adapters_option
@click.option("--method", type=OneOf(list(METHODS)), default="mas-svd", show_default=True, help="Spectral method.")
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
    in RUN itself comes last. SERIES is what the callback of s3lora.training wrote.

    \b
    s3lora compare checkpoint-100 checkpoint-200
    s3lora compare my-adapter pruned --format html --output report.html
    """
    check_output(output)
    if len(paths) == 1 and Path(paths[0]).is_file():
        options = {"--adapter": picked, "--base-weights": base_weights, "--method": _given("method")}
        comparison = _of_series(paths[0], [name for name, value in options.items() if value])
    else:
        comparison = compare(
            checkpoints(paths[0]) if len(paths) == 1 else paths,
            method,
            adapter=picked,
            progress=progress_line,
            max_cost=max_cost,
            base_weights=base_weights,
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


def _given(name: str) -> bool:
    """Tell whether an option was given, and not left at its default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _of_series(path: str, options: list[str]) -> Comparison:
    """Read a series; raise UsageError for options that would measure something."""
    if options:
        raise UsageError(f"{' and '.join(options)} cannot be used with a series, which is measured already")
    return as_comparison(read_series(path))
