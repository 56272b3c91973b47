"""JSON and CSV: the committed schemas are current, and what the commands write is what they say."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from s3lora.choose.select import select
from s3lora.errors import printable
from s3lora.measure.comparison import compare
from s3lora.measure.scan import Scan, scan
from s3lora.report.documents import compare_csv, scan_csv, scan_document, to_json
from s3lora.report.measured_documents import evaluation_csv, sweep_csv, tuning_csv
from s3lora.report.schemas import DOCUMENTS, schema
from tests.command import call
from tests.report import measured
from tests.report.test_text import document, layers, module
from tests.support import make_adapter, shared

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
MODULES = {f"h.{i}.q_proj": (8, 6, 2) for i in range(4)}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_committed_schema_is_current(name: str) -> None:
    """If this fails: write `s3lora.report.schemas.schema(name)` to the file, and tell it in the changelog."""
    assert (SCHEMAS / f"{name}.json").read_text(encoding="utf-8") == schema(name)


def validator(name: str) -> Any:
    content = json.loads(schema(name))
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


def adapters() -> list[Path]:
    """Return everything under the real adapters that can be given to `scan`."""
    found = []
    for folder in sorted((shared() / "adapters").iterdir()):
        weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        found += weights if len(weights) > 1 else [folder] if folder.is_dir() else []
    return found


def test_real_scans_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    check = validator("scan")
    valid = 0
    for path in adapters():
        result = call(capsys, "scan", path, "--format", "json", "--kurtosis")
        if result.status == 0:
            check.validate(json.loads(result.out))
            valid += 1
        else:
            assert result.out == ""
    assert valid >= 9
    check.validate(json.loads(call(capsys, "scan", *adapters(), "--format", "json").out))


def test_real_prunings_are_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = validator("prune")
    valid = 0
    for i, path in enumerate(adapters()):
        result = call(capsys, "prune", path, "-o", tmp_path / str(i), "--format", "json", "--force-flat")
        if result.status == 0:
            check.validate(json.loads(result.out))
            check.validate(json.loads((tmp_path / str(i) / "s3lora.json").read_text()))
            valid += 1
        else:
            assert not (tmp_path / str(i)).exists()
    assert valid >= 8


def test_comparisons_are_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = validator("compare")
    a = make_adapter(tmp_path / "a", {**MODULES, "only.a": (4, 4, 2)}, zero_b=["h.0.q_proj"])
    b = make_adapter(tmp_path / "b", {**MODULES, "h.3.q_proj": (6, 6, 2)}, seed=1)
    content = json.loads(call(capsys, "compare", a, b, "--format", "json").out)
    check.validate(content)
    shapes = {one["path"]: one["shape"] for one in content["modules"] if one["shape"] != [[8, 6], [8, 6]]}
    assert shapes == {"only.a": [[4, 4], None], "h.3.q_proj": [[8, 6], [6, 6]]}
    first, second = (shared() / "adapters" / "qwen25-mlx" / f"0000{i}00_adapters.safetensors" for i in (1, 2))
    check.validate(json.loads(to_json(compare([first, second]))))


def test_the_schemas_reject_what_is_not_written() -> None:
    content = json.loads(to_json(document(layers(3))))
    check = validator("scan")
    check.validate(content)
    for field in ("schema_version", "source", "modules", "plan"):
        broken = {key: value for key, value in content.items() if key != field}
        assert not check.is_valid(broken), field
    assert not check.is_valid({**content, "modules": [{**content["modules"][0], "shape": [1, 2, 3]}]})
    assert not check.is_valid({**content, "modules": [{**content["modules"][0], "indices": {"ssi": "high"}}]})


def test_json_reads_back(tmp_path: Path) -> None:
    measured = scan(make_adapter(tmp_path / "adapter", MODULES))
    assert msgspec.json.decode(msgspec.json.encode(measured), type=Scan) == measured
    written = to_json(scan_document(measured, select(measured)))
    assert written == to_json(scan_document(measured, select(measured)))
    assert written.endswith("}\n")
    assert all(not value for value in ("NaN" in written, "Infinity" in written))


def test_warnings_are_told_once() -> None:
    made = document(layers(3))
    again = scan_document(
        Scan(
            configuration=made.configuration,
            source=made.source,
            warnings=("one", *(made.plan.warnings if made.plan else ())),
            modules=made.modules,
        ),
        made.plan,
    )
    assert len(set(again.warnings)) == len(again.warnings)


def test_csv_cells_are_no_formulas() -> None:
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "a,b", 'say "x"', "two\nlines", "plain"]
    made = dataclasses.replace(document([module(name, 0.5) for name in names]))
    rows = list(csv.reader(io.StringIO(scan_csv([made]))))
    column = rows[0].index("path")
    for name, row in zip(names, rows[1:], strict=True):
        assert row[column] == (f"'{name}" if name[0] in "=+-@" else printable(name))
        assert len(row) == len(rows[0])


def test_csv_tells_apart_adapters_of_one_name(tmp_path: Path) -> None:
    paths = [make_adapter(tmp_path / run / "adapter", MODULES, seed=seed) for seed, run in enumerate("ab")]
    made = [scan_document(measured, None) for measured in map(scan, paths)]
    unknown = dataclasses.replace(made[0], source=dataclasses.replace(made[0].source, sha256=None))
    rows = list(csv.DictReader(io.StringIO(scan_csv([*made, unknown]))))
    assert {row["adapter"] for row in rows} == {"adapter"}
    assert list(dict.fromkeys(row["sha256"] for row in rows)) == [*(one.source.sha256 for one in made), ""]


def test_csv_of_undefined_values_and_negative_numbers() -> None:
    low = dataclasses.replace(module("h.0.q", 0.5), indices={"ssi": 0.5, "frobenius": 1.0, "kurtosis": -1.25})
    made = document([low, module("h.1.q", None)])
    rows = list(csv.DictReader(io.StringIO(scan_csv([made]))))
    assert float(rows[0]["kurtosis"]) == -1.25, "a negative number is a number, not a formula"
    assert (rows[1]["ssi"], rows[1]["kurtosis"], rows[1]["sigma"]) == ("", "", "")


def test_compare_csv(tmp_path: Path) -> None:
    a = make_adapter(tmp_path / "a", MODULES, zero_b=["h.0.q_proj"])
    b = make_adapter(tmp_path / "b", {**MODULES, "only.b": (4, 4, 2)}, seed=1)
    rows = list(csv.DictReader(io.StringIO(compare_csv(compare([a, b])))))
    assert [(row["path"], row["adapter"]) for row in rows] == [(p, n) for p in (*MODULES, "only.b") for n in "ab"]
    assert [(row["frobenius"], row["ssi"], row["distance"], row["cosine"]) for row in rows[:1]] == [("0.0", "", "", "")]
    assert (rows[1]["distance"], rows[1]["cosine"]) == ("", ""), "a is zero there"
    assert -1 <= float(rows[3]["cosine"]) <= 1
    assert [(row["m"], row["n"], row["rank"]) for row in rows[-2:]] == [("", "", ""), ("4", "4", "2")]


MEASURED: dict[str, tuple[Callable[[], Any], ...]] = {
    "eval": (measured.evaluation, measured.bare_evaluation, lambda: measured.hostile_evaluation("=1+1")),
    "sweep": (measured.sweep, measured.bare_sweep, lambda: measured.hostile_sweep("=1+1")),
    "tune": (measured.tuning, lambda: measured.tuning(0), lambda: measured.hostile_tuning("=1+1")),
}


@pytest.mark.parametrize("name", MEASURED)
def test_measurements_are_valid_and_read_back(name: str) -> None:
    check = validator(name)
    for make in MEASURED[name]:
        made = make()
        content = json.loads(to_json(made))
        check.validate(content)
        assert msgspec.json.decode(to_json(made).encode(), type=DOCUMENTS[name]) == made
        assert not check.is_valid({key: value for key, value in content.items() if key != "suites"})


def test_measured_rows_hold_every_metric() -> None:
    evaluation, sweep, tuning = measured.evaluation(), measured.sweep(), measured.tuning()
    rows = list(csv.DictReader(io.StringIO(evaluation_csv(evaluation))))
    assert len(rows) == sum(len(variant.metrics) for variant in evaluation.variants)
    found = next(row for row in rows if row["variant"] == "top 60 by weighted-ssi" and row["measure"] == "asr")
    assert (found["value"], found["n"], found["reference"], found["verdict"]) == (
        "0.14", "100", "made-up-adapter", "lower",
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(sweep_csv(sweep))))
    assert len(rows) == 6 * (2 + len(sweep.points))
    assert sum(row["pareto"] == "true" for row in rows) == 6 * (len(sweep.pareto) + 1)
    assert {row["pareto"] for row in rows if row["kind"] == "base"} == {"true"}
    assert {row["pareto"] for row in rows if row["kind"] == "unpruned"} == {"false"}
    rows = list(csv.DictReader(io.StringIO(tuning_csv(tuning))))
    assert [row["kind"] for row in rows[::6]] == [
        "tuning base", "tuning unpruned", *["tuning"] * 3, "held-out base", "held-out unpruned", "held-out",
    ]  # fmt: skip


def test_measured_cells_are_no_formulas() -> None:
    made = [
        evaluation_csv(measured.hostile_evaluation("=1+1")),
        sweep_csv(measured.hostile_sweep("=1+1")),
        tuning_csv(measured.hostile_tuning("=1+1")),
    ]
    for text in made:
        rows = list(csv.reader(io.StringIO(text)))
        assert {len(row) for row in rows} == {len(rows[0])}
        assert any(cell == "'=1+1" for row in rows for cell in row)
        assert not any(cell.startswith("=") for row in rows for cell in row)
