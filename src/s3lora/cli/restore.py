"""`s3lora restore`."""

from __future__ import annotations

from pathlib import Path

import click

from s3lora.adapter.open import open_adapter
from s3lora.adapter.weights import CONFIG, raw_config
from s3lora.cli.command import Command
from s3lora.cli.options import adapter_option, cost_option, format_option
from s3lora.cli.output import emit, show
from s3lora.errors import printable
from s3lora.files import settle
from s3lora.rewrite.code import some_pointers
from s3lora.rewrite.provenance import read_provenance
from s3lora.rewrite.restore import Restoration, restore


@click.command("restore", cls=Command)
@click.argument("pruned", metavar="PRUNED")
@click.option("--from", "original", required=True, metavar="ORIGINAL", help="The adapter that was pruned or repaired.")
@adapter_option
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Folder to write; must be new or empty.")
@click.option("--module", "only", multiple=True, metavar="PATH", help="Put back this module only; repeatable.")
@click.option("--force", is_flag=True, help="Replace an existing adapter folder.")
@cost_option
@format_option("json")
def restore_command(
    pruned: str,
    original: str,
    adapter: str | None,
    output: str,
    only: tuple[str, ...],
    force: bool,
    max_cost: float,
    form: str,
) -> None:
    """Put pruned or repaired modules back, after proving by SHA-256 that PRUNED was made from ORIGINAL.

    \b
    s3lora restore pruned --from my-adapter -o restored
    s3lora restore pruned --from my-adapter -o partly \\
        --module model.layers.3.self_attn.q_proj
    """
    if adapter is not None:
        original = _named(original, adapter)
    settle(Path(output))  # before it is read, where --output names the input itself
    record = read_provenance(pruned)  # before it is replaced, where --output names the same folder
    back = restore(pruned, original, output, modules=only or None, force=force, max_cost=max_cost)
    tensors = () if only else record.dropped
    notes = _notes(Path(output))
    if form == "json":
        from s3lora.report.documents import to_json

        left = tuple(module.path for module in record.modules if module.path not in back)
        done = Restoration(source=record.source, modules=back, pruned=left, tensors=tensors, notes=notes)
        emit(to_json(done), None)
        return
    from rich.text import Text

    modules = "module" if len(back) == 1 else "modules"
    told = f"{len(back)} {modules}" + (
        f" and {len(tensors)} other tensor{'' if len(tensors) == 1 else 's'}" if tensors else ""
    )
    show(Text(f"wrote {printable(output)}: {told} back; the original is proved by its SHA-256"), None)
    for note in notes:
        show(Text(f"note {note}"), None)


def _notes(folder: Path) -> tuple[str, ...]:
    """Return what to know of the configuration that was put back: what it points to."""
    config = folder / CONFIG
    again = some_pointers(raw_config(config)) if config.is_file() else ""
    return (f"the configuration is the original's, and points to code: {again}",) if again else ()


def _named(original: str, adapter: str) -> str:
    """Return where an adapter of the original lies: its own folder, or the file that holds it beside others.

    Which one of a file was pruned stands in the record. Raises what `open_adapter` raises where there is none such.
    """
    with open_adapter(original, adapter) as opened:
        return str(opened.path)
