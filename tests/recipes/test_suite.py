"""The recipes for a suite and for a backend, followed to the letter, through all that measures and shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.recipes.recipe import Copy, follow
from tests.tiny_adapters import tiny_adapter

SHORT = ("--limit", "2", "--tokens", "6", "--no-cache")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return follow("A suite", tmp_path_factory.mktemp("suite"))


@pytest.mark.thorough
def test_every_command_knows_the_suite(copy: Copy, tiny: Path, tmp_path: Path) -> None:
    adapter = tiny_adapter(tiny, tmp_path / "adapter", 1)
    model = (adapter, "--base", tiny, *SHORT)
    both = ("--suite", "safety,brevity")
    top = ("--top", "2", "--methods", "svd", "--index", "ssi")
    results = copy.run(
        ("eval", *model, "--suite", "brevity", "--no-cost"),
        ("eval", *model, "--suite", "brevity", "--no-cost", "--format", "json"),
        ("eval", *model, "--suite", "brevity", "--no-cost", "--format", "csv"),
        ("eval", *model, "--suite", "brevity", "--no-cost", "--format", "html"),
        ("sweep", *model, *both, *top),
        ("sweep", *model, *both, *top, "--format", "json"),
        ("sweep", *model, *both, *top, "--format", "html"),
    )
    assert [(result.status, result.err) for result in results] == [(0, "")] * len(results)
    text, document, table, page, curve, points, curve_page = (result.out for result in results)
    [tuned] = copy.run(("tune", *model, *both))
    # Two items tell nothing, and tune says of which measure.
    assert tuned.status == 2
    assert "nothing can be tuned: brevity words" in tuned.err
    for shown in (text, page, curve, curve_page):
        assert "brevity" in shown
        assert "words" in shown
    [suite] = json.loads(document)["suites"]
    assert (suite["name"], suite["data"][0]["n"], suite["measures"][0]["unit"]) == ("brevity", 2, "words")
    variants = json.loads(document)["variants"]
    # One number an item, of six tokens at most; the base, the adapter and the pruned adapter.
    assert [[m["n"] for m in v["metrics"]] for v in variants] == [[2]] * 3
    assert all(0 <= v["metrics"][0]["value"] <= 6 for v in variants)
    assert "brevity,words" in table
    assert json.loads(points)["utility"] == ["brevity", "words"]
    assert all(point["comparisons"][-1]["suite"] == "brevity" for point in json.loads(points)["points"])


def test_help_and_errors_name_the_suite(copy: Copy) -> None:
    *helps, unknown = copy.run(
        *((command, "--help") for command in ("eval", "sweep", "tune")), ("eval", "x", "--suite", "wit")
    )
    assert all("code-loss, brevity, harness:TASK." in " ".join(shown.out.split()) for shown in helps)
    assert "no suite wit; choose from safety, planning" in unknown.err
    assert unknown.err.rstrip().endswith("maths-loss, code-loss, brevity, harness:TASK")


BACKEND = """
from rich.console import Console
from s3lora.evaluate.evaluation import evaluate_served
from s3lora.evaluate.parrot import Parrot
from s3lora.evaluate.suites import SuiteSettings, build_suites
from s3lora.report.documents import to_json
from s3lora.report.evaluation_text import evaluation_text
from s3lora.report.page import evaluation_page

suites = build_suites(SuiteSettings(names=("safety", "planning"), limit=3))
found = evaluate_served([Parrot("long", 6), Parrot("short", 1)], suites)
assert "a parrot" in evaluation_page(found)
console = Console(width=100)
with console.capture() as capture:
    console.print(evaluation_text(found))
assert "a parrot" in capture.get()
print(to_json(found))
"""


def test_a_backend(tmp_path: Path) -> None:
    document = json.loads(follow("A backend", tmp_path).python(BACKEND))
    assert document["setup"]["backend"] == "a parrot"
    assert [variant["name"] for variant in document["variants"]] == ["long", "short"]
    measured = {(m["suite"], m["measure"]): m["value"] for m in document["variants"][1]["metrics"]}
    assert measured["safety", "asr"] == 1
    assert ("planning", "loss") not in measured
