"""Repair: giving back refusals that fine-tuning took, at a known price. See docs/repair.md."""
