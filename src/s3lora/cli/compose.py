"""`s3lora compose`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from s3lora.adapter.open import names_for, open_adapter
from s3lora.cli.command import Command, OneOf
from s3lora.cli.options import adapters_option, cost_option, format_option, share_of_energy
from s3lora.cli.output import check_apart, check_output, emit, show
from s3lora.cli.progress import progress_line
from s3lora.errors import UsageError, printable
from s3lora.files import settle
from s3lora.measure.composition import SUMMED, compose
from s3lora.report.documents import to_json
from s3lora.rewrite.summed import write_sum


@click.command("compose", cls=Command)
@click.argument("paths", nargs=-1, required=True, metavar="A B [C...]")
@adapters_option
@click.option("--weights", metavar="W,W...", help="One number an adapter, beside its own scaling  [default: 1 each].")
@click.option("--method", type=OneOf(SUMMED), default="mas-svd", show_default=True, help="Spectral method.")
@click.option("--top", type=click.IntRange(min=0), metavar="N", help="Modules that the text shows  [default: 10].")
@cost_option
@format_option("json", "csv")
@click.option("-o", "--output", metavar="FOLDER", help="Write the sum as an adapter of PEFT; must be new or empty.")
@click.option("--rank", type=click.IntRange(min=1), metavar="R", help="Highest rank that a module of it has.")
@click.option("--energy", metavar="SHARE", help="Or the share of ‖ΔW‖² that each module of it keeps, such as 99%.")
@click.option("--force", is_flag=True, help="Replace an existing adapter folder.")
@click.option("--report", metavar="FILE", help="Write what was measured to a file.")
def compose_command(
    paths: tuple[str, ...],
    picked: tuple[str, ...],
    weights: str | None,
    method: str,
    top: int | None,
    max_cost: float,
    form: str,
    output: str | None,
    rank: int | None,
    energy: str | None,
    force: bool,
    report: str | None,
) -> None:
    """Add up adapters of one base model, and show which modules are sharper together than alone.

    With -o the sum itself is written: the factors of all adapters side by side, each with its own scaling, or the
    nearest adapter of a lower rank.

    \b
    s3lora compose style-adapter task-adapter
    s3lora compose my-adapter other --weights 1,0.5 --format csv --report sum.csv
    s3lora compose my-adapter other -o both
    s3lora compose my-adapter other -o both --rank 16
    """
    check_output(report, "--report")
    check_apart(report, output)
    if output is None and (rank is not None or energy is not None or force):
        raise UsageError("--rank, --energy and --force do nothing without -o", fix="give -o FOLDER")
    kept = None if energy is None else share_of_energy(energy)
    if output is not None:
        settle(Path(output))  # before it is read, where --output names an input itself
    if top is not None and form != "text":
        raise UsageError(f"--top does nothing with --format {form}")
    progress = progress_line(f"{len(paths)} adapters")
    chosen = None if weights is None else _numbers(weights)
    record = None
    with ExitStack() as stack:
        each = zip(paths, names_for(picked, len(paths)), strict=True)
        opened = [stack.enter_context(open_adapter(path, name)) for path, name in each]
        composition = compose(opened, chosen, method, progress=progress, max_cost=max_cost)
        if output is not None:
            record = write_sum(opened, output, chosen, rank=rank, energy=kept, force=force, max_cost=max_cost)
    if form == "json":
        emit(to_json(composition), report)
    elif form == "csv":
        from s3lora.report.compose_csv import compose_csv

        emit(compose_csv(composition), report)
    else:
        from s3lora.report.compose_text import SHOWN, compose_text

        show(compose_text(composition, SHOWN if top is None else top), report)
        if record is not None:
            from s3lora.report.resize_text import sum_text

            show(sum_text(record, output or ""), None)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--weights {printable(text, 60)} is no list of numbers", fix="write for example 1,0.5"
        ) from None
