"""`s3lora demo`."""

from __future__ import annotations

import sys
from importlib.resources import as_file, files

import click

from s3lora.adapter.open import open_adapter
from s3lora.choose.select import select
from s3lora.cli.output import show
from s3lora.measure.scan import scan
from s3lora.report.documents import scan_document
from s3lora.rewrite.prune import prune, write_pruned


@click.command("demo")
@click.option(
    "-o",
    "--output",
    default="s3lora-demo",
    show_default=True,
    metavar="FOLDER",
    help="Folder for the pruned adapter; an earlier demo there is replaced.",
)
def demo_command(output: str) -> None:
    """Scan and prune the built-in example: a LoRA adapter of SmolLM2-135M-Instruct that was trained to write plans.

    It needs neither torch nor the model.

    \b
    s3lora demo
    s3lora demo -o example
    """  # fmt: skip
    from s3lora.report.text import console_for, prune_text, scan_text

    with as_file(files("s3lora") / "data" / "demo-adapter") as folder, open_adapter(folder) as adapter:
        measured = scan(adapter)
        plan = select(measured)
        show(scan_text(scan_document(measured, plan), None, console_for(sys.stdout)), None)
        provenance, written = write_pruned(prune(adapter, plan), measured, output, force=True)
    show("", None)
    show(prune_text(provenance, written, output), None)
