"""`s3lora prune`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from s3lora.adapter.open import open_adapter
from s3lora.choose.select import choose_none
from s3lora.cli.command import Command, OneOf
from s3lora.cli.options import (
    adapter_option,
    base_weights_option,
    chooses,
    format_option,
    loader_option,
    mode_options,
    mode_with,
    refuse_idle,
    rule_options,
    scan_options,
    scans_with,
    selector,
)
from s3lora.cli.output import emit, show
from s3lora.cli.pages import reported
from s3lora.files import settle
from s3lora.report.documents import prune_csv, scan_document, to_json
from s3lora.rewrite.drop import PARTS
from s3lora.rewrite.prune import prune, write_pruned


@click.command("prune", cls=Command)
@click.argument("path", metavar="PATH")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Folder to write; must be new or empty.")
@adapter_option
@mode_options
@loader_option
@click.option("--bake-scaling", is_flag=True, help="Multiply the scaling into lora_B and write alpha = r.")
@click.option(
    "--drop",
    type=OneOf(list(PARTS)),
    multiple=True,
    help="Also leave these tensors out; repeatable. Without an option that chooses modules, all modules stay.",
)
@click.option("--force", is_flag=True, help="Replace an existing adapter folder, the input included.")
@click.option("--force-flat", is_flag=True, help="Prune even where the index does not tell modules apart.")
@scan_options
@base_weights_option
@rule_options
@format_option("json", "csv", "html")
def prune_command(path: str, output: str, form: str, **options: Any) -> None:
    """Choose modules by a rule and write an adapter without them, for PEFT, vLLM, SGLang or llama.cpp.

    --drop leaves out what is no module as well: heads, trained biases, embeddings of trained tokens, and other tensors
    (weights of the base model, and what s3lora does not know). Keys that a wrapper changed are written as PEFT finds
    them. Companions that are or run code stay behind.

    What was done is printed: as a report, as JSON (the content of s3lora.json), as CSV with one row a module, or as a
    page in HTML.
    The adapter is written whole or not at all, read again and compared; s3lora.json in it says what was done. The
    input stays as it is, unless -o and --force name it.

    \b
    s3lora prune my-adapter -o pruned
    s3lora prune my-adapter -o pruned --fraction 0.25 --index weighted-ssi
    s3lora prune my-adapter -o pruned --loader sglang --bake-scaling
    s3lora prune my-adapter -o lora-alone --drop all
    s3lora prune my-adapter -o pruned --top 10 --drop heads
    """  # fmt: skip
    context = click.get_current_context()
    refuse_idle(context)
    mode = mode_with(options)
    choose = choose_none if options["drop"] and not chooses(context) else selector(options)
    settle(Path(output))  # before it is read, where --output names the input itself
    with open_adapter(path, options["adapter"]) as adapter:
        scans = scans_with(adapter, options, path, others=form == "html")
        measured = scans[0]
        plan = choose(measured)
        pruned = prune(
            adapter,
            plan,
            mode,
            loader=options["loader"],
            bake=options["bake_scaling"],
            flat=options["force_flat"],
            drop=options["drop"],
            known_start=measured.true_updates,
        )
        page = reported(scan_document(measured, plan), scans, path, options) if form == "html" else None
        provenance, written = write_pruned(pruned, measured, output, force=options["force"])
    if page is not None:
        from s3lora.report.scan_page import scan_page

        emit(scan_page([replace(page, provenance=provenance)]), None)
    elif form == "json":
        emit(to_json(provenance), None)
    elif form == "csv":
        emit(prune_csv(provenance), None)
    else:
        from s3lora.report.text import prune_text

        show(prune_text(provenance, written, output), None)
