"""The next step after a scan, where a report offers one."""

from __future__ import annotations

import shlex

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
