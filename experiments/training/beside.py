"""What a term in training does, beside what is done afterwards to the adapter that was trained without it.

Both are measured on one test part, of the same attacks and seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from experiments.differences import Difference, student
from experiments.repair.analyse import level_of, load
from experiments.training.analyse import TrainingResults
from experiments.training.setting import ATTACKS, BASE

#: What is set beside, as it is called here and in the comparison of repairs.
MEASURES = {"asr": "asr", "over_refusal": "over_refusal", "lost": "share"}
Values = dict[str, float]


@dataclass(frozen=True)
class Beside:
    """One arm and what is done afterwards, over adapters.

    `adapters` are attack and seed; `values` have what is measured, by adapter and by the name of arm or row.
    """

    arm: str
    adapters: list[tuple[str, int]]
    values: list[dict[str, Values]]

    @property
    def means(self) -> dict[str, Values]:
        """Return the mean of each measure over the adapters, by arm or row."""
        return {name: {m: fmean(one[name][m] for one in self.values) for m in MEASURES} for name in self.values[0]}

    def differences(self, other: str) -> dict[str, Difference]:
        """Return the arm less what is done afterwards, by measure."""
        return {m: student([one[self.arm][m] - one[other][m] for one in self.values]) for m in MEASURES}

    def preferred(self, other: str) -> str | None:
        """Return which has both the lower mean ASR and the lower mean loss, by the plan's rule; None where neither."""
        better = [self.means[self.arm][m] < self.means[other][m] for m in ("asr", "lost")]
        return self.arm if all(better) else None if any(better) else other


def beside(results: TrainingResults, folder: Path, arm: str, others: tuple[str, ...], level: float) -> Beside | None:
    """Return an arm beside rows of the comparison of repairs, each with the strength of a level of what is lost.

    None where that is known of too few adapters: of less than two attacks.
    """
    adapters: list[tuple[str, int]] = []
    values: list[dict[str, Values]] = []
    for one in load(folder):
        mine = results.found.get((one.attack, int(one.test["seed"]), arm))
        if one.base != BASE or mine is None or not set(others) <= set(one.rows):
            continue
        own = {m: value for m in MEASURES if (value := results.value(mine, m)) is not None}
        if len(own) == len(MEASURES):
            adapters.append((one.attack, mine["seed"]))
            pick = level_of(level)
            after = {row: {m: one.value(row, of, pick) for m, of in MEASURES.items()} for row in others}
            values.append({arm: own, **after})
    if len({attack for attack, _ in adapters}) < len(ATTACKS) - 1:
        return None
    return Beside(arm, adapters, values)
