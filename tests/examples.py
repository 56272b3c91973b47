"""How many examples Hypothesis tries: a part of them by default, all in the thorough run."""

from __future__ import annotations

import os

EVERY_EXAMPLE = os.environ.get("S3LORA_EXAMPLES") == "all"


def examples(count: int) -> int:
    """Return how many of so many examples are tried."""
    return count if EVERY_EXAMPLE else max(1, count // 4)
