"""STUB, to be replaced: the text of a repair."""

from __future__ import annotations

from s3lora.repair.results import Repair


def repair_text(repair: Repair) -> str:
    """STUB: the verdict alone."""
    return f"{repair.sentence}\n"
