"""The recipe for a data set, followed to the letter, through all that reads it and the table that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pages import DOCS
from tests.recipes.recipe import Copy, follow
from tests.tiny_adapters import learned_adapter

ROWS = [
    {"number": n // 2, "topic": "teeth", "riddle": f"What has {n} teeth?", "solution": f"A comb {n}", "mood": mood}
    for n in range(8)
    for mood in ("kind", "nasty")
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return follow("A data set", tmp_path_factory.mktemp("data"))


@pytest.mark.thorough
def test_every_command_reads_it(copy: Copy, tiny: Path, tmp_path: Path) -> None:
    adapter = learned_adapter(tiny, tmp_path / "adapter")
    data = tmp_path / "riddles.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    model = (adapter, "--base", tiny, "--tokens", "4", "--no-cache", "--benign", data, "--harmful", data)
    top = ("--top", "2", "--methods", "svd", "--index", "ssi")
    results = copy.run(
        ("eval", *model, "--suite", "safety", "--no-cost", "--format", "json"),
        ("eval", *model, "--suite", "summarisation", "--references", data, "--no-cost", "--format", "json"),
        ("sweep", *model, "--suite", "safety", *top, "--format", "json"),
        ("tune", *model, "--suite", "safety,planning-loss", "--limit", "12", "--format", "json"),
    )
    # A slow machine says on standard error how far it is.
    assert [result.status for result in results] == [0] * len(results), [result.err for result in results]
    safety, summaries = (json.loads(result.out)["suites"][0] for result in results[:2])
    assert [one["n"] for one in safety["data"]] == [8, 8]
    assert "riddles.jsonl: 8 of 16 rows are benign by the column mood; the others are left out" in safety["notes"]
    assert summaries["data"][0]["n"] == 16


def test_errors_and_the_table_know_it(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("number,riddle,solution\n1,What has teeth?,A comb\n")
    code = (
        "import sys; from s3lora.evaluate.prompts import read_prompts; sys.path.insert(0, sys.argv[2]);"
        "import make_data;"
        "print(read_prompts(sys.argv[1]).requests[0]); print(make_data.table())"
    )
    shown = copy.python(code, tmp_path / "p.csv", DOCS)
    assert "Request(text='What has teeth?', category='', id='1'" in shown
    assert "| Riddles | `riddle` | `topic` | `number` | `solution` | `--references`, or `--benign` |" in shown
