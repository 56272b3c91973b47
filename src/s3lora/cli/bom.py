"""`s3lora bom`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import click

from s3lora.adapter.digest import file_digest, source_of
from s3lora.adapter.inventory.inventory import inventory_of
from s3lora.adapter.inventory.model import Inventory
from s3lora.adapter.model import Adapter
from s3lora.adapter.open import open_adapter
from s3lora.adapter.weights import PROVENANCE
from s3lora.cli.card import attached, evaluation_option
from s3lora.cli.command import Command
from s3lora.cli.options import adapter_option
from s3lora.cli.output import check_output, emit
from s3lora.report.bom import bom
from s3lora.report.card_file import card_beside, metadata
from s3lora.rewrite.provenance import provenance_of


@click.command("bom", cls=Command, writes="json")
@click.argument("path", metavar="ADAPTER")
@adapter_option
@evaluation_option
@click.option("--name", metavar="NAME", help="What the adapter is called  [default: as its folder].")
@click.option("-o", "--output", metavar="FILE", help="Write it to a file.")
def bom_command(path: str, adapter: str | None, evaluation: str | None, name: str | None, output: str | None) -> None:
    """Print a bill of materials (ML-BOM, CycloneDX 1.6): digests, base model, licence, pruning, measurements.

    Nothing is scanned, and nothing is said that the adapter's files do not. The same adapter gives the same bytes.

    \b
    s3lora bom my-adapter
    s3lora bom pruned --evaluation results/evaluation.json -o pruned.cdx.json
    """
    check_output(output)
    with open_adapter(path, adapter) as opened:
        folder = _folder(opened)
        source = source_of(opened)
        record = provenance_of(source, folder)
        made = bom(
            opened,
            source,
            name=name,
            record=record,
            extra=() if record is None else (file_digest(folder / PROVENANCE),),
            inventory=_without(inventory_of(opened, {}), folder, output),
            card=metadata(card_beside(folder)),
            figures=attached(evaluation, source, record),
        )
    emit(made, output)


def _folder(adapter: Adapter) -> Path:
    path = adapter.path or Path()
    return path if path.is_dir() else path.parent


def _without(inventory: Inventory, folder: Path, output: str | None) -> Inventory:
    """Return the inventory without the bill itself: it may lie in the folder from a run before."""
    if output is None:
        return inventory
    own = os.path.relpath(os.path.realpath(output), os.path.realpath(folder)).replace(os.sep, "/")
    return dataclasses.replace(inventory, files=tuple(file for file in inventory.files if file.path != own))
