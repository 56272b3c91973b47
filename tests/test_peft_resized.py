"""Real PEFT: resized adapters and sums load without a warning, and compute the base plus the updates they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import resize, write_sum
from tests.peft_models import difference, gpt2, llama, load, logits, save, torch
from tests.rewrite.wholes import best, updates

TARGETS = {"target_modules": ["q_proj", "v_proj", "down_proj"]}
PATTERNS = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.v_proj": 5}}
TOLERANCE = 1e-5


def expected(changes: dict[str, np.ndarray], make: Any = llama) -> Any:
    """Return the logits of the base with the updates added to its weights in float64, rounded to float32."""
    model = make()
    for path, update in changes.items():
        weight = model.get_submodule(path).weight
        change = torch.from_numpy(update if make is llama else update.T)
        weight.data = (weight.data.double() + change).float()
    return logits(model)


def right(out: Path, wanted: Any, make: Any = llama) -> None:
    for low in (False, True):
        assert difference(logits(load(out, make, low_cpu_mem_usage=low)), wanted) < TOLERANCE
    assert difference(logits(load(out, make).merge_and_unload()), wanted) < TOLERANCE


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, PATTERNS, {**PATTERNS, "use_rslora": True}])
@pytest.mark.parametrize("how", [{"rank": 1}, {"rank": 3}, {"energy": 0.8}])
def test_a_resized_adapter(tmp_path: Path, config, how) -> None:
    full = save(tmp_path / "full", llama, **TARGETS, **config)
    record, _ = resize(full, tmp_path / "out", **how)
    ranks = {module.path: module.rank for module in record.modules}
    wanted = expected({path: best(whole, ranks[path]) for path, whole in updates(full).items()})
    right(tmp_path / "out", wanted)
    assert difference(logits(load(full, llama)), wanted) > 100 * TOLERANCE, "the test can see what was dropped"


def test_a_resized_adapter_of_conv1d(tmp_path: Path) -> None:
    full = save(tmp_path / "full", gpt2, target_modules=["c_attn"], fan_in_fan_out=True)
    resize(full, tmp_path / "out", rank=2)
    wanted = expected({path: best(whole, 2) for path, whole in updates(full).items()}, gpt2)
    right(tmp_path / "out", wanted, gpt2)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, -0.25)])
def test_a_sum(tmp_path: Path, weights, rank: int | None) -> None:
    first = save(tmp_path / "a", llama, target_modules=["q_proj", "v_proj"], use_rslora=True)
    second = save(tmp_path / "b", llama, target_modules=["q_proj", "down_proj"], r=6, rank_pattern={"1.*q_proj": 3})
    write_sum([first, second], tmp_path / "out", weights, rank=rank)
    changes: dict[str, np.ndarray] = {}
    for folder, weight in zip((first, second), weights, strict=True):
        for path, update in updates(folder).items():
            changes[path] = changes.get(path, 0) + weight * update
    if rank is not None:
        changes = {path: best(update, rank) for path, update in changes.items()}
    right(tmp_path / "out", expected(changes))
