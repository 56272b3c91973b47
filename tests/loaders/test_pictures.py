"""diffusers: the models of a pipeline compute what they do with ΔW added to their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from s3lora import check
from tests.loaders.environments import environment
from tests.loaders.faults_pictures import PICTURE_INPUTS
from tests.loaders.language import once
from tests.loaders.pictures import MODELS, PICTURES, Studio
from tests.loaders.samples import Made, NoSense
from tests.loaders.seen import Row, compared, relative, settle

pytestmark = pytest.mark.slow
#: Of outputs that are computed in float32.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Return what gives all that diffusers makes of one kind of model."""

    def of(model: str) -> Any:
        there, studio = environment("diffusers"), Studio(tmp_path_factory.mktemp(model), model)
        made = {name: make(studio) for name, make in PICTURES.items()}
        jobs: dict[str, Any] = {"base": {"model": model}}
        for name, one in made.items():
            if isinstance(one, Made):
                np.savez(studio.folder / f"{name}.npz", **one.updates)
                jobs[name] = {"model": model, "adapter": one.folder}
                jobs[f"{name} wanted"] = {"model": model, "updates": studio.folder / f"{name}.npz"}
        return there, made, there.run("run_diffusers.py", {"jobs": jobs}, studio.folder / "run")

    return once(of)


@pytest.mark.parametrize("sample", PICTURES)
@pytest.mark.parametrize("model", MODELS)
def test_it_computes_what_it_should(seen: Callable[[str], Any], model: str, sample: str) -> None:
    there, samples, answers = seen(model)
    made, section = samples[sample], f"samples_{model}"
    if isinstance(made, NoSense):
        settle(there, section, Row(sample, "outputs", "none", reason=made.reason))
        return
    answer, wanted = answers[sample], answers[f"{sample} wanted"]
    assert wanted.error is None, wanted.error
    if answer.error is not None:
        settle(there, section, Row(sample, "outputs", "fails", reason=answer.told))
        return
    row = compared(sample, "outputs", answer.arrays, wanted.arrays, TOLERANCE, "another update")
    settle(there, section, row)
    assert relative(answers["base"].arrays, wanted.arrays) > 100 * TOLERANCE


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    there, studio = environment("diffusers"), Studio(tmp_path_factory.mktemp("faults"), "sd1")
    made = {name: make(studio, name) for name, make in PICTURE_INPUTS.items()}
    jobs: dict[str, Any] = {}
    for name, one in made.items():
        np.savez(studio.folder / f"{name}.npz", **one.updates)
        jobs[name] = {"model": "sd1", "adapter": one.folder}
        jobs[f"{name} wanted"] = {"model": "sd1", "updates": studio.folder / f"{name}.npz"}
    return there, made, there.run("run_diffusers.py", {"jobs": jobs}, studio.folder / "run")


@pytest.mark.parametrize("fault", PICTURE_INPUTS)
def test_the_verdict_is_what_the_loader_did(checked: Any, fault: str) -> None:
    there, faults, answers = checked
    answer, wanted = answers[fault], answers[f"{fault} wanted"]
    assert wanted.error is None, wanted.error
    if answer.error is not None:
        row = Row(fault, "outputs", "fails", reason=answer.told)
    else:
        row = compared(fault, "outputs", answer.arrays, wanted.arrays, TOLERANCE)
    verdict = check(faults[fault].folder, loaders=[f"{there.loader}={there.version}"]).loaders[0].verdict
    settle(there, "checks", replace(row, verdict=verdict))
    assert verdict in (row.result, "unknown"), row
