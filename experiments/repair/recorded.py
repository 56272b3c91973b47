"""Whether adapters that were trained again are those that other results are of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.reference.render import DATA


class Recorded(NamedTuple):
    """How many adapters were recorded by the reference experiment, and how many of these have the same bytes now."""

    known: int
    same: int


def as_recorded(heads: Sequence[dict[str, Any]]) -> Recorded:
    """Compare the digests of adapters with those beside the results of the reference experiment."""
    known = same = 0
    for head in heads:
        path = DATA / f"{head['adapter']}.json"
        if path.is_file():
            known += 1
            source = json.loads(path.read_text(encoding="utf-8"))["main"]["adapter"]
            same += source["sha256"] == head["digests"]["adapter"]
    return Recorded(known, same)
