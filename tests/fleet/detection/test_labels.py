"""From adapters on disk over a fleet's dataset and a label file to a detector and back to adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.open import open_adapter
from s3lora.errors import AdapterFileError, UsageError
from s3lora.fleet.detection.labels import Labelled, detect, detect_all, labelled, read_labels, recipe_of, train_from
from s3lora.fleet.results.dataset import PARTS
from s3lora.fleet.results.outcome import Settings
from s3lora.fleet.signature import FEATURES, SIGNATURE, signature, vector
from s3lora.fleet.work import Batch, Item, Work, measure
from tests.support import make_adapter

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

EVEN = 48
MODULES = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(2) for name in ("q", "k", "v", "o")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of adapters of two ranks, odd ones much larger, and their dataset in three parts."""
    root = tmp_path_factory.mktemp("fleet")
    folders = []
    for i in range(EVEN):
        rank = 2 + i // 2 % 2
        alpha = rank * (40 if i % 2 else 1)
        config = {"lora_alpha": alpha, "base_model_name_or_path": "Qwen/Qwen2.5-0.5B", "lora_dropout": 0.05}
        shapes = dict.fromkeys(MODULES, (12, 10, rank))
        folders.append(make_adapter(root / f"adapter-{i:02d}", shapes, seed=i, config=config))
    folders.append(make_adapter(root / "fused", {"transformer.h.0.attn.c_attn": (30, 10, 2)}))
    for part in range(3):
        items = tuple(Item(str(folder)) for folder in folders[part::3])
        result = measure(Batch(part, items), Work(Settings(signature=True)))
        where = root / "out" / PARTS / f"{part:06d}"
        where.mkdir(parents=True)
        for table, content in result.tables.items():
            (where / f"{table}.parquet").write_bytes(content)
    return root


def uri(fleet: Path, i: int) -> str:
    return str(fleet / f"adapter-{i:02d}")


def write(path: Path, rows: list[tuple[Any, ...]], head: str = "uri,label,recipe") -> Path:
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.fixture
def labels(fleet: Path, tmp_path: Path) -> Path:
    rows = [(uri(fleet, i), i % 2, f"maker {i % 3}") for i in range(EVEN)]
    return write(tmp_path / "labels.csv", rows)


def test_signatures_are_those_of_the_files(fleet: Path, labels: Path) -> None:
    found = labelled(fleet / "out", labels)
    assert found.uris == tuple(uri(fleet, i) for i in range(EVEN))
    assert found.signatures.shape == (EVEN, len(SIGNATURE))
    for i in (0, 7, 20):
        with open_adapter(found.uris[i]) as adapter:
            values = signature(adapter)
        for variant in FEATURES:
            assert found.rows(variant)[i].tolist() == list(vector(values, variant))
        assert found.labels[i] == i % 2
        assert found.recipes[i] == f"maker {i % 3}"
    assert found.recipes_from == "given"
    assert found.missing == ()


def equal(first: Labelled, second: Labelled) -> bool:
    same = all(getattr(first, name) == getattr(second, name) for name in ("recipes", "uris", "missing", "recipes_from"))
    return same and np.array_equal(first.signatures, second.signatures) and np.array_equal(first.labels, second.labels)


@pytest.mark.parametrize("kind", ["int", "float", "bool", "string"])
def test_a_parquet_file_says_the_same(fleet: Path, labels: Path, tmp_path: Path, kind: str) -> None:
    told = read_labels(labels)
    values = [{"int": int, "float": float, "bool": bool, "string": str}[kind](one.label) for one in told.values()]
    columns = {"uri": [*told], "label": values, "recipe": [one.recipe for one in told.values()], "note": ["x"] * EVEN}
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    assert equal(labelled(fleet / "out", tmp_path / "labels.parquet"), labelled(fleet / "out", labels))


