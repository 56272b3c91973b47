"""The official schema of SARIF 2.1.0; tests/data/README.md says where it is from."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any


@functools.cache
def official() -> dict[str, Any]:
    """Return the JSON Schema, draft 7."""
    text = (Path(__file__).parent / "data" / "sarif-schema-2.1.0.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
