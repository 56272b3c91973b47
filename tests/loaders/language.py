"""Loaders of language models that compute logits here: how each is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.loaders.environments import Answer, Environment, environment
from tests.loaders.reference import TOKENS

#: Of logits that are computed in float32.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Asked:
    """A loader's script, what else its jobs have, and the format that it reads."""

    script: str
    more: Mapping[str, Any] = field(default_factory=dict)
    to: str = "peft"


#: By the name of the environment.
LOADERS: dict[str, Asked] = {
    "peft": Asked("run_peft.py", {"how": "peft"}),
    "peft-0.14.0": Asked("run_peft.py", {"how": "peft"}),
    "peft-0.13.2": Asked("run_peft.py", {"how": "peft"}),
    "transformers": Asked("run_peft.py", {"how": "transformers"}),
    "mlx": Asked("run_mlx.py", to="mlx"),
    "mlx-0.31.3": Asked("run_mlx.py", to="mlx"),
}


def ask(name: str, base: Path, folders: Mapping[str, Path], work: Path) -> tuple[Environment, dict[str, Answer]]:
    """Return what a loader makes of adapters by name."""
    there, asked = environment(name), LOADERS[name]
    jobs = {sample: {"adapter": folder} for sample, folder in folders.items()}
    return there, there.run(asked.script, {"base": base, "tokens": TOKENS, "jobs": jobs, **asked.more}, work)


def once(make: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function that makes what it is asked for once."""
    kept: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in kept:
            kept[name] = make(name)
        return kept[name]

    return of
