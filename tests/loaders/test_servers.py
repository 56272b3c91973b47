"""vLLM and SGLang, as far as their loading code runs without an accelerator: their buffers hold what they should."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loaders.environments import Answer, Environment, environment
from tests.loaders.samples import SAMPLES, Made, NoSense, Workshop
from tests.loaders.seen import SAMPLES as SECTION
from tests.loaders.seen import Row, compared, settle

pytestmark = pytest.mark.slow
#: Of factors that were rounded to float32 once or twice, relative to the largest entry of an update.
TOLERANCE = 1e-5
#: A module that every sample changes.
ANY = "model.layers.0.self_attn.q_proj"
#: Environment → its script, and the loader that `prune --loader` writes for.
SERVERS = {
    "vllm-0.10.0": ("run_vllm.py", "vllm"),
    "vllm": ("run_vllm.py", "vllm"),
    "sglang": ("run_sglang.py", "sglang"),
}
Updates = dict[str, np.ndarray[Any, Any]]


#: Why a server makes something else of a sample, or stops at it.
PATTERNS, RANKS = "reads no `rank_pattern` and no `alpha_pattern`", "wants one rank for all modules"
REASONS = {
    ("vllm-0.10.0", "patterns"): PATTERNS,
    ("vllm-0.10.0", "padded"): PATTERNS,
    ("sglang", "patterns"): RANKS,
    ("sglang", "padded"): PATTERNS,
    ("sglang", "summed"): RANKS,
}


def _one_rank(shop: Workshop) -> Made | NoSense:
    """Return the sum, brought to one rank and a scaling of 1."""
    summed = SAMPLES["summed"](dataclasses.replace(shop, folder=shop.folder / "before"))
    if isinstance(summed, NoSense):
        return summed
    out = shop.converted(summed.folder, shop.out("summed-padded"), "peft", bake=True, pad=0)
    return Made("summed-padded", out, summed.updates)


ALL = {**SAMPLES, "summed-padded": _one_rank}
Seen = tuple[Environment, dict[str, Made | NoSense], dict[str, Answer]]


def asked(name: str, jobs: dict[str, dict[str, Path]], base: Path, work: Path) -> tuple[Environment, dict[str, Answer]]:
    """Return what a server makes of adapters."""
    there, (script, _) = environment(name), SERVERS[name]
    return there, there.run(script, {"base": base, "sources": there.folder, "jobs": jobs}, work)


def completed(updates: Updates, held: Updates) -> Updates:
    """Return the updates with zeros for the layers that have none."""
    return {path: np.zeros_like(value) for path, value in held.items()} | updates


@pytest.fixture(scope="module")
def seen(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Seen]:
    """Return what gives all that a server makes of all samples, each server asked once."""
    kept: dict[str, Seen] = {}

    def of(name: str) -> Seen:
        if name not in kept:
            shop = Workshop(tmp_path_factory.mktemp(name), base, loader=SERVERS[name][1])
            made = {sample: make(shop) for sample, make in ALL.items()}
            jobs = {one.name: {"adapter": one.folder} for one in made.values() if isinstance(one, Made)}
            there, answers = asked(name, jobs, base, shop.folder / "run")
            kept[name] = there, made, answers
        return kept[name]

    return of


@pytest.mark.parametrize("sample", ALL)
@pytest.mark.parametrize("server", SERVERS)
def test_it_holds_what_it_should(seen: Callable[[str], Seen], server: str, sample: str) -> None:
    there, samples, answers = seen(server)
    made = samples[sample]
    if isinstance(made, NoSense):
        settle(there, SECTION, Row(sample, "tensors", "none", reason=made.reason))
        return
    answer = answers[sample]
    if answer.error is not None:
        settle(there, SECTION, Row(sample, "tensors", "fails", reason=REASONS.get((server, sample), answer.error)))
        return
    held = answer.arrays
    wanted, why = completed(made.updates, held), REASONS.get((server, sample), "another update")
    settle(there, SECTION, compared(sample, "tensors", held, wanted, TOLERANCE, why))
    assert not np.allclose(held[ANY], 0), "an update that is nowhere would be the same as zeros"
