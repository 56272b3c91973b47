"""What the experiment in training is made of: arms, weights, and where everything lies."""

from __future__ import annotations

import json
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
    "answers": ("anchor",),
}
#: Arms of TRL's DPOTrainer, and the one whose anchor holds on to answers to harmless prompts too.
PREFERENCE, ANSWERS = ("dpo", "dpo-anchor"), "answers"
#: Arms that are not tried on all attacks → those that they are tried on.
ONLY = {**dict.fromkeys(PREFERENCE, ("few",)), ANSWERS: ("few", "benign")}
#: Weights that are tried of each term.
WEIGHTS: dict[str, tuple[float, ...]] = {"penalty": (0.1, 1.0, 10.0), "anchor": (0.3, 1.0, 3.0)}
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
        for attack in ONLY.get(name, ATTACKS):
            found += [Arm(attack, seed, name, {term: weights[term] for term in terms}) for seed in SEEDS]
    return found


def choosing() -> list[Arm]:
    """Return the arms of the choice of weights; the first has no term."""
    attack, seed = CHOOSING
    tried = [Arm(attack, seed, name, {name: weight}) for name, weights in WEIGHTS.items() for weight in weights]
    return [Arm(attack, seed, "nothing"), *tried]


def chosen_file(places: Places) -> Path:
    """Return the file of the weights, which is written before anything is measured on the test part."""
    return places.output / "chosen.json"


def chosen(places: Places) -> dict[str, float]:
    """Return the weights that were chosen."""
    found: dict[str, Any] = json.loads(chosen_file(places).read_text(encoding="utf-8"))
    return {name: float(one["weight"]) for name, one in found["terms"].items()}
