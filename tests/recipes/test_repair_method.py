"""The recipe for a method of repair, followed to the letter, through the command that repairs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.recipes.recipe import follow
from tests.repair.subjects import made, refusing_list


def test_the_command_knows_the_method(tmp_path: Path) -> None:
    copy = follow("A repair method", tmp_path)
    base, adapter = made(tmp_path, scale=0.1)
    judge = refusing_list(tmp_path / "refusals.json")
    loose = ("--max-utility-loss", "90%", "--max-over-refusal", "0.9", "--parts", "10,12,12", "--no-cache")
    repair = ("repair", adapter, "--base", base, "--refusals", judge, *loose, "--method", "level", "--strength", "1")
    shown, done = copy.run(
        ("repair", "--help"),
        (*repair, "-o", tmp_path / "out", "--force", "--format", "json"),
    )
    assert "level" in shown.out
    assert done.status in (0, 1)
    document = json.loads(done.out)
    assert {trial["method"] for trial in document["trials"]} == {"level"}
    assert document["trials"][0]["norm_ratio"] < 1
    if document["repaired"] is not None:
        assert "level was tried on nothing yet" in document["warnings"]
        record = json.loads((tmp_path / "out" / "s3lora.json").read_text())
        assert record["repair"]["method"] == "level"
