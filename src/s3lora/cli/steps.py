"""The next steps after a scan, where a report offers some."""

from __future__ import annotations

import shlex

from s3lora.measure.delta import CHECKPOINT
from s3lora.measure.scan import Scan
from s3lora.report.documents import ScanDocument


def repair_step(scan: Scan | ScanDocument, path: str) -> str | None:
    """Return the command that repairs an adapter, None where `repair` would refuse its kind.

    Whether refusals were lost no file tells: that needs the base model.
    """
    linear = any(module.kind == "linear" and module.form == "LoRA" and not module.zero for module in scan.modules)
    odd = any(module.dora or module.nonfinite for module in scan.modules)
    if scan.source.format != "peft" or scan.inventory.base_changed or odd or not linear:
        return None
    return shlex.join(["s3lora", "repair", path, "--base", "MODEL", "-o", "REPAIRED"])


def next_steps(scan: Scan, path: str) -> list[tuple[str, str]]:
    """Return commands that go on from a scan, each with what it answers; none for a whole model."""
    if scan.source.format == CHECKPOINT:
        return []
    steps = [
        (shlex.join(["s3lora", "scan", path, "-o", "report.html"]), "as a page"),
        (shlex.join(["s3lora", "check", path, "--base", "MODEL"]), "will it load?"),
    ]
    repair = repair_step(scan, path)
    if repair is not None:
        steps.append((shlex.join(["s3lora", "eval", path, "--base", "MODEL"]), "does the model still refuse?"))
        steps.append((repair, "give refusals back"))
    return steps