def test_recipes_are_made_of_facts_where_none_are_given(fleet: Path, tmp_path: Path) -> None:
    rows = [(uri(fleet, i), i % 2) for i in range(EVEN)]
    found = labelled(fleet / "out", write(tmp_path / "labels.csv", rows, "uri,label"))
    assert found.recipes_from == "facts"
    assert len(set(found.recipes)) == 4, "two ranks, and two alphas of each"
    projections = "k_proj+o_proj+q_proj+v_proj"
    assert found.recipes[0].endswith(f"r=2 alpha=2 dropout=0.05 init=? {projections}")
    assert found.recipes[1].endswith(f"r=2 alpha=80 dropout=0.05 init=? {projections}")


def test_a_recipe_of_several_ranks_or_of_nothing() -> None:
    assert recipe_of({"rank_min": 4, "rank_max": 16, "init": "olora"}) == "? r=4-16 alpha=? dropout=? init=olora ?"


def test_from_files_to_verdicts(fleet: Path, labels: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    bare = [(uri(fleet, i), i % 2) for i in range(EVEN)]
    absent = [("elsewhere/adapter", 1)]
    detector = train_from(fleet / "out", write(tmp_path / "bare.csv", bare + absent, "uri,label"), folds=3)
    assert detector.tells_apart
    assert detector.training.reference == "the adapters labelled in bare.csv"
    missing = detector.training.left_out[-1]
    assert (missing.count, missing.rows) == (1, ("elsewhere/adapter",))

    paths = [uri(fleet, i) for i in (3, 4)]
    verdicts = detect(detector, *paths, fleet / "fused")
    assert [verdict.unusual for verdict in verdicts] == [True, False, None]
    assert [verdict.known_recipe for verdict in verdicts] == [True, True, False]
    assert "no numbers for q, k, v, o" in verdicts[2].note
    everything = {verdict.uri: verdict for verdict in detect_all(detector, fleet / "out")}
    assert len(everything) == EVEN + 1
    assert [everything[verdict.uri] for verdict in verdicts] == list(verdicts)


def test_an_adapter_without_a_signature_is_left_out_and_named(fleet: Path, labels: Path) -> None:
    pytest.importorskip("sklearn")
    with labels.open("a") as file:
        file.write(f"{fleet / 'fused'},1,maker 1\n")
    left = train_from(fleet / "out", labels, folds=3).training.left_out
    assert [(one.count, one.rows) for one in left] == [(1, (str(fleet / "fused"),))]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "no columns uri and label"),
        ("uri,lable\na,1\n", "no columns uri and label"),
        ("uri,label\n", "holds no label"),
        ("uri,label\na,1\nb,2\n", r"line 3 has the label 2, which is neither 0 nor 1"),
        ("uri,label\na,\n", "which is neither 0 nor 1"),
        ("uri,label\na\n", "which is neither 0 nor 1"),
        ("uri,label\n,1\n", "line 2 has no uri"),
        ("uri,label\na,1\na,0\n", "line 3 says something else of a"),
        ("uri,label,recipe\na,1,x\na,1,y\n", "line 3 says something else of a"),
        ('uri,label\n"a,1\n', "cannot be read as CSV"),
        ("uri,label\n" + "a" * 200_000 + ",1\n", "cannot be read as CSV"),
    ],
)
def test_a_label_file_that_cannot_be_meant_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=problem):
        read_labels(path)


def test_what_a_spreadsheet_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes('\ufeffuri,label,recipe,who\r\n"a,b", 1 ,,me\r\nc,0,x\r\nc,0,x\r\n'.encode())
    told = read_labels(path)
    assert {name: (one.label, one.recipe) for name, one in told.items()} == {"a,b": (1, None), "c": (0, "x")}


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_damaged_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.parquet"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        read_labels(path)


def test_files_that_are_not_there_or_do_not_fit(fleet: Path, tmp_path: Path, labels: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_labels(tmp_path / "nowhere.csv")
    with pytest.raises(AdapterFileError, match="no results of a fleet"):
        labelled(tmp_path, labels)
    with pytest.raises(UsageError, match="none of its uris is in the dataset"):
        labelled(fleet / "out", write(tmp_path / "other.csv", [("x", 0)], "uri,label"))
    pq.write_table(pa.table({"uri": ["a"]}), tmp_path / "labels.parquet")
    with pytest.raises(UsageError, match="no columns uri and label"):
        read_labels(tmp_path / "labels.parquet")
