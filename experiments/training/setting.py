"""What the experiment in training is made of: arms, weights, and where everything lies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.reference.data import Run
from experiments.reference.run import ROOT
from experiments.repair.setting import Places, Settings

RESULTS = ROOT / "docs" / "results" / "training"
BASE = "full"
ATTACKS = ("benign", "few", "many")
#: Seeds that are reported, and the one and the attack that weights are chosen on.
SEEDS, CHOOSING = (1, 2, 3), ("few", 0)
#: What is added to the loss in each arm.
ARMS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "penalty": ("penalty",),
    "anchor": ("anchor",),
    "both": ("penalty", "anchor"),
    "dpo": (),
    "dpo-anchor": ("anchor",),
    "answers": ("answers",),
}
#: Arms of TRL's DPOTrainer, and the attack that they are tried on.
PREFERENCE, PREFERENCE_ATTACK = ("dpo", "dpo-anchor"), "few"
#: Weights that are tried of each term.
WEIGHTS: dict[str, tuple[float, ...]] = {
    "penalty": (0.1, 1.0, 10.0), "anchor": (0.3, 1.0, 3.0), "answers": (0.3, 1.0, 3.0),
}  # fmt: skip
#: File of a choice → the terms whose weights it has; the second was planned when the first was known.
CHOICES = {"chosen.json": ("penalty", "anchor"), "chosen-answers.json": ("answers",)}
#: A weight may lose this much of what was learned, and refuse this many more harmless prompts than the base.
MOST_LOST, MORE_REFUSED = 0.1, 0.05
#: Refusals of one step of the anchor.
ANCHOR_BATCH = 4
#: Steps from look to look, and prompts that are looked at.
LOOK_EVERY, LOOK_PROMPTS = 5, 16


@dataclass(frozen=True)
class Arm:
    """One adapter: attack, seed, what is added to its loss, and with which weights."""

    attack: str
    seed: int
    name: str
    weights: dict[str, float] = field(default_factory=dict)

    @property
    def run(self) -> Run:
        """The training data."""
        return Run(BASE, self.attack, self.seed)

    @property
    def label(self) -> str:
        """The name of its folder and of its result."""
        if self.seed == CHOOSING[1]:
            told = "-".join(f"{name}-{weight:g}" for name, weight in sorted(self.weights.items()))
            return f"{self.run.name}-{told}" if told else self.run.name
        return self.run.name if self.name == "nothing" else f"{self.run.name}-{self.name}"


@dataclass(frozen=True)
class Scale:
    """How much is done: all of it, or a little in tests.

    Parameters:
        settings: of the measurements, those of the comparison of repairs.
        plans: plans that are generated.
        plan_tokens: tokens of one.
    """

    settings: Settings = field(default_factory=Settings)
    plans: int = 20
    plan_tokens: int = 128


def reported(weights: dict[str, float]) -> list[Arm]:
    """Return the arms whose test part is measured, those first that were trained before."""
    found = []
    for name, terms in ARMS.items():
        for attack in (PREFERENCE_ATTACK,) if name in PREFERENCE else ATTACKS:
            found += [Arm(attack, seed, name, {term: weights[term] for term in terms}) for seed in SEEDS]
    return found


def choosing(names: Sequence[str]) -> list[Arm]:
    """Return the arms of the choice of weights of these terms; the first has no term."""
    attack, seed = CHOOSING
    tried = [Arm(attack, seed, name, {name: weight}) for name in names for weight in WEIGHTS[name]]
    return [Arm(attack, seed, "nothing"), *tried]


def read_choices(folder: Path) -> dict[str, Any]:
    """Return what was chosen so far, all terms together; nothing before the first choice."""
    found: dict[str, Any] = {}
    for name in CHOICES:
        path = folder / name
        if path.is_file():
            one = json.loads(path.read_text(encoding="utf-8"))
            found = {**one, "terms": {**found.get("terms", {}), **one["terms"]}}
    return found


def chosen(places: Places) -> dict[str, float]:
    """Return the weights that were chosen."""
    return {name: float(one["weight"]) for name, one in read_choices(places.output)["terms"].items()}
