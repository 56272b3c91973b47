"""What a fleet's dataset says of all that is in an adapter besides its modules, and beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import s3lora
from s3lora.adapter.inventory.model import Inventory
from s3lora.fleet.results.dataset import part_files
from s3lora.fleet.results.inside import NOT_LORA, UNSEEN, inside
from s3lora.fleet.results.queries import ask, saved
from s3lora.fleet.results.schema import INSIDE
from s3lora.fleet.run import fleet_scan
from s3lora.gate.conditions import CONDITIONS
from s3lora.gate.counting import KINDS, Asked
from tests.fleet.inline import Inline, rows
from tests.support import make_adapter

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SHAPES = {f"model.layers.{i}.self_attn.q_proj": (12, 10, 3) for i in range(2)}
WEIGHTS = "adapter_model.safetensors"
NORM = "base_model.model.model.norm.weight"


def run(inputs: list[Any], out: Path, **keywords: Any) -> Any:
    return fleet_scan([str(one) for one in inputs], out, engine=Inline, **keywords)


def row(out: Path, name: str) -> dict[str, Any]:
    return next(row for row in rows(out, "adapters") if row["uri"].rstrip("/").endswith(name))


def add(folder: Path, tensors: Mapping[str, np.ndarray[Any, Any]]) -> None:
    save_file({**load_file(folder / WEIGHTS), **tensors}, folder / WEIGHTS)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """Return an adapter in which nearly everything occurs that is not LoRA."""
    folder = make_adapter(
        tmp_path / "in" / "full", SHAPES, config={"modules_to_save": ["score"], "task_type": "SEQ_CLS"}
    )
    add(
        folder, {NORM: np.full(7, -3, np.float32), "base_model.model.score.weight": np.full((2, 5), np.nan, np.float32)}
    )
    (folder / "run.py").write_text("print(1)\n")
    (folder / "old.safetensors").write_bytes((folder / WEIGHTS).read_bytes()[:-4] + b"\0\0\0\1")
    make_adapter(folder.parent / "plain", SHAPES)
    return folder


def test_the_columns_are_what_the_conditions_count(full: Path, tmp_path: Path) -> None:
    make_adapter(full.parent / "deep", SHAPES, config={"layer_replication": [[0, 2], [0, 2]]}, seed=1)
    run([full.parent], tmp_path / "out")
    assert row(tmp_path / "out", "deep")["base_weights"] == 1
    for name in ("full", "plain", "deep"):
        found, scan = row(tmp_path / "out", name), s3lora.scan(full.parent / name, nonfinite=True)
        asked = Asked(scan)
        for condition in ("unmeasured", "base-weights", "bias", "heads", "tokens", "other-weights", "code", "pickles"):
            counted = len(CONDITIONS[condition].counted(asked))
            assert found[condition.replace("-", "_")] == counted, condition
        for condition in ("dead-modules", "ambiguous"):
            assert found[condition.replace("-", "_")] == len(CONDITIONS[condition].counted(asked))
        bad = found["nonfinite_modules"] + found["overflow_modules"] + found["nonfinite_tensors"]
        assert bad == len(CONDITIONS["nonfinite"].counted(asked))
        assert found["beside"] == "read"
    found = row(tmp_path / "out", "full")
    expected = {"unmeasured": 2, "unmeasured_bytes": 68, "unmeasured_largest": 3.0, "nonfinite_tensors": 1}
    expected |= {"heads": 1, "heads_parameters": 10, "base_weights": 1, "base_weights_parameters": 7, "code": 1}
    assert {name: found[name] for name in expected} == expected
    assert found["other_weights"] > 0
    plain = row(tmp_path / "out", "plain")
    assert {plain[column.name] for column in INSIDE if column.name not in ("beside", "unmeasured_largest")} == {0}


def test_every_column_has_a_value(full: Path) -> None:
    found = inside(Inventory(), "read")
    assert set(found) == {column.name for column in INSIDE}
    assert {name.replace("-", "_") for name in KINDS} <= set(found)


def test_what_is_copied_is_of_the_content_and_what_lies_beside_of_the_place(full: Path, tmp_path: Path) -> None:
    """The modules of both are the same: the numbers come from the first, and nothing else does."""
    run([full], tmp_path / "out")
    first = row(tmp_path / "out", "full")
    run([full.parent], tmp_path / "out")
    second = row(tmp_path / "out", "plain")
    assert (second["content"], second["overflow_modules"]) == (first["content"], 0)
    assert [second[name] for name in NOT_LORA] == [0] * len(NOT_LORA)
    other = tmp_path / "other"
    run([full.parent / "plain"], other)
    run([full.parent], other)
    assert {**row(other, "full"), "fingerprint": ""} == {**first, "fingerprint": ""}, (
        "measured or copied, it is one row"
    )


def test_what_comes_to_lie_beside_an_adapter_is_seen_by_the_next_run(full: Path, tmp_path: Path) -> None:
    plain = full.parent / "plain"
    run([plain], tmp_path / "out")
    (plain / "inner").mkdir()
    (plain / "inner" / "load.py").write_text("import os\n")
    run([plain], tmp_path / "out")
    assert row(tmp_path / "out", "plain")["code"] == 1
    (plain / "inner" / "load.py").unlink()
    run([plain], tmp_path / "out")
    assert row(tmp_path / "out", "plain")["code"] == 0


def test_of_a_file_given_by_itself_nothing_is_known_of_its_folder(full: Path, tmp_path: Path) -> None:
    summary = run([full / WEIGHTS], tmp_path / "out")
    found = row(tmp_path / "out", WEIGHTS)
    assert [found[name] for name in ("beside", "other_weights", "code", "pickles")] == [None] * 4
    assert (found["base_weights"], found["dead_modules"]) == (1, 0)
    assert summary.counts.inside[UNSEEN] == 1


def test_elsewhere_names_tell(full: Path, tmp_path: Path) -> None:
    """Nothing is fetched to know more: heads are not read, and what lies beside is counted by its name."""
    add(full, {"base_model.model.score.weight": np.zeros((300, 1000), np.float32)})
    (full / "training_args.bin").write_bytes(b"PK")
    memory = fsspec.filesystem("memory")
    memory.put(f"{full}/", "/inside/full/", recursive=True)
    run(["memory://inside/full"], tmp_path / "out")
    found = row(tmp_path / "out", "full")
    assert [found[name] for name in ("beside", "other_weights", "code", "pickles")] == ["names", 1, 1, 1]
    assert (found["heads"], found["heads_parameters"]) == (1, 300_000)
    assert (found["unmeasured_largest"], found["nonfinite_tensors"]) == (None, None), "a hole holds no zeros"
    before = found["fingerprint"]
    memory.rm("/inside/full/run.py")
    memory.pipe("/inside/full/README.md", b"told")
    run(["memory://inside/full"], tmp_path / "out")
    assert row(tmp_path / "out", "full")["code"] == 0
    without = row(tmp_path / "out", "full")["fingerprint"]
    memory.rm("/inside/full/README.md")
    run(["memory://inside/full"], tmp_path / "out")
    assert row(tmp_path / "out", "full")["fingerprint"] == without != before
    memory.rm("/inside", recursive=True)


def test_the_saved_query_names_what_is_not_lora(full: Path, tmp_path: Path) -> None:
    summary = run([full.parent], tmp_path / "out")
    assert summary.counts.inside == {
        "unmeasured": 1, "base_weights": 1, "other_weights": 1, "code": 1, "nonfinite_tensors": 1
    }  # fmt: skip
    found = ask(tmp_path / "out", saved("not-lora"))
    (only,) = [dict(zip(found.columns, one, strict=True)) for one in found.rows]
    assert (only["uri"], only["bytes"], only["beside"]) == (str(full), 68, "read")
    others = row(tmp_path / "out", "full")["other_weights"]
    assert only["holds"] == f"2 unmeasured, 1 base weights, {others} other weights, 1 code, 1 nonfinite tensors"


def aged(out: Path) -> None:
    """Take out of a dataset what an older version did not write."""
    gone = {"overflow_modules", *(column.name for column in INSIDE)}
    for file in part_files(out, "adapters"):
        table = pq.read_table(file)
        pq.write_table(table.drop_columns(sorted(gone & set(table.column_names))), file)
    document = json.loads((out / "fleet.json").read_text())
    del document["counts"]["inside"]
    (out / "fleet.json").write_text(json.dumps(document))


def test_a_dataset_of_an_older_version_is_read_and_gone_on_with(full: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([full], out)
    aged(out)
    assert ask(out, saved("not-lora")).rows == ()
    assert ask(out, "SELECT unmeasured, unmeasured_largest, beside FROM adapters").rows == ((None, None, None),)
    shutil.copytree(full, full.parent / "copy")
    run([full.parent], out)
    assert row(out, "copy")["base_weights"] == 1, "copied from a row that has no such column"
    assert row(out, "full")["base_weights"] is None, "it has not changed, and is not read again"
