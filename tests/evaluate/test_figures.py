"""Which figures of a measurement are those of one adapter; and measurements that are none."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from s3lora.adapter.digest import FileDigest, Source
from s3lora.errors import UsageError
from s3lora.evaluate.figures import figures_of
from s3lora.evaluate.reading import read_measurement
from s3lora.evaluate.results import Evaluation, Variant
from s3lora.measure.configuration import Configuration
from s3lora.report.documents import to_json
from s3lora.rewrite.provenance import Provenance
from tests.planning import provenance_of
from tests.report import measured

ORIGINAL = measured.source()
OWN = Source("pruned", "peft", "99" * 32, (FileDigest("adapter_model.safetensors", 900, "99" * 32),), None)
LABELS = ["base alone", "before pruning", "this adapter"]


def record(paths: tuple[str, ...], action: Any = "removed", **fields: Any) -> Provenance:
    given = {"source": ORIGINAL, "index": "weighted_ssi", "rule": "top 30", **fields}
    return provenance_of(given.pop("source"), paths, action, **given)


def paths(top: int) -> tuple[str, ...]:
    return measured.pruned_variant("x", top, 0.5, 0.4).pruned


def labels(found: Any) -> list[str]:
    return [label for label, _ in found.columns]


def test_an_adapter_in_an_evaluation() -> None:
    found = figures_of(measured.evaluation(), ORIGINAL, None, "x")
    assert labels(found) == ["base alone", "this adapter"]
    assert found.columns[-1][1] == measured.UNPRUNED.metrics
    assert found.comparisons == ()


@pytest.mark.parametrize("top", [30, 60])
def test_a_pruned_adapter_in_the_evaluation_of_its_original(top: int) -> None:
    evaluation = measured.evaluation()
    found = figures_of(evaluation, OWN, record(paths(top)), "x")
    variant = next(v for v in evaluation.variants if len(v.pruned) == top)
    assert labels(found) == LABELS
    assert found.columns[-1][1] == variant.metrics
    assert {comparison.variant for comparison in found.comparisons} == {variant.name}


def test_a_pruned_adapter_that_was_measured_itself() -> None:
    evaluation = measured.evaluation()
    own = dataclasses.replace(evaluation.variants[2], adapter=OWN)
    evaluation = dataclasses.replace(evaluation, variants=(*evaluation.variants[:2], own))
    found = figures_of(evaluation, OWN, record(paths(30)), "x")
    assert found.columns[-1][1] == own.metrics
    clipped = dataclasses.replace(own, pruned=())
    evaluation = dataclasses.replace(evaluation, variants=(clipped,))
    assert figures_of(evaluation, OWN, record(paths(30), "clipped"), "x").columns[-1][1] == own.metrics


@pytest.mark.parametrize(
    ("source", "made"),
    [
        (OWN, None),
        (dataclasses.replace(ORIGINAL, files=()), None),
        (dataclasses.replace(ORIGINAL, files=(*ORIGINAL.files, FileDigest("adapter_config.json", 1, "0" * 64))), None),
        (OWN, record(paths(31))),
        (OWN, record(paths(30)[1:])),
        (OWN, record(paths(30), "clipped")),
        (OWN, record(paths(30), source=OWN)),
        (OWN, record(())),
    ],
)  # fmt: skip
def test_others_are_refused(source: Source, made: Provenance | None) -> None:
    for measurement in (measured.evaluation(), measured.sweep(), measured.tuning()):
        with pytest.raises(UsageError, match=r"^r\.json: has no figures of this adapter, .*of made-up-adapter; "):
            figures_of(measurement, source, made, "r.json")
    with pytest.raises(UsageError, match=r"it is of no adapter"):
        figures_of(measured.bare_evaluation(), source, made, "r.json")


def named(index: str, top: int, **fields: Any) -> Provenance:
    return record(tuple(f"m{i}" for i in range(top)), index=index, **fields)


def sweep() -> Any:
    """Return the made-up sweep, with its points' indices as the program writes them."""
    made = measured.sweep()
    points = tuple(dataclasses.replace(p, index=p.index.replace("-", "_")) for p in made.points)
    return dataclasses.replace(made, points=points)


def test_an_adapter_in_a_sweep() -> None:
    made = sweep()
    found = figures_of(made, ORIGINAL, None, "x")
    assert (labels(found), found.columns[-1][1]) == (["base alone", "this adapter"], made.unpruned.metrics)
    for index in ("ssi", "weighted_ssi"):
        found = figures_of(made, OWN, named(index, 45), "x")
        (point,) = [p for p in made.points if p.index == index and p.top == 45]
        assert (labels(found), found.columns[-1][1]) == (LABELS, point.metrics)
        assert found.comparisons == point.comparisons
        assert bool(found.warnings) == point.collapse


