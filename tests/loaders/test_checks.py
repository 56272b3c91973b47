"""What `s3lora check` says of an adapter, sound or faulty, is what the loader then does with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s3lora import S3LoRAError, check
from tests.loaders.faults import INPUTS
from tests.loaders.faults_mlx import MLX_INPUTS
from tests.loaders.language import LOADERS, TOLERANCE, ask, once
from tests.loaders.reference import logits
from tests.loaders.samples import Workshop
from tests.loaders.seen import Row, compared, settle

pytestmark = pytest.mark.slow
#: What a loader is given, by the format that it reads.
GIVEN = {"peft": INPUTS, "mlx": MLX_INPUTS}
CASES = [(name, fault) for name, asked in LOADERS.items() for fault in GIVEN[asked.to]]


@pytest.fixture(scope="module")
def seen(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    def of(name: str) -> Any:
        shop = Workshop(tmp_path_factory.mktemp(name), base)
        made = {fault: make(shop, fault) for fault, make in GIVEN[LOADERS[name].to].items()}
        folders = {fault: one.folder for fault, one in made.items()}
        there, answers = ask(name, base, folders, shop.folder / "run")
        return there, made, answers

    return once(of)


@pytest.fixture(scope="module")
def wanted() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize(("loader", "fault"), CASES)
def test_the_verdict_is_what_the_loader_did(
    base: Path, seen: Callable[[str], Any], wanted: dict[str, Any], loader: str, fault: str
) -> None:
    there, faults, answers = seen(loader)
    made, answer = faults[fault], answers[fault]
    if answer.error is not None:
        row = Row(fault, "logits", "fails", reason=answer.told)
    elif not made.fits:
        row = Row(fault, "logits", "other", reason="goes on with what the base has")
    else:
        if fault not in wanted:
            wanted[fault] = logits(base, made.updates, made.weights, made.since, made.layers)
        row = compared(fault, "logits", answer.arrays, {"logits": wanted[fault]}, TOLERANCE)
    try:
        verdict = check(made.folder, str(base), [f"{there.loader}={there.version}"]).loaders[0].verdict
    except S3LoRAError as error:
        verdict = f"refused: {error}"
    settle(there, "checks", replace(row, verdict=verdict))
    assert verdict in (row.result, "unknown"), row
