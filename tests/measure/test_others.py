"""What is not LoRA in several adapters: the same, changed, or only in some, by the digests of the values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.measure.comparison import Comparison, compare
from s3lora.report.compare_others import others, outcome
from s3lora.report.compare_text import compare_text
from s3lora.report.text import to_text
from tests.support import make_adapter, shared, write_safetensors

MODULES = {f"model.layers.{i}.self_attn.q_proj": (8, 6, 2) for i in range(2)}
ONES = np.ones((2, 4), np.float32)


def adapter(folder: Path, seed: int = 0, **heads: Any) -> Path:
    return make_adapter(
        folder, MODULES, seed=seed, heads={f"{name}.weight": values for name, values in heads.items()},
        config={"modules_to_save": ["score"]},
    )  # fmt: skip


def told(comparison: Comparison, *called: str) -> dict[str, str]:
    return {tensor.name: outcome(tensor, called) for tensor in comparison.tensors}


def test_two(tmp_path: Path) -> None:
    first = adapter(tmp_path / "a", score=ONES, norm=ONES, gone=ONES)
    second = adapter(tmp_path / "b", score=2 * ONES, norm=ONES, new=ONES)
    found = compare([first, second])
    assert told(found, "A", "B") == {
        "score.weight": "changed", "norm.weight": "the same in both", "gone.weight": "only in A",
        "new.weight": "only in B",
    }  # fmt: skip
    score = found.tensors[0]
    assert (score.role, score.shape, score.largest) == ("head", ((2, 4), (2, 4)), (1.0, 2.0))
    shown = " ".join(to_text(compare_text(found)).split())
    assert "head 1 tensor changed: score.weight 2×4" in shown
    assert "base weight 1 tensor only in b: new.weight 2×4" in shown
    assert shown.index("1 tensor changed") < shown.index("1 tensor the same in both")


def test_a_run_tells_where_it_changed(tmp_path: Path) -> None:
    values = (ONES, ONES, 2 * ONES, 2 * ONES)
    run = [adapter(tmp_path / f"checkpoint-{i}", i, score=one) for i, one in enumerate(values)]
    late = adapter(tmp_path / "checkpoint-9", 9, norm=ONES)
    found = compare(run)
    assert told(found, "0", "1", "2", "3") == {"score.weight": "changed at 2"}
    found = compare([*run, late])
    assert told(found, *"01239") == {
        "score.weight": "only in 0, 1, 2, 3, and changed", "norm.weight": "only in 9",
    }  # fmt: skip
    assert found.tensors[0].changes == (2, 4)


@pytest.mark.parametrize("other", [ONES.astype(np.float16), ONES.reshape(4, 2)])
def test_another_type_or_shape_is_a_change(tmp_path: Path, other: Any) -> None:
    found = compare([adapter(tmp_path / "a", score=ONES), adapter(tmp_path / "b", score=other)])
    assert told(found, "A", "B") == {"score.weight": "changed"}


def test_names_are_compared_without_wrappers(tmp_path: Path) -> None:
    a, b = np.ones((2, 6), np.float32), np.ones((8, 2), np.float32)
    paths = []
    for i, prefix in enumerate(("base_model.model.", "base_model.model._orig_mod.")):
        folder = adapter(tmp_path / str(i))
        names = {"h.0.q.lora_A.weight": a, "h.0.q.lora_B.weight": b, "score.weight": ONES}
        tensors = {f"{prefix}{name}": values for name, values in names.items()}
        paths.append(write_safetensors(folder / "adapter_model.safetensors", tensors).parent)
    found = compare(paths)
    assert told(found, "A", "B") == {"score.weight": "the same in both"}
    assert any("would not be applied" in note and note.startswith("1: ") for note in found.warnings)


def test_two_names_that_differ_by_a_wrapper_are_both_told(tmp_path: Path) -> None:
    first = adapter(tmp_path / "a", **{"score": ONES, "_orig_mod.score": 2 * ONES})
    found = compare([first, adapter(tmp_path / "b", score=ONES)])
    assert sorted(told(found, "A", "B").values()) == ["only in A", "the same in both"]


def test_nothing_but_lora(tmp_path: Path) -> None:
    found = compare([adapter(tmp_path / "a"), adapter(tmp_path / "b", 1)])
    assert found.tensors == ()
    assert others(found.tensors, "AB") == []
    assert "nothing but LoRA in both" in to_text(compare_text(found))


def test_a_case_with_base_weights_inside_one() -> None:
    cases = shared() / "cases"
    found = compare([cases / "base_weights_inside", cases / "lora_bias_huge"])
    assert {(one.role, outcome(one, "AB")) for one in found.tensors} == {
        ("base weight", "only in A"), ("bias", "only in B"),
    }  # fmt: skip
