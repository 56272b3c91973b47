"""STUB, to be replaced: the page of a repair."""

from __future__ import annotations

from s3lora.repair.results import Repair


def repair_page(repair: Repair, command: str | None = None) -> str:
    """STUB: no page."""
    return f"<!doctype html><title>{repair.outcome}</title>"
