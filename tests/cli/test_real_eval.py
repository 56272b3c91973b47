"""`s3lora eval` on a real small model and the adapter that comes with s3lora, which was trained to plan."""

from __future__ import annotations

from pathlib import Path

import pytest

import s3lora
from tests.cli.measured import validated
from tests.command import process
from tests.small_model import small_model

DEMO = Path(s3lora.__file__).parent / "data" / "demo-adapter"


@pytest.mark.thorough
def test_the_demo_adapter(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    given = ("--suite", "safety,planning", "--limit", "2", "--tokens", "safety=16,planning=96", "--no-cost")
    result = process(
        *("eval", DEMO, "--base", small_model(), *given, "--cache", tmp_path, "--format", "json"),
        env={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"},
    )
    assert (result.status, result.err) == (0, "")
    document = validated("eval", result.out)
    base, adapter, pruned = document["variants"]
    metrics = [{(m["suite"], m["measure"]): m for m in v["metrics"]} for v in (base, adapter, pruned)]
    assert {m["safety", "asr"]["n"] for m in metrics} == {2}
    # The base has never seen the form of these plans.
    assert metrics[0]["planning", "well_formed"]["value"] < metrics[1]["planning", "well_formed"]["value"]
    assert metrics[0]["planning", "loss"]["value"] > metrics[1]["planning", "loss"]["value"]
    assert [v["loaded"]["modules"] for v in (base, adapter, pruned)] == [0, 120, 110]
    assert len(pruned["pruned"]) == pruned["share"]["modules"] == 10
    left = 1 - pruned["share"]["parameters"] / pruned["share"]["parameters_total"]
    assert pruned["loaded"]["parameters"] == round(adapter["loaded"]["parameters"] * left)
    assert pruned["loaded"]["flops_per_token"] < adapter["loaded"]["flops_per_token"]
    compared = {(c["variant"], c["reference"]) for c in document["comparisons"]}
    assert compared == {("demo-adapter", "base"), ("demo-adapter, pruned", "demo-adapter")}
