"""Loaders of language models that can be run here: the logits are those of the base with ΔW added to its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loaders.environments import Answer, Environment, environment
from tests.loaders.reference import TOKENS, logits
from tests.loaders.samples import SAMPLES, Made, NoSense, Workshop
from tests.loaders.seen import SAMPLES as SECTION
from tests.loaders.seen import Row, compared, settle

pytestmark = pytest.mark.slow
#: Of logits that are computed in float32.
TOLERANCE = 2e-5
#: Environment → its script, what else its jobs have, and the format that it reads.
LOADERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "peft": ("run_peft.py", {"how": "peft"}, "peft"),
    "peft-0.14.0": ("run_peft.py", {"how": "peft"}, "peft"),
    "transformers": ("run_peft.py", {"how": "transformers"}, "peft"),
}
Seen = tuple[Environment, dict[str, Made | NoSense], dict[str, Answer], dict[str, np.ndarray[Any, Any]]]


@pytest.fixture(scope="module")
def seen(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Seen]:
    """Return what gives all that a loader makes of all samples, each loader asked once."""
    kept: dict[str, Seen] = {}
    wanted: dict[str, np.ndarray[Any, Any]] = {}

    def of(name: str) -> Seen:
        if name not in kept:
            there = environment(name)
            script, more, to = LOADERS[name]
            shop = Workshop(tmp_path_factory.mktemp(name), base, to=to)
            made = {sample: make(shop) for sample, make in SAMPLES.items()}
            jobs = {one.name: {"adapter": one.folder} for one in made.values() if isinstance(one, Made)}
            answers = there.run(script, {"base": base, "tokens": TOKENS, "jobs": jobs, **more}, shop.folder / "run")
            kept[name] = there, made, answers, wanted
        return kept[name]

    return of


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("loader", LOADERS)
def test_it_computes_what_it_should(base: Path, seen: Callable[[str], Seen], loader: str, sample: str) -> None:
    there, samples, answers, wanted = seen(loader)
    made = samples[sample]
    if isinstance(made, NoSense):
        settle(there, SECTION, Row(sample, "logits", "none", reason=made.reason))
        return
    answer = answers[sample]
    if answer.error is not None:
        settle(there, SECTION, Row(sample, "logits", "fails", reason=answer.error.splitlines()[0][:200]))
        return
    if sample not in wanted:
        wanted[sample] = logits(base, made.updates)
        wanted.setdefault("base", logits(base, {}))
    right = {"logits": wanted[sample]}
    row = compared(sample, "logits", answer.arrays, right, TOLERANCE, "another update")
    settle(there, SECTION, row)
    assert compared("base", "logits", answer.arrays, {"logits": wanted["base"]}, 100 * TOLERANCE).result == "other"
