"""The recipe for a method: one function and one entry, and every command and page knows it."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.command import Result
from tests.recipes.recipe import Copy, follow
from tests.support import make_adapter

NAME = "row-norms"
PATHS = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(4) for p in "qv"]
METHOD = ("--method", NAME)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return follow("A method", tmp_path_factory.mktemp("copy"))


def adapter(folder: Path, seed: int = 0, **more: Any) -> Path:
    return make_adapter(folder, dict.fromkeys(PATHS, (16, 12, 4)), seed=seed, **more)


def done(result: Result) -> str:
    assert (result.status, result.err) == (0, "")
    return result.out


def test_one_adapter(copy: Copy, tmp_path: Path) -> None:
    path = adapter(tmp_path / "a", zero_b=PATHS[:1])
    forms = ("text", "json", "csv", "html", "svg", "sarif", "junit")
    results = copy.run(*(("scan", path, *METHOD, "--format", form) for form in forms))
    text, data, table, page, drawing, sarif, junit = map(done, results)
    assert NAME in text
    document = json.loads(data)
    assert document["configuration"]["method"] == NAME
    tensors = load_file(path / "adapter_model.safetensors")
    for module in document["modules"]:
        a, b = (tensors[f"base_model.model.{module['path']}.lora_{side}.weight"] for side in "AB")
        norms = sorted(np.linalg.norm(module["scaling"] * b.astype(float) @ a, axis=1), reverse=True)[:4]
        assert module["sigma"] == ([] if module["zero"] else pytest.approx(norms, rel=1e-6))
    assert next(csv.DictReader(io.StringIO(table)))["sigma"] == ""
    assert NAME in page
    assert "<svg" in drawing
    if importlib.util.find_spec("resvg_py") is not None:  # which the extra `plots` brings
        (picture,) = copy.run(("scan", path, *METHOD, "--format", "png", "-o", tmp_path / "map.png"))
        done(picture)
        assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(sarif)["runs"]
    assert "<testsuites" in junit
    (unasked,) = copy.run(("scan", path, "--format", "html"))
    assert NAME in done(unasked), "the page shows every method that is not dense"


def test_what_is_chosen_by_it(copy: Copy, tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    (scanned,) = copy.run(("scan", path, *METHOD, "--top", "2", "--format", "json"))
    wanted = [one["path"] for one in json.loads(done(scanned))["plan"]["chosen"]]
    forms = ("text", "json", "csv", "html")
    results = copy.run(
        *(("prune", path, "-o", tmp_path / form, *METHOD, "--top", "2", "--format", form) for form in forms)
    )
    for form, result in zip(forms, results, strict=True):
        assert result.status == 0, result.err
        record = json.loads((tmp_path / form / "s3lora.json").read_text())
        assert record["configuration"]["method"] == NAME
        assert [one["path"] for one in record["plan"]["chosen"]] == wanted
    restored, carded, listed = copy.run(
        ("restore", tmp_path / "text", "--from", path, "-o", tmp_path / "back"),
        ("card", tmp_path / "json"),
        ("bom", tmp_path / "csv"),
    )
    assert restored.status == 0, restored.err
    assert carded.status == 0, carded.err
    assert f"`{NAME}`" in (tmp_path / "json" / "README.md").read_text()
    assert NAME in done(listed)

    (drawn,) = copy.run(("scan", path, *METHOD, "--rule", "null", "--draws", "100"))
    done(drawn)
    policy = tmp_path / "s3lora.toml"
    policy.write_text(f'method = "{NAME}"\n')
    (obeyed,) = copy.run(("scan", path, "--policy", policy, "--format", "json"))
    assert json.loads(obeyed.out)["configuration"]["method"] == NAME


def test_several_adapters(copy: Copy, tmp_path: Path) -> None:
    path, other = adapter(tmp_path / "a"), adapter(tmp_path / "b", 1)
    forms = ("text", "json", "csv", "html")
    compared = copy.run(*(("compare", path, other, *METHOD, "--format", form) for form in forms))
    assert json.loads(done(compared[1]))["configuration"]["method"] == NAME
    assert all(map(done, compared))
    summed = copy.run(*(("compose", path, other, *METHOD, "--format", form) for form in forms[:3]))
    assert json.loads(done(summed[1]))["configuration"]["method"] == NAME
    assert all(map(done, summed))


def test_many_adapters(copy: Copy, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("duckdb")
    for i in range(3):
        adapter(tmp_path / "in" / f"a{i}", i)
    out, reference = tmp_path / "out", tmp_path / "ref.parquet"
    scanned, shown, built, standing = copy.run(
        ("fleet", "scan", tmp_path / "in", "--out", out, *METHOD, "--workers", "1", "--quiet"),
        ("fleet", "report", out, "--reports", tmp_path / "pages", "-o", tmp_path / "page.html"),
        ("fleet", "reference", "build", out, "-o", reference),
        ("scan", tmp_path / "in" / "a0", *METHOD, "--reference", reference),
    )
    assert scanned.status == 0, scanned.err
    assert json.loads((out / "fleet.json").read_text())["settings"]["scan"]["method"] == NAME
    done(shown)
    assert NAME in (tmp_path / "page.html").read_text()
    assert built.status == 0, built.err
    assert "percentile" in done(standing)


def test_every_command_offers_it(copy: Copy) -> None:
    commands = ("scan", "prune", "compare", "compose", "card", "eval", "tune", "fleet scan")
    results = copy.run(*((*command.split(), "--help") for command in commands))
    for command, result in zip(commands, results, strict=True):
        assert NAME in "".join(done(result).split()), command
    labels = "from s3lora.evaluate.rankings import rankings\nprint([r.label for r in rankings(['row-norms'], ['ssi'])])"
    assert copy.python(labels).strip() == "['ssi (row-norms)']"
