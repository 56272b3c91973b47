"""The recipe for a condition: one record, and every rule, policy and report knows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recipes.recipe import Copy, follow
from tests.support import make_adapter

NAME, ID = "float64-tensors", "S3L019"
PATHS = [f"model.layers.{i}.self_attn.q_proj" for i in range(3)]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return follow("A condition", tmp_path_factory.mktemp("copy"))


def test_every_report_tells_of_it(copy: Copy, tmp_path: Path) -> None:
    wide = make_adapter(tmp_path / "wide", dict.fromkeys(PATHS, (16, 12, 4)), dtype="float64")
    narrow = make_adapter(tmp_path / "narrow", dict.fromkeys(PATHS, (16, 12, 4)), dtype="float32")
    policy = tmp_path / "s3lora.toml"
    policy.write_text(f'fail-on = ["{NAME} > 5"]\n')
    fail, strict, allowed, few, by_policy, clean, sarif, junit, known = copy.run(
        ("scan", wide, "--fail-on", NAME),
        ("scan", wide, "--fail-on", "strict"),
        ("scan", wide, "--fail-on", "strict", "--allow", f"{NAME}: trained so"),
        ("scan", wide, "--fail-on", f"{NAME} > 6"),
        ("scan", wide, "--policy", policy),
        ("scan", narrow, "--fail-on", NAME),
        ("scan", wide, "--fail-on", NAME, "--format", "sarif"),
        ("scan", wide, "--fail-on", NAME, "--format", "junit"),
        ("scan", wide, "--allow", "nothing"),
    )
    statuses = [one.status for one in (fail, strict, allowed, few, by_policy, clean, sarif, junit, known)]
    assert statuses == [1, 1, 0, 0, 1, 0, 1, 1, 2]
    assert f"{NAME} is 6 (base_model.model.{PATHS[0]}.lora_A.weight" in fail.err
    assert f"allowed: {NAME} is 6" in allowed.err
    assert "trained so" in allowed.err
    assert NAME in known.err, "what can be allowed is listed"
    run = json.loads(sarif.out)["runs"][0]
    assert [one["ruleId"] for one in run["results"]] == [ID]
    assert ID in [one["id"] for one in run["tool"]["driver"]["rules"]]
    assert f'name="{ID} {NAME} &gt; 0"' in junit.out
