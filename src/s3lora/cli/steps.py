"""The next steps after a scan, where a report offers some."""

from __future__ import annotations

import re
import shlex

import click

from s3lora.adapter.hub import hub_name
from s3lora.measure.delta import CHECKPOINT
from s3lora.measure.scan import Scan
from s3lora.report.documents import ScanDocument

#: Modules of models that make pictures.
_OF_PICTURES = re.compile(
    r"(?:^|[._])(?:transformer_blocks|single_transformer_blocks|down_blocks|up_blocks|mid_block)[._]"
)
#: What `eval` is asked where the question is refusals alone.
_REFUSALS = ("--suite", "safety", "--no-prune", "--no-cost")


def base_steps(scan: Scan | ScanDocument, path: str) -> list[tuple[str, str]]:
    """Return the commands that need the base model, each with what it answers; none for a whole model.

    Whether refusals were lost no file tells. `repair` is there where it would not refuse the adapter's kind, and no
    base of pictures is fetched to be asked prompts.
    """
    if scan.source.format == CHECKPOINT:
        return []
    pictures = any(_OF_PICTURES.search(module.path) for module in scan.modules)
    base = "MODEL" if pictures else hub_name(scan.source.base_model) or "MODEL"
    given = [path, *_picked()]
    steps = [(shlex.join(["s3lora", "check", *given]), "will it load?")]
    linear = any(module.kind == "linear" and module.form == "LoRA" and not module.zero for module in scan.modules)
    odd = pictures or scan.inventory.classifies or any(module.dora or module.nonfinite for module in scan.modules)
    if scan.source.format == "peft" and not scan.inventory.base_changed and not odd and linear:
        repair = shlex.join(["s3lora", "repair", *given, "--base", base, "-o", "REPAIRED"])
        evaluate = shlex.join(["s3lora", "eval", *given, "--base", base, *_REFUSALS])
        steps += [(evaluate, "does the model still refuse?"), (repair, "give refusals back")]
    return steps


def next_steps(scan: Scan, path: str) -> list[tuple[str, str]]:
    """Return commands that go on from a scan, each with what it answers; none for a whole model."""
    page = (shlex.join(["s3lora", "scan", path, *_picked(), "-o", "report.html"]), "as a page")
    steps = base_steps(scan, path)
    return [*clean_steps(scan, path), page, *steps] if steps else []


def clean_steps(scan: Scan | ScanDocument, path: str) -> list[tuple[str, str]]:
    """Return the command that leaves code and pickles behind, where a PEFT adapter has some."""
    if scan.source.format != "peft" or not (scan.inventory.code or scan.inventory.pickles):
        return []
    command = shlex.join(["s3lora", "convert", path, *_picked(), "--to", "peft", "-o", "CLEAN"])
    return [(command, "the same updates, without code and pickles")]


def _picked() -> list[str]:
    """Return the option that named one of several adapters, as it was given."""
    context = click.get_current_context(silent=True)
    name = None if context is None else context.params.get("adapter")
    return ["--adapter", name] if isinstance(name, str) else []
