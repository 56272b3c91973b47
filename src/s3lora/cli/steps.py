"""The next steps after a scan, where a report offers some."""

from __future__ import annotations

import re
import shlex

from s3lora.measure.delta import CHECKPOINT
from s3lora.measure.scan import Scan
from s3lora.report.documents import ScanDocument

#: A name on the Hub, which the path of a folder at whoever trained may look like.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def base_of(scan: Scan | ScanDocument) -> str:
    """Return the base model that the adapter names, where it may be one on the Hub, or else `MODEL`."""
    name = scan.source.base_model or ""
    return name if _NAME.fullmatch(name) else "MODEL"


def repair_step(scan: Scan | ScanDocument, path: str) -> str | None:
    """Return the command that repairs an adapter, None where `repair` would refuse its kind.

    Whether refusals were lost no file tells: that needs the base model.
    """
    linear = any(module.kind == "linear" and module.form == "LoRA" and not module.zero for module in scan.modules)
    odd = any(module.dora or module.nonfinite for module in scan.modules)
    if scan.source.format != "peft" or scan.inventory.base_changed or odd or not linear:
        return None
    return shlex.join(["s3lora", "repair", path, "--base", base_of(scan), "-o", "REPAIRED"])


def next_steps(scan: Scan, path: str) -> list[tuple[str, str]]:
    """Return commands that go on from a scan, each with what it answers; none for a whole model."""
    if scan.source.format == CHECKPOINT:
        return []
    base = base_of(scan)
    fetched = base if base == "MODEL" else f"hf://{base}"
    steps = [
        (shlex.join(["s3lora", "scan", path, "-o", "report.html"]), "as a page"),
        (shlex.join(["s3lora", "check", path, "--base", fetched]), "will it load?"),
    ]
    repair = repair_step(scan, path)
    if repair is not None:
        steps.append((shlex.join(["s3lora", "eval", path, "--base", base]), "does the model still refuse?"))
        steps.append((repair, "give refusals back"))
    return steps
