"""PEFT's hot-swap: what comes of putting one adapter into the place of another, and what `check` says of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3lora import check
from tests.loaders.environments import environment
from tests.loaders.faults import INPUTS
from tests.loaders.language import TOLERANCE, once
from tests.loaders.reference import TOKENS, logits
from tests.loaders.samples import SAMPLES, Made, Workshop
from tests.loaders.seen import Row, compared, settle

pytestmark = pytest.mark.slow
#: From one adapter to another: samples, or inputs that `check` is held against.
PAIRS = {
    "swap-itself": ("original", "original"),
    "swap-full-removed": ("original", "pruned-remove"),
    "swap-removed-full": ("pruned-remove", "original"),
    "swap-full-zeroed": ("original", "pruned-zero"),
    "swap-zeroed-full": ("pruned-zero", "original"),
    "swap-repaired": ("original", "repaired"),
    "swap-resized": ("original", "resized"),
    "swap-patterns": ("patterns", "patterns"),
    "swap-rslora": ("rslora", "rslora"),
    "swap-baked": ("baked", "baked"),
    "swap-dora": ("dora", "dora"),
    "swap-head": ("head", "head"),
    "swap-embeddings": ("embeddings", "embeddings"),
    "swap-tokens": ("tokens", "tokens"),
    "swap-bias": ("bias", "bias"),
}
ENVIRONMENTS = ("peft", "peft-0.14.0")


@pytest.fixture(scope="module")
def seen(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    def of(name: str) -> Any:
        there, shop = environment(name), Workshop(tmp_path_factory.mktemp(name), base)
        made: dict[str, Any] = {}
        for one in dict.fromkeys(end for pair in PAIRS.values() for end in pair):
            made[one] = SAMPLES[one](shop) if one in SAMPLES else INPUTS[one](shop, one)
        jobs = {
            pair: {"first": made[first].folder, "second": made[second].folder}
            for pair, (first, second) in PAIRS.items()
        }
        return (
            there,
            made,
            there.run("run_swap.py", {"base": base, "tokens": TOKENS, "jobs": jobs}, shop.folder / "run"),
        )

    return once(of)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("loader", ENVIRONMENTS)
def test_what_a_swap_does(base: Path, seen: Callable[[str], Any], loader: str, pair: str) -> None:
    there, made, answers = seen(loader)
    second, answer = made[PAIRS[pair][1]], answers[pair]
    if answer.error is not None:
        row = Row(pair, "logits", "fails", reason=answer.told)
    else:
        right = (
            logits(base, second.updates) if isinstance(second, Made) else logits(base, second.updates, second.weights)
        )
        row = compared(pair, "logits", answer.arrays, {"logits": right}, TOLERANCE, "another update")
    settle(there, "swaps", row)
    if PAIRS[pair][0] == PAIRS[pair][1] and there.version != "0.14.0":
        notes = " ".join(check(second.folder, loaders=[f"peft={there.version}"])["peft"].notes)
        told = {True: "fails", False: "same"}["cannot hot-swap" in notes]
        told = "other" if "hot-swaps it wrongly" in notes else told
        assert told == row.result, (row, notes)
