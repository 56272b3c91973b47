"""The recipe for a format, with a factor that is derived from two stored tensors, through every command."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.command import Result
from tests.fleet.sources.web import serving
from tests.recipes.recipe import Copy, follow
from tests.support import write_safetensors

M, N, RANK = 24, 18, 4
PATHS = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(3) for name in "qv"]
SHARP = PATHS[:2]
HEAD = np.arange(1_000_000, dtype=np.float32)
FORMATS = ("text", "json", "csv", "html", "svg", "sarif", "junit")


def tensors(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Return an adapter whose diag(E) spreads the singular values, of the last module over seven powers of ten."""
    random = np.random.default_rng(seed)
    made: dict[str, np.ndarray[Any, Any]] = {}
    for number, path in enumerate(PATHS):
        made[f"{path}.toy_A"] = random.normal(size=(RANK, N)).astype(np.float32)
        made[f"{path}.toy_E"] = np.logspace(2, 2 - 1.4 * number, RANK).astype(np.float32)
        made[f"{path}.toy_B"] = random.normal(size=(M, RANK)).astype(np.float32)
    ends = {name: made.pop(name) for name in list(made) if name.endswith("toy_E")}
    return made | {"model.head": HEAD} | ends  # so that a part lies where nothing else is fetched


def dense(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return B·diag(E)·A by path, out of the file alone."""
    stored = {name: value.astype(np.float64) for name, value in load_file(folder / "toy.safetensors").items()}
    paths = [name.removesuffix(".toy_B") for name in stored if name.endswith(".toy_B")]
    return {
        path: stored[f"{path}.toy_B"] @ np.diag(stored[f"{path}.toy_E"]) @ stored[f"{path}.toy_A"] for path in paths
    }


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return follow("A format", tmp_path_factory.mktemp("format"))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    (tmp_path / "adapter").mkdir()
    write_safetensors(tmp_path / "adapter" / "toy.safetensors", tensors())
    return tmp_path / "adapter"


def succeeded(results: list[Result]) -> list[str]:
    for result in results:
        assert result.status == 0, result.err
    return [result.out for result in results]


def test_scans(toy: Copy, adapter: Path) -> None:
    sharpest = ("--only", "layers.0", "--top", "2")
    shown = succeeded(
        toy.run(
            ("scan", adapter, "--method", "svd", "--format", "json"),
            *(("scan", adapter, *sharpest, "--format", form) for form in FORMATS),
        )
    )
    content = json.loads(shown[0])
    assert content["source"]["format"] == "toy"
    assert [module["path"] for module in content["modules"]] == PATHS
    oracle = dense(adapter)
    for module in content["modules"]:
        wanted = np.linalg.svd(oracle[module["path"]], compute_uv=False)[:RANK]
        # The condition of the Gram matrices is that of the update, squared.
        assert module["sigma"] == pytest.approx(list(wanted), rel=1e-14 * (wanted[0] / wanted[-1]) ** 1.5 + 1e-13)
        assert (module["rank"], module["dtype"]) == (RANK, "float32")
        assert module["parameters"] == RANK * (M + N + 1), "E is counted too"
    for text, form in zip(shown[1:], FORMATS, strict=True):
        assert text, form


@pytest.mark.parametrize("mode", ["remove", "zero", "clip", "scale"])
def test_prunes_and_restores(toy: Copy, adapter: Path, tmp_path: Path, mode: str) -> None:
    out, back, half = tmp_path / "out", tmp_path / "back", tmp_path / "half"
    chosen = ("--only", "layers.0", "--top", "2")
    printed, *_ = succeeded(
        toy.run(
            ("prune", adapter, "-o", out, "--mode", mode, *chosen, "--format", "json"),
            ("restore", out, "--from", adapter, "-o", back),
            ("restore", out, "--from", adapter, "-o", half, "--module", SHARP[0]),
            *(("prune", adapter, "-o", tmp_path / form, "--mode", mode, *chosen, "--format", form)
              for form in ("text", "csv", "html")),
        )
    )  # fmt: skip
    assert sorted(choice["path"] for choice in json.loads(printed)["plan"]["chosen"]) == SHARP
    before, after = dense(adapter), dense(out)
    assert all(np.array_equal(after[path], before[path]) for path in PATHS[2:])
    for path in SHARP:
        left, sigma, right = np.linalg.svd(before[path])
        wanted = {"zero": 0 * sigma, "clip": np.minimum(sigma, sigma[1]), "scale": sigma / 2}
        if mode == "remove":
            assert path not in after
            assert not any(path in name for name in load_file(out / "toy.safetensors"))
            continue
        rounded = (left[:, :N] * wanted[mode]) @ right
        # Each factor is rounded once: an entry errs by 2·ε·Σ|b||a|.
        assert np.linalg.norm(after[path] - rounded, 2) <= 2 * 2**-24 * RANK * sigma[0]
    assert np.array_equal(load_file(out / "toy.safetensors")["model.head"], HEAD)
    assert (back / "toy.safetensors").read_bytes() == (adapter / "toy.safetensors").read_bytes()
    assert np.array_equal(dense(half)[SHARP[0]], before[SHARP[0]])


def test_changed_factors_are_split_into_their_parts(toy: Copy, adapter: Path, tmp_path: Path) -> None:
    succeeded(toy.run(("prune", adapter, "-o", tmp_path / "out", "--mode", "clip", "--only", "layers.0", "--top", "2")))
    after = load_file(tmp_path / "out" / "toy.safetensors")
    assert set(after[f"{SHARP[0]}.toy_E"]) == {1.0}
    assert {values.dtype for values in after.values()} == {np.dtype(np.float32)}


def test_compares_composes_and_describes(toy: Copy, adapter: Path, tmp_path: Path) -> None:
    other, card, out = tmp_path / "other", tmp_path / "README.md", tmp_path / "out"
    other.mkdir()
    write_safetensors(other / "toy.safetensors", tensors(1))
    card.write_text("# An adapter\n")
    compared, composed, bill, *_ = succeeded(
        toy.run(
            ("compare", adapter, other, "--format", "json"),
            ("compose", adapter, other, "--format", "json"),
            ("bom", adapter),
            ("prune", adapter, "-o", out, "--only", "layers.0", "--top", "2"),
            *(("compare", adapter, other, "--format", form) for form in ("text", "csv", "html")),
            *(("compose", adapter, other, "--format", form) for form in ("text", "csv")),
            ("bom", out),
            ("card", out, "-o", card),
        )
    )
    first, second = dense(adapter), dense(other)
    for module in json.loads(composed)["modules"]:
        both = np.linalg.norm(first[module["path"]] + second[module["path"]])
        assert module["together"]["indices"]["frobenius"] == pytest.approx(both, rel=1e-9)
    assert [module["path"] for module in json.loads(compared)["modules"]] == PATHS
    properties = {part["name"]: part["value"] for part in json.loads(bill)["metadata"]["component"]["properties"]}
    assert int(properties["s3lora:parameters:lora"]) == RANK * (M + N + 1) * len(PATHS)
    assert "2 removed" in card.read_text()


def test_fleets(toy: Copy, adapter: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("duckdb")
    pytest.importorskip("aiohttp")
    with serving() as site:
        url = f"{site.add(adapter, 'run')}/toy.safetensors"
        out = tmp_path / "fleet"
        query = "select m.path, m.parameters, m.frobenius, a.content from modules m join adapters a using (uri)"
        *_, table = succeeded(
            toy.run(
                ("fleet", "scan", adapter, url, "--out", out, "--quiet", "--signature"),
                ("fleet", "report", out),
                ("fleet", "query", out, query, "--format", "csv"),
            )
        )
        assert 0 < site.sent < HEAD.nbytes, "the head is not fetched"
    rows = list(csv.DictReader(io.StringIO(table)))
    oracle = dense(adapter)
    assert len(rows) == 2 * len(PATHS)
    assert len({row["content"] for row in rows}) == 1, "one content, wherever it lies"
    for row in rows:
        assert float(row["frobenius"]) == pytest.approx(np.linalg.norm(oracle[row["path"]]), rel=1e-9)
        assert int(row["parameters"]) == RANK * (M + N + 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"toy_E": None}, "has toy_A and toy_B but no toy_E"),
        ({"toy_E": np.ones(RANK - 1, np.float32)}, "do not fit"),
        ({"toy_E": np.ones((RANK, 2), np.float32)}, "is no vector"),
        ({"toy_A": np.ones((RANK + 1, N), np.float32)}, "do not fit"),
        ({"toy_E": np.full(RANK, np.nan, np.float32)}, "NaN"),
    ],
)
def test_damaged_files(toy: Copy, adapter: Path, change: dict[str, Any], says: str) -> None:
    changed = tensors() | {f"{PATHS[0]}.{part}": values for part, values in change.items()}
    write_safetensors(
        adapter / "toy.safetensors", {name: values for name, values in changed.items() if values is not None}
    )
    (result,) = toy.run(("scan", adapter))
    assert (result.status, result.out) == (2, "")
    assert says in result.err
    assert PATHS[0] in result.err