@pytest.mark.parametrize(
    "made",
    [
        named("ssi", 44),
        named("ssi", 45, only="projection q_proj"),
        named("ssi", 45, unit="layer"),
        named("ssi", 45, rule="outlier 3.5"),
        named("ssi", 45, configuration=Configuration(method="svd")),
        named("ssi", 45, configuration=Configuration(rank=4)),
        named("random", 45),
        named("ssi", 45, source=OWN),
        record(tuple("abc"), "scaled", index="ssi"),
    ],
)
def test_a_point_must_be_of_the_same_ranking(made: Provenance) -> None:
    with pytest.raises(UsageError, match="has no figures of this adapter"):
        figures_of(sweep(), OWN, made, "x")


def test_a_ranking_that_no_method_changes_is_the_same_by_all() -> None:
    made = named("frobenius", 45, configuration=Configuration(method="svd"))
    (point,) = [p for p in sweep().points if p.index == "frobenius" and p.top == 45]
    assert figures_of(sweep(), OWN, made, "x").columns[-1][1] == point.metrics


def test_an_adapter_in_a_tuning() -> None:
    made = measured.tuning()
    assert made.confirmed is not None
    made = dataclasses.replace(made, confirmed=dataclasses.replace(made.confirmed, index="weighted_ssi"))
    found = figures_of(made, ORIGINAL, None, "x")
    assert (labels(found), found.held_out, found.sentence) == (["base alone", "this adapter"], True, made.sentence)
    assert made.held_out_base is not None
    assert found.columns[0][1] == made.held_out_base.metrics
    found = figures_of(made, OWN, named("weighted_ssi", 45), "x")
    assert labels(found) == LABELS
    assert made.confirmed is not None
    assert found.columns[-1][1] == made.confirmed.metrics
    with pytest.raises(UsageError, match="has no figures"):
        figures_of(measured.tuning(0), OWN, named("weighted_ssi", 45), "x")
    older = dataclasses.replace(made, tuning_base=None, held_out_base=None)
    assert labels(figures_of(older, OWN, named("weighted_ssi", 45), "x")) == LABELS[1:]


def test_a_tuning_that_could_tell_nothing_has_no_figures_of_a_half_held_out() -> None:
    made = dataclasses.replace(
        measured.tuning(0), tried=(), held_out_unpruned=None, held_out_base=None, outcome="cannot tell"
    )
    found = figures_of(made, ORIGINAL, None, "x")
    assert (labels(found), found.held_out) == (["base alone", "this adapter"], False)
    assert found.columns[-1][1] == made.tuning_unpruned.metrics


def write(folder: Path, raw: bytes) -> Path:
    (folder / "r.json").write_bytes(raw)
    return folder / "r.json"


@pytest.mark.parametrize("make", [measured.evaluation, measured.sweep, measured.tuning])
def test_what_was_written_is_read(make: Any, tmp_path: Path) -> None:
    assert read_measurement(write(tmp_path, to_json(make()).encode())) == make()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is no result of eval, sweep or tune: "),
        (b"[]", "is no result of eval, sweep or tune: "),
        (b"{}", "is no result of eval, sweep or tune; give the evaluation.json"),
        (b"\xff", "is no result of eval, sweep or tune: "),
        (b"[" * 100_000, "is no result of eval, sweep or tune: "),
        (b'{"schema_version": 1, "variants": 3}', "is no result of eval, sweep or tune: "),
        (b'{"schema_version": "x", "variants": []}', "is no result of eval, sweep or tune: "),
        (b'{"schema_version": 7, "variants": 3}', "is of schema version 7, and this s3lora knows 1; update s3lora"),
        (b'{"schema_version": 1, "modules": []}', "is no result of eval, sweep or tune; give"),
    ],
)
def test_what_is_none_is_refused_in_one_sentence(raw: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_measurement(write(tmp_path, raw))
    assert str(caught.value).startswith(str(tmp_path / "r.json"))
    assert says in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("gone.json", "No such file"), (".", "regular file"), ("pipe", "regular file")):
        with pytest.raises(UsageError, match=says):
            read_measurement(tmp_path / name)


def test_a_variant_of_kind_adapter_alone_is_the_unpruned_one() -> None:
    served = Variant(name="x", kind="served", adapter=ORIGINAL)
    evaluation = Evaluation(setup=measured.SETUP, suites=(), variants=(served,), comparisons=())
    with pytest.raises(UsageError, match="has no figures"):
        figures_of(evaluation, ORIGINAL, None, "x")
