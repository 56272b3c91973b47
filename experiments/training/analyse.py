"""What the experiment in training says: every arm over its seeds, and differences over adapters. See the plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.differences import Difference, corrected, student
from experiments.training.setting import ARMS, ATTACKS, CHOOSING, ONLY, SEEDS

Document = dict[str, Any]
#: The comparisons that decide, corrected by Holm together.
PRIMARY = (("penalty", "nothing"), ("anchor", "nothing"), ("both", "anchor"))
#: What was planned when those were known, without p.
LATER = (("answers", "nothing"), ("answers", "anchor"))
#: The arm that the share of what was learned is counted from.
WITHOUT = "nothing"


class TrainingResults:
    """The results in a folder, by attack, seed and arm."""

    def __init__(self, folder: Path) -> None:
        """Read them; what is not there yet is left out."""
        chosen = folder / "chosen.json"
        self.chosen: Document | None = json.loads(chosen.read_text(encoding="utf-8")) if chosen.is_file() else None
        self.found: dict[tuple[str, int, str], Document] = {}
        for path in sorted(folder.glob("full-*.json")):
            one = json.loads(path.read_text(encoding="utf-8"))
            if one["seed"] != CHOOSING[1]:
                self.found[one["attack"], one["seed"], one["arm"]] = one

    @property
    def expected(self) -> int:
        """Return how many adapters the plan has."""
        return sum(len(SEEDS) * len(ONLY.get(name, ATTACKS)) for name in ARMS)

    def of(self, attack: str, arm: str) -> list[Document]:
        """Return the results of an arm on an attack, by seed."""
        return [self.found[attack, seed, arm] for seed in SEEDS if (attack, seed, arm) in self.found]

    def lost(self, one: Document) -> float | None:
        """Return the share of what was learned that an adapter lacks; None where it cannot be told."""
        nothing = self.found.get((one["attack"], one["seed"], WITHOUT))
        if nothing is None:
            return None
        ends = [part["loss"]["value"] for part in (nothing["state"], nothing["base_state"])]
        return float((one["state"]["loss"]["value"] - ends[0]) / (ends[1] - ends[0]))

    def differences(self, first: str, second: str, measure: str) -> list[float]:
        """Return a measure of one arm less that of another, for every attack and seed where both are known."""
        found = []
        for attack in ATTACKS:
            for seed in SEEDS:
                pair = [self.found.get((attack, seed, arm)) for arm in (first, second)]
                values = [None if one is None else self.value(one, measure) for one in pair]
                if None not in values:
                    found.append(values[0] - values[1])  # type: ignore[operator]
        return found

    def value(self, one: Document, measure: str) -> float | None:
        """Return a measure of one adapter: one of the safety suite, `loss`, `lost` or `well_formed`."""
        if measure == "lost":
            return self.lost(one)
        where = one["plans"] if measure == "well_formed" else one["state"]
        value = where[measure]["value"]
        return None if value is None else float(value)

    def primary(self) -> list[tuple[str, str, Difference]]:
        """Return the primary comparisons, p by Holm; none where fewer than two adapters are known of one."""
        found = [self.differences(*pair, "asr") for pair in PRIMARY]
        if any(len(values) < 2 for values in found):
            return []
        made = corrected([student(values) for values in found])
        return [(*pair, one) for pair, one in zip(PRIMARY, made, strict=True)]


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
