"""`s3lora demo`."""

from __future__ import annotations

import shlex
import sys
from importlib.resources import as_file, files
from pathlib import Path

import click

from s3lora.adapter.digest import file_digest
from s3lora.adapter.folder import check_target
from s3lora.adapter.open import open_adapter
from s3lora.adapter.weights import PROVENANCE
from s3lora.choose.select import select
from s3lora.cli.command import Command
from s3lora.cli.options import is_written
from s3lora.cli.output import show
from s3lora.errors import OutputError, S3LoRAError, UsageError, printable
from s3lora.files import copy_file, replacing
from s3lora.measure.scan import scan
from s3lora.report.documents import scan_document
from s3lora.rewrite.provenance import Provenance, read_provenance
from s3lora.rewrite.prune import prune, write_pruned
from s3lora.wording import worded

_WEIGHTS = "adapter_model.safetensors"


@click.command("demo", cls=Command)
@click.option("--copy", metavar="FOLDER", help="Write the example as it is into this folder, and do no more.")
@click.option("--lost", is_flag=True, help="Write the other example, to be repaired over --base demo-aligned.")
@click.option(
    "-o",
    "--output",
    default="s3lora-demo",
    show_default=True,
    metavar="FOLDER",
    help="Folder for the adapter; an earlier demo there is replaced.",
)
def demo_command(copy: str | None, lost: bool, output: str) -> None:
    """Scan and prune the built-in example: a LoRA adapter of SmolLM2-135M-Instruct that was trained to write plans.

    With --lost, write another one as it is: it was trained on plans alone, over a base that refuses harmful prompts,
    and lost most of those refusals.

    It needs neither torch nor the model.

    \b
    s3lora demo
    s3lora demo -o example
    s3lora demo --copy my-adapter
    s3lora demo --lost -o lost-adapter
    """  # fmt: skip
    if copy is not None:
        if lost or is_written(click.get_current_context(), "output"):
            raise UsageError("--copy stands alone", fix="for the other example write --lost -o FOLDER")
        _write("demo-adapter", copy)
        show(f"Wrote {printable(copy)}. Now: s3lora scan {printable(shlex.quote(copy))}", None)
        return
    if lost:
        _write("demo-lost", output)
        show(f"Wrote {printable(output)}. Trained on plans alone, over --base demo-aligned, it lost refusals.", None)
        return
    from s3lora.report.text import console_for, prune_text, scan_text

    with as_file(files("s3lora") / "data" / "demo-adapter") as folder, open_adapter(folder) as adapter:
        measured = scan(adapter)
        plan = select(measured)
        show(scan_text(scan_document(measured, plan), None, console_for(sys.stdout)), None)
        _refuse_others(Path(output), folder)
        provenance, written = write_pruned(prune(adapter, plan), measured, output, force=True)
    show("", None)
    show(prune_text(provenance, written, output), None)


def _refuse_others(out: Path, source: Path) -> None:
    """Raise OutputError where a folder holds another adapter than one of this command, or none."""
    check_target(out, source, force=True)
    if not out.is_dir() or not any(out.iterdir()):
        return
    with as_file(files("s3lora") / "data") as data:
        shipped = {file_digest(data / name / _WEIGHTS).sha256 for name in ("demo-adapter", "demo-lost")}
    try:
        found: str | None = file_digest(out / _WEIGHTS).sha256
        if (out / PROVENANCE).exists():  # which a repair has as well
            record = read_provenance(out)
            found = record.source.sha256 if isinstance(record, Provenance) and record.mode == "remove" else None
    except (S3LoRAError, OSError):
        found = None
    if found not in shipped:
        raise OutputError("holds something else than an earlier demo", file=out, fix=worded("give {out} a new folder"))


def _write(name: str, output: str) -> None:
    """Write a built-in adapter as it is."""
    out = Path(output)
    with as_file(files("s3lora") / "data" / name) as folder:
        _refuse_others(out, folder)
        with replacing(out) as partial:
            for path in sorted(folder.iterdir()):
                copy_file(path, partial / path.name)
