"""The recipe for a loader: what it rejects, what it must still find, and every command and page that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.planning import PREFIX, tensors_of
from tests.recipes.recipe import Copy, follow
from tests.support import make_adapter

Q, OUT, UP = (f"model.layers.0.{name}_proj" for name in ("self_attn.q", "self_attn.o", "mlp.up"))
SHAPES = dict.fromkeys((Q, OUT, UP), (12, 10, 2))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return follow("A loader", tmp_path_factory.mktemp("loader"))


def test_what_it_must_find_stays_as_zeros(toy: Copy, tmp_path: Path) -> None:
    adapter, out, back = make_adapter(tmp_path / "adapter", SHAPES), tmp_path / "out", tmp_path / "back"
    given = ("prune", adapter, "--loader", "toy", "--only", "o_proj", "--top", "1")
    shown = toy.run(
        (*given, "-o", out, "--format", "json"),
        *((*given, "-o", tmp_path / form, "--format", form) for form in ("text", "csv", "html")),
        ("prune", out, "-o", tmp_path / "again", "--loader", "toy", "--only", "up_proj", "--top", "1"),
        ("restore", out, "--from", adapter, "-o", back),
        ("card", out),
        ("bom", out),
        ("prune", "--help"),
    )
    assert [result.status for result in shown] == [0] * len(shown), shown
    record = json.loads(shown[0].out)
    assert (record["loader"], record["zeroed"]) == ("toy", {OUT: "is wanted beside a query projection by Toy"})
    assert not tensors_of(out)[f"{PREFIX}{OUT}.lora_B.weight"].any()
    assert tensors_of(out)[f"{PREFIX}{OUT}.lora_A.weight"].any()
    assert UP not in " ".join(tensors_of(tmp_path / "again"))
    assert "1 zeroed" in " ".join(shown[1].out.split())
    assert "is wanted beside a query projection by Toy" in shown[2].out
    assert "remove, for toy" in shown[3].out
    assert "toy" in shown[-1].out
    assert tensors_of(back).keys() == tensors_of(adapter).keys()


def test_what_it_rejects(toy: Copy, tmp_path: Path) -> None:
    magnitude = {f"{Q}.lora_magnitude_vector": np.ones(12, np.float32)}
    dora = make_adapter(tmp_path / "dora", SHAPES, config={"use_dora": True}, heads=magnitude)
    patterned = make_adapter(tmp_path / "patterned", SHAPES, config={"use_rslora": True})
    rejected, also, baked = toy.run(
        ("prune", dora, "-o", tmp_path / "a", "--loader", "toy", "--top", "1"),
        ("prune", patterned, "-o", tmp_path / "b", "--loader", "toy", "--top", "1"),
        ("prune", patterned, "-o", tmp_path / "c", "--loader", "toy", "--top", "1", "--bake-scaling"),
    )
    assert (rejected.status, also.status, baked.status) == (2, 2, 0)
    assert "toy cannot load this adapter: it uses DoRA" in rejected.err
    assert "add --bake-scaling" in also.err
