"""Loaders of language models that can be run here: the logits are those of the base with ΔW added to its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loaders.language import LOADERS, TOLERANCE, ask, once
from tests.loaders.reference import logits
from tests.loaders.samples import SAMPLES, Made, NoSense, Workshop
from tests.loaders.seen import Row, compared, settle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Return what gives all that a loader makes of all samples, each loader asked once."""

    def of(name: str) -> Any:
        shop = Workshop(tmp_path_factory.mktemp(name), base, to=LOADERS[name].to)
        made = {sample: make(shop) for sample, make in SAMPLES.items()}
        folders = {one.name: one.folder for one in made.values() if isinstance(one, Made)}
        there, answers = ask(name, base, folders, shop.folder / "run")
        return there, made, answers

    return once(of)


@pytest.fixture(scope="module")
def wanted(base: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {"base": logits(base, {})}


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("loader", LOADERS)
def test_it_computes_what_it_should(
    base: Path, seen: Callable[[str], Any], wanted: dict[str, np.ndarray[Any, Any]], loader: str, sample: str
) -> None:
    there, samples, answers = seen(loader)
    made = samples[sample]
    if isinstance(made, NoSense):
        settle(there, "samples", Row(sample, "logits", "none", reason=made.reason))
        return
    answer = answers[sample]
    if answer.error is not None:
        settle(there, "samples", Row(sample, "logits", "fails", reason=answer.told))
        return
    if sample not in wanted:
        wanted[sample] = logits(base, made.updates)
    settle(there, "samples", compared(sample, "logits", answer.arrays, {"logits": wanted[sample]}, TOLERANCE))
    # What would be no test: that the base alone comes out as well.
    assert compared("base", "logits", answer.arrays, {"logits": wanted["base"]}, 100 * TOLERANCE).result == "other"
