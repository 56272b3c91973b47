"""The recipe for an index: one function and one entry, and every command and page knows it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.command import Result, call
from tests.recipes.recipe import Copy, follow
from tests.support import make_adapter

NAME, OPTION, TITLE = "pair_energy", "pair-energy", "energy of two"
PATHS = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(4) for p in "qv"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return follow("An index", tmp_path_factory.mktemp("copy"))


def adapter(folder: Path, seed: int = 0, rank: int = 4) -> Path:
    return make_adapter(folder, dict.fromkeys(PATHS, (16, 12, rank)), seed=seed)


def done(result: Result) -> str:
    assert (result.status, result.err) == (0, "")
    return result.out


def test_one_adapter(copy: Copy, tmp_path: Path) -> None:
    path, other = adapter(tmp_path / "a"), adapter(tmp_path / "b", 1)
    chosen = ("--index", OPTION, "--top", "2")
    forms = ("text", "json", "csv", "html", "svg", "sarif", "junit")
    results = copy.run(*(("scan", path, *chosen, "--format", form) for form in forms))
    text, data, table, page, drawing, sarif, junit = map(done, results)
    assert f"top 2 by {NAME}" in text
    document = json.loads(data)
    values = {module["path"]: module["indices"][NAME] for module in document["modules"]}
    top = sorted(values, key=values.__getitem__, reverse=True)[:2]
    assert [one["path"] for one in document["plan"]["chosen"]] == top
    assert {row["path"]: float(row[NAME]) for row in csv.DictReader(io.StringIO(table))} == pytest.approx(values)
    assert f">{TITLE}</option>" in page
    assert "<svg" in drawing
    assert json.loads(sarif)["runs"]
    assert "<testsuites" in junit

    limit = sorted(values.values())[-3]
    failed, said = copy.run(
        ("scan", path, "--fail-on", f"{NAME} > {limit!r}", "--quiet"),
        ("scan", path, "--fail-on", f"{NAME} > {limit!r}", "--format", "sarif"),
    )
    assert failed.status == said.status == 1
    assert all(one in failed.err for one in top[:1])
    assert NAME in said.out

    forms = ("text", "json", "csv", "html")
    results = copy.run(*(("prune", path, "-o", tmp_path / form, *chosen, "--format", form) for form in forms))
    for form, result in zip(forms, results, strict=True):
        assert result.status == 0, result.err
        record = json.loads((tmp_path / form / "s3lora.json").read_text())
        assert record["plan"]["index"] == NAME
        assert [one["path"] for one in record["plan"]["chosen"]] == top
    restored, carded, listed = copy.run(
        ("restore", tmp_path / "text", "--from", path, "-o", tmp_path / "back"),
        ("card", tmp_path / "json", "--index", OPTION),
        ("bom", tmp_path / "csv"),
    )
    assert restored.status == 0, restored.err
    assert carded.status == 0, carded.err
    card = (tmp_path / "json" / "README.md").read_text()
    assert f"Index: `{NAME}`" in card
    assert "the share of the first two directions, in" in card
    assert NAME in done(listed)

    compared = copy.run(*(("compare", path, other, "--format", form) for form in forms))
    assert all(map(done, compared))
    text, data, table = map(done, copy.run(*(("compose", path, other, "--format", form) for form in forms[:3])))
    assert text
    assert NAME in data
    assert NAME in table

    policy = tmp_path / "s3lora.toml"
    policy.write_text(f'index = "{OPTION}"\nfail-on = ["{NAME} > 2"]\n')
    (obeyed,) = copy.run(("scan", path, "--policy", policy, "--format", "json"))
    assert obeyed.status == 0
    assert json.loads(obeyed.out)["plan"]["index"] == NAME


def test_rules_and_pages_know_what_it_is(copy: Copy, tmp_path: Path) -> None:
    """It has a range, so that the null rule can draw for it, and depends on the rank, which a scan says."""
    path = adapter(tmp_path / "a")
    mixed = make_adapter(tmp_path / "m", {PATHS[0]: (16, 12, 2), PATHS[1]: (16, 12, 8), PATHS[2]: (16, 12, 8)})
    null, ranks, refused = copy.run(
        ("scan", path, "--index", OPTION, "--rule", "null", "--draws", "100"),
        ("scan", mixed, "--index", NAME),
        ("scan", path, "--index", "magnitude", "--rule", "null"),
    )
    done(null)
    assert f"{NAME} does not" in " ".join(ranks.out.split())
    assert refused.status == 2
    assert NAME in refused.err


def test_many_adapters(copy: Copy, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("duckdb")
    for i in range(4):
        adapter(tmp_path / "in" / f"a{i}", i, rank=1 if i == 3 else 4)
    out, reference = tmp_path / "out", tmp_path / "ref.parquet"
    (scanned,) = copy.run(("fleet", "scan", tmp_path / "in", "--out", out, "--workers", "1", "--quiet"))
    assert scanned.status == 0, scanned.err
    rows = json.loads(done(*copy.run(
        ("fleet", "query", out, f"SELECT uri, path, {NAME} FROM modules ORDER BY {NAME} DESC", "--format", "json")
    )))  # fmt: skip
    assert len(rows) == 32
    data, page, pages = copy.run(
        ("fleet", "report", out, "--index", OPTION, "--format", "json"),
        ("fleet", "report", out, "--index", OPTION),
        ("fleet", "report", out, "--index", NAME, "--reports", tmp_path / "pages", "-o", tmp_path / "page.html"),
    )
    found = json.loads(done(data))
    assert found["unusual"]["index"] == NAME
    assert found["unusual"]["rank_one"] == 1, "it says nothing of rank 1"
    assert found["distributions"][0]["index"] == NAME
    assert f"whose {TITLE} is 1 always" in done(page) or f"its {TITLE} is 1 always" in page.out
    done(pages)
    assert all(TITLE in one.read_text() for one in (tmp_path / "pages").iterdir())

    built, shown, told, standing = copy.run(
        ("fleet", "reference", "build", out, "-o", reference),
        ("fleet", "report", out, "--index", NAME, "--reference", reference, "--format", "json"),
        ("scan", tmp_path / "in" / "a0", "--index", OPTION, "--reference", reference),
        ("scan", tmp_path / "in" / "a0", "--index", OPTION, "--reference", reference, "--format", "html"),
    )
    assert built.status == 0, built.err
    assert json.loads(done(shown))["unusual"]["against"] == "reference"
    assert "percentile" in done(told)
    assert f"Where this adapter stands by {TITLE}" in done(standing)


def test_a_dataset_from_before(copy: Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("duckdb")
    for i in range(3):
        adapter(tmp_path / "in" / f"a{i}", i)
    out, reference = tmp_path / "out", tmp_path / "ref.parquet"
    scanning = ("fleet", "scan", tmp_path / "in", "--out", out, "--workers", "1", "--quiet", "--batch", "2")
    assert call(capsys, *scanning).status == 0

    refused, asked, report, built, told = copy.run(
        ("fleet", "report", out, "--index", OPTION),
        ("fleet", "query", out, f"SELECT {NAME} FROM modules"),
        ("fleet", "report", out),
        ("fleet", "reference", "build", out, "-o", reference),
        ("scan", tmp_path / "in" / "a0", "--index", OPTION, "--reference", reference),
    )
    assert (refused.status, refused.out) == (2, "")
    assert "scanned before s3lora had the index pair_energy; scan into a new folder" in refused.err
    assert (asked.status, len(asked.err.splitlines())) == (2, 1)
    assert "<html" in done(report)
    assert built.status == 0, built.err
    assert "the reference knows none" in " ".join(done(told).split())

    # One is changed, in a part that keeps an old one beside it, and one is new, in a part of its own.
    adapter(tmp_path / "in" / "a0", 7)
    adapter(tmp_path / "in" / "new", 8)
    resumed, mixed, built = copy.run(
        (*scanning, "--resume"),
        ("fleet", "report", out, "--index", OPTION, "--format", "json"),
        ("fleet", "reference", "build", out, "-o", reference),
    )
    assert resumed.status == 0, resumed.err
    assert json.loads(done(mixed))["unusual"]["adapters"] == 2
    assert built.status == 0, built.err


def test_what_measures_a_model_offers_it(copy: Copy) -> None:
    commands = ("eval", "tune", "prune", "scan", "card", "fleet report")
    for command, result in zip(
        commands, copy.run(*((*command.split(), "--help") for command in commands)), strict=True
    ):
        assert OPTION in "".join(done(result).split()), command
    labels = """
from s3lora.evaluate.rankings import rankings
print([one.label for one in rankings(["svd", "spsvd"], ["pair-energy", "ssi"])])
"""
    assert copy.python(labels).strip() == "['pair_energy', 'ssi (svd)', 'ssi (spsvd)']"
