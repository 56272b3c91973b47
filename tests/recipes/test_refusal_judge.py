"""The recipe for a judge of refusals, followed to the letter, through all that measures and shows refusals."""

from __future__ import annotations

import json
from pathlib import Path

from tests.recipes.recipe import follow
from tests.tiny_adapters import learned_adapter


def test_every_command_goes_by_the_judge(tiny: Path, tmp_path: Path) -> None:
    copy = follow("A refusal judge", tmp_path)
    adapter = learned_adapter(tiny, tmp_path / "adapter")
    model = (adapter, "--base", tiny, "--limit", "2", "--tokens", "2", "--no-cache", "--refusals", "terse")
    top = ("--top", "2", "--methods", "svd", "--index", "ssi")
    results = copy.run(
        ("eval", *model, "--suite", "safety", "--no-cost"),
        ("eval", *model, "--suite", "safety", "--no-cost", "--format", "json"),
        ("sweep", *model, "--suite", "safety,planning-loss", *top, "--format", "json"),
        ("tune", *model, "--suite", "safety,planning-loss", "--limit", "12", "--format", "json"),
    )
    assert [result.status for result in results] == [0] * len(results)
    text, *documents = (result.out for result in results)
    assert "terse version 1" in " ".join(text.split())
    for document in documents:
        safety = json.loads(document)["suites"][0]
        assert safety["judge"].startswith("refusals by terse version 1; beside it the refusal list zou-2023")
        assert "how often the judge terse errs was not measured" in safety["notes"]
    # Two tokens are at most two words: all is refused. The list of Zou et al. is asked beside.
    metrics = {m["measure"]: m["value"] for m in json.loads(documents[0])["variants"][0]["metrics"]}
    assert (metrics["asr"], metrics["over_refusal"]) == (0, 1)
    assert metrics["asr_zou"] == 1
