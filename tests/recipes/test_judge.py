"""The recipe for a judge, followed to the letter, through every command that judges: in one word, and with a head."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recipes.recipe import Copy, follow
from tests.tiny_adapters import learned_adapter
from tests.tiny_judges import tiny_judge

SHORT = ("--limit", "2", "--tokens", "6", "--no-cache", "--suite", "safety")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return follow("A judge", tmp_path_factory.mktemp("judge"))


@pytest.mark.thorough
def test_every_command_knows_the_judges(copy: Copy, tiny: Path, tmp_path: Path) -> None:
    adapter = learned_adapter(tiny, tmp_path / "adapter")
    # Told from its name.
    gavel = tiny_judge(tmp_path / "Gavel-7B", "rubric", saying=("yes",))
    dam = tiny_judge(tmp_path / "classifier", "rubric", labels={i: f"harm {i}" for i in range(14)})
    config = json.loads((dam / "config.json").read_text())
    (dam / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    model = (adapter, "--base", tiny, *SHORT)
    top = ("--top", "2", "--methods", "svd", "--index", "ssi")
    results = copy.run(
        ("eval", *model, "--no-cost", "--judge", gavel, "--format", "json"),
        ("eval", *model, "--no-cost", "--judge", gavel, "--judge-logits", "--format", "json"),
        ("eval", *model, "--no-cost", "--judge", gavel),
        ("eval", *model, "--no-cost", "--judge", dam, "--judge-profile", "dam", "--format", "json"),
        ("eval", *model, "--no-cost", "--judge", dam, "--judge-profile", "dam", "--format", "html"),
        ("sweep", *model, *top, "--judge", gavel, "--format", "json"),
        ("tune", *model, "--suite", "safety,planning-loss", "--judge", gavel, "--limit", "12", "--format", "json"),
    )
    # Tuning says beforehand what it can tell.
    assert [result.status for result in results] == [0] * len(results)
    assert [result.err for result in results[:-1]] == [""] * (len(results) - 1)
    by_word, by_logits, text, by_head, page, sweep, tuning = (result.out for result in results)
    for document, told, expected in (
        (by_word, "by Gavel-7B, profile gavel version 1, told from its name: our own wording", {"asr_judge": 1}),
        (by_logits, "profile gavel by probability version 1", {"asr_judge": 1, "p_judge": 1}),
        (by_head, "asr_judge, p_judge by classifier, profile dam version 1, as given", {}),
    ):
        [suite] = json.loads(document)["suites"]
        assert told in suite["judge"]
        for variant in json.loads(document)["variants"]:
            values = {m["measure"]: m["value"] for m in variant["metrics"]}
            assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    heads = [m["value"] for v in json.loads(by_head)["variants"] for m in v["metrics"] if m["measure"] == "p_judge"]
    assert len(heads) == 3
    assert all(0 < value < 1 for value in heads)
    assert "asr_judge" in text
    assert "p_judge" in page
    assert all("asr_judge" in document for document in (sweep, tuning))


def test_errors_name_the_judges(copy: Copy) -> None:
    [unknown] = copy.run(("eval", "x", "--base", "y", "--judge", "z", "--judge-profile", "wit"))
    assert unknown.err.rstrip().endswith(
        "no judge profile wit; choose from rubric, llama-guard-3, qwen3guard, harmbench-cls, strongreject, gavel, dam"
    )
