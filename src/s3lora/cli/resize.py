"""`s3lora resize`."""

from __future__ import annotations

from pathlib import Path

import click

from s3lora.adapter.open import open_adapter
from s3lora.cli.command import Command
from s3lora.cli.options import adapter_option, cost_option, format_option, loader_option, share_of_energy
from s3lora.cli.output import emit, show
from s3lora.cli.progress import progress_line
from s3lora.errors import printable
from s3lora.files import settle
from s3lora.report.documents import to_json
from s3lora.rewrite.resize import resize


@click.command("resize", cls=Command)
@click.argument("path", metavar="PATH")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Folder to write; must be new or empty.")
@click.option("--rank", type=click.IntRange(min=1), metavar="R", help="Highest rank that a module has then.")
@click.option("--energy", metavar="SHARE", help="Or the share of ‖ΔW‖² that each module keeps, such as 99%.")
@adapter_option
@loader_option
@click.option("--bake-scaling", is_flag=True, help="Multiply the scaling into lora_B and write alpha = r.")
@click.option("--force", is_flag=True, help="Replace an existing adapter folder, the input included.")
@cost_option
@format_option("json", "csv")
def resize_command(
    path: str,
    output: str,
    rank: int | None,
    energy: str | None,
    adapter: str | None,
    loader: str,
    bake_scaling: bool,
    force: bool,
    max_cost: float,
    form: str,
) -> None:
    """Write the adapter with lower ranks: of each module the nearest update that its new rank can hold.

    What each module loses is printed, as ‖ΔW − ΔW′‖ / ‖ΔW‖ of what is written. The adapter is written whole or not at
    all, read again and compared. What was dropped is in the original alone, so keep it.

    \b
    s3lora resize my-adapter -o smaller --rank 4
    s3lora resize my-adapter -o smaller --energy 99%
    """
    share = None if energy is None else share_of_energy(energy)
    settle(Path(output))  # before it is read, where --output names the input itself
    with open_adapter(path, adapter) as opened:
        progress = progress_line(printable(path))
        record, written = resize(
            opened, output, rank=rank, energy=share, loader=loader, bake=bake_scaling, force=force,
            progress=progress, max_cost=max_cost,
        )  # fmt: skip
    if form == "json":
        emit(to_json(record), None)
    elif form == "csv":
        from s3lora.report.resize_text import resize_csv

        emit(resize_csv(record), None)
    else:
        from s3lora.report.resize_text import resize_text

        show(resize_text(record, written, output), None)
