"""`s3lora compose`."""

from __future__ import annotations

import click

from s3lora.cli.options import cost_option, format_option
from s3lora.cli.output import check_output, emit, show
from s3lora.cli.progress import progress_line
from s3lora.errors import UsageError, printable
from s3lora.measure.composition import SUMMED, compose
from s3lora.report.documents import to_json


@click.command("compose")
@click.argument("paths", nargs=-1, required=True, metavar="A B [C...]")
@click.option("--weights", metavar="W,W...", help="One number an adapter, beside its own scaling  [default: 1 each].")
@click.option("--method", type=click.Choice(SUMMED), default="mas-svd", show_default=True, help="Spectral method.")
@click.option("--top", type=click.IntRange(min=0), metavar="N", help="Modules that the text shows  [default: 10].")
@cost_option
@format_option("json", "csv")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file.")
def compose_command(
    paths: tuple[str, ...],
    weights: str | None,
    method: str,
    top: int | None,
    max_cost: float,
    form: str,
    output: str | None,
) -> None:
    """Add up adapters of one base model, and show which modules are sharper together than alone.

    \b
    s3lora compose style-adapter task-adapter
    s3lora compose my-adapter other --weights 1,0.5 --format csv -o sum.csv
    """
    check_output(output)
    if top is not None and form != "text":
        raise UsageError(f"--top does nothing with --format {form}")
    progress = progress_line(f"{len(paths)} adapters")
    chosen = None if weights is None else _numbers(weights)
    composition = compose(paths, chosen, method, progress=progress, max_cost=max_cost)
    if form == "json":
        emit(to_json(composition), output)
    elif form == "csv":
        from s3lora.report.compose_csv import compose_csv

        emit(compose_csv(composition), output)
    else:
        from s3lora.report.compose_text import SHOWN, compose_text

        show(compose_text(composition, SHOWN if top is None else top), output)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--weights {printable(text, 60)} is no list of numbers", fix="write for example 1,0.5"
        ) from None
