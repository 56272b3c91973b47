"""The next steps after a scan, where a report offers some."""

from __future__ import annotations

import shlex

from s3lora.adapter.hub import hub_name
from s3lora.measure.delta import CHECKPOINT
from s3lora.measure.scan import Scan
from s3lora.report.documents import ScanDocument


def base_steps(scan: Scan | ScanDocument, path: str) -> list[tuple[str, str]]:
    """Return the commands that need the base model, each with what it answers; none for a whole model.

    Whether refusals were lost no file tells. `repair` is there where it would not refuse the adapter's kind.
    """
    if scan.source.format == CHECKPOINT:
        return []
    name = hub_name(scan.source.base_model)
    base, fetched = ("MODEL", "MODEL") if name is None else (name, f"hf://{name}")
    steps = [(shlex.join(["s3lora", "check", path, "--base", fetched]), "will it load?")]
    linear = any(module.kind == "linear" and module.form == "LoRA" and not module.zero for module in scan.modules)
    odd = any(module.dora or module.nonfinite for module in scan.modules)
    if scan.source.format == "peft" and not scan.inventory.base_changed and not odd and linear:
        repair = shlex.join(["s3lora", "repair", path, "--base", base, "-o", "REPAIRED"])
        evaluate = shlex.join(["s3lora", "eval", path, "--base", base])
        steps += [(evaluate, "does the model still refuse?"), (repair, "give refusals back")]
    return steps


def next_steps(scan: Scan, path: str) -> list[tuple[str, str]]:
    """Return commands that go on from a scan, each with what it answers; none for a whole model."""
    page = (shlex.join(["s3lora", "scan", path, "-o", "report.html"]), "as a page")
    return [page, *steps] if (steps := base_steps(scan, path)) else []
