"""Reference populations against a slow oracle that sorts, and what a scan is told when it is held against one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import s3lora
from s3lora.errors import AdapterFileError, NothingToAuditError, OutputError, UsageError
from s3lora.fleet.populations.reference import GRID, build_reference, read_facts
from s3lora.fleet.populations.standing import Reference, share_below
from s3lora.fleet.results.outcome import Settings
from s3lora.fleet.results.rows import third
from s3lora.fleet.run import fleet_scan
from s3lora.measure.cells import BANDS, FEWEST, band
from s3lora.measure.configuration import Configuration
from s3lora.statistics import wilson
from tests.fleet.inline import Inline, rows
from tests.support import make_adapter

pytest.importorskip("duckdb")
pq = pytest.importorskip("pyarrow.parquet")

PATHS = [f"model.layers.{i}.self_attn.{name}" for i in range(3) for name in ("q_proj", "v_proj")]
COUNT = 60


def one(folder: Path, number: int, rank: int = 4, base: str = "org/Thing-1B", **config: Any) -> Path:
    """Write an adapter that is sharper the larger `number`."""
    sizes = dict.fromkeys(PATHS, (10, 9, rank))
    fields = {"base_model_name_or_path": base, **config}
    return make_adapter(folder / f"{number:03d}", sizes, seed=number, config=fields)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of 60 adapters of one family, 3 of another, and a copy."""
    folder = tmp_path_factory.mktemp("fleet")
    for number in range(COUNT):
        one(folder / "in", number)
    for number in range(COUNT, COUNT + 3):
        one(folder / "in", number, rank=6, base="org/Rare-7B")
    one(folder / "in" / "copies", 0)
    fleet_scan([str(folder / "in")], folder / "out", engine=Inline)
    return folder / "out"


@pytest.fixture(scope="module")
def reference(dataset: Path) -> Path:
    build_reference(dataset, dataset.parent / "ref.parquet", "ours")
    return dataset.parent / "ref.parquet"


def distinct(dataset: Path) -> list[dict[str, Any]]:
    """Return the module rows of the adapters that count."""
    first: dict[str, str] = {}
    for row in rows(dataset, "adapters"):
        first.setdefault(row["tensors"], row["uri"])
    family = {row["uri"]: row["base_family"] for row in rows(dataset, "adapters")}
    found = [row for row in rows(dataset, "modules") if row["uri"] in first.values()]
    return [{**row, "family": family[row["uri"]], "band": band(row["rank"])} for row in found]


def test_facts(dataset: Path, reference: Path) -> None:
    facts = read_facts(reference)
    assert (facts.name, facts.adapters, facts.modules, facts.copies) == ("ours", COUNT + 3, (COUNT + 3) * 6, 1)
    assert facts.families == {"thing": COUNT, "rare": 3}
    assert sum(recipe.adapters for recipe in facts.recipes) == COUNT + 3
    assert {(recipe.base_family, recipe.rank, recipe.lora_alpha) for recipe in facts.recipes} == {
        ("thing", 4, 8.0),
        ("rare", 6, 12.0),
    }


def expected(values: list[float], value: float) -> float:
    """Return the percentile by counting; equal values count half."""
    x = np.asarray(values)
    return 100 * float((x < value).mean() + (x == value).mean() / 2)


def test_percentile_and_z_of_every_module(dataset: Path, reference: Path) -> None:
    found = Reference(reference)
    population = distinct(dataset)
    scan = s3lora.scan(one(dataset.parent / "new", 1000))
    comparison = found.compare(scan)
    assert (comparison.reference, comparison.base_family, comparison.family_adapters) == ("ours", "thing", COUNT)
    assert comparison.coarser == 0
    for module in scan.modules:
        standing = comparison.standings[module.path]
        keys = (
            "thing",
            module.projection,
            "1-4" if module.rank == 1 else band(module.rank),
            third(module.layer or 0, 0, 2),
        )
        cell = [r for r in population if (r["family"], r["projection"], r["band"], r["layer_third"]) == keys]
        assert (standing.level, standing.adapters) == (0, len({row["uri"] for row in cell}))
        assert set(standing.marks) == {name for name, value in module.indices.items() if value is not None}
        for name, mark in standing.marks.items():
            values = [row[name] for row in cell]
            assert mark.value == module.indices[name]
            # Between two of 60 values the quantiles say no more than that it lies there.
            assert mark.percentile == pytest.approx(expected(values, mark.value), abs=100 / len(values) + 0.5)
            median = np.median(values)
            mad = np.median(np.abs(np.asarray(values) - median))
            assert mark.z == pytest.approx(0.6745 * (mark.value - median) / mad, rel=1e-9, abs=1e-9)
            assert 0 <= mark.low <= mark.percentile <= mark.high <= 100


def test_the_adapter_itself(dataset: Path, reference: Path) -> None:
    scan = s3lora.scan(one(dataset.parent / "new2", 1001))
    standing = Reference(reference).compare(scan).adapter
    assert standing is not None
    assert (standing.level, standing.adapters) == (0, COUNT)
    population = [row for row in distinct(dataset) if row["family"] == "thing"]
    uris = sorted({row["uri"] for row in population})
    highest = [max(row["ssi"] for row in population if row["uri"] == uri) for uri in uris]
    mark = standing.marks["ssi_sharpest"]
    assert mark.value == max(module.indices["ssi"] or 0 for module in scan.modules)
    assert mark.percentile == pytest.approx(expected(highest, mark.value), abs=100 / COUNT + 0.5)
    low = [min(row["stable_rank"] for row in population if row["uri"] == uri) for uri in uris]
    mark = standing.marks["stable_rank_sharpest"]
    assert mark.percentile == pytest.approx(expected(low, mark.value), abs=100 / COUNT + 0.5)


def test_few_adapters_fall_back_to_coarser_cells(dataset: Path, reference: Path) -> None:
    found = Reference(reference)
    rare = found.compare(s3lora.scan(one(dataset.parent / "new3", 5, rank=6, base="org/Rare-7B")))
    assert rare.family_adapters == 3
    assert rare.coarser == len(PATHS)
    assert {standing.cell for standing in rare.standings.values()} == {"all modules"}
    assert {standing.adapters for standing in rare.standings.values()} == {COUNT + 3}
    other = found.compare(s3lora.scan(one(dataset.parent / "new4", 6, base="org/Never-Seen-7B")))
    assert other.family_adapters == 0
    assert {standing.cell for standing in other.standings.values()} == {"same role and rank band, of any base"}
    assert other.adapter is not None
    assert other.adapter.cell == "same rank band, of any base"
    assert min(standing.adapters for standing in other.standings.values()) >= FEWEST


def test_a_zero_update_stands_nowhere(dataset: Path, reference: Path) -> None:
    sizes = dict.fromkeys(PATHS, (10, 9, 4))
    zero = make_adapter(dataset.parent / "zero", sizes, zero_b=PATHS[:2])
    comparison = Reference(reference).compare(s3lora.scan(zero))
    assert set(comparison.standings) == set(PATHS[2:])
    nothing = make_adapter(dataset.parent / "nothing", sizes, zero_b=PATHS)
    comparison = Reference(reference).compare(s3lora.scan(nothing))
    assert (comparison.adapter, comparison.standings) == (None, {})


def test_same_dataset_same_bytes(dataset: Path, reference: Path, tmp_path: Path) -> None:
    build_reference(dataset, tmp_path / "again.parquet", "ours")
    assert (tmp_path / "again.parquet").read_bytes() == reference.read_bytes()


def test_other_methods_are_refused(reference: Path, dataset: Path) -> None:
    scan = s3lora.scan(one(dataset.parent / "new5", 7), "svd")
    with pytest.raises(UsageError, match="made with method mas-svd, and this scan with svd"):
        Reference(reference).compare(scan)


def test_what_is_no_reference(dataset: Path, reference: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterFileError, match="cannot be read as a reference"):
        Reference(tmp_path / "missing.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(AdapterFileError, match="cannot be read as a reference"):
        Reference(tmp_path / "text.parquet")
    with pytest.raises(AdapterFileError, match="is no reference"):
        Reference(next(dataset.glob("parts/*/modules.parquet")))
    with pytest.raises(AdapterFileError, match=r"holds no results of a fleet|cannot be read"):
        build_reference(tmp_path, tmp_path / "ref.parquet")
    with pytest.raises(OutputError, match="cannot be written"):
        build_reference(dataset, tmp_path / "no" / "ref.parquet")
    assert not list(tmp_path.glob("*.partial"))


def test_a_population_without_any_index(tmp_path: Path) -> None:
    make_adapter(tmp_path / "in" / "a", {"layers.0.q_proj": (4, 4, 2)}, zero_b=["layers.0.q_proj"])
    fleet_scan([str(tmp_path / "in")], tmp_path / "out", engine=Inline, settings=Settings(Configuration("svd")))
    with pytest.raises(NothingToAuditError, match="no adapter of this dataset has a module with an index"):
        build_reference(tmp_path / "out", tmp_path / "ref.parquet")


@given(st.lists(st.floats(-10, 10) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=400), st.floats(-11, 11))
def test_share_below(values: list[float], value: float) -> None:
    """Within the step of the grid, what counting gives; and never out of order."""
    quantiles = np.quantile(values, GRID).tolist()
    share = share_below(value, quantiles)
    x = np.asarray(values)
    assert (x < value).mean() - 1 / len(x) - 0.006 <= share <= (x <= value).mean() + 1 / len(x) + 0.006
    assert share <= share_below(value + 0.1, quantiles)
    assert share_below(max(values) + 1, quantiles) == 1
    assert share_below(min(values) - 1, quantiles) == 0


def test_bands() -> None:
    assert [band(rank) for rank in (1, 2, 4, 5, 8, 9, 16, 32, 33, 64, 65, 4096)] == [
        *("1", "2-4", "2-4", "5-8", "5-8", "9-16", "9-16", "17-32", "33-64", "33-64", "65+", "65+")
    ]
    assert len({band(rank) for rank in range(1, 100)}) == len(BANDS) + 1


def sourced(folder: Path, sources: int, each: int) -> Path:
    """Return a dataset of adapters in folders of their sources, every one with a checkpoint of half the way."""
    number = 0
    for source in range(sources):
        for _ in range(each):
            run = folder / "in" / f"source-{source:02d}" / f"run-{number:03d}"
            sizes = dict.fromkeys(PATHS, (10, 9, 4))
            config = {"base_model_name_or_path": "org/Thing-1B"}
            make_adapter(run / "checkpoint-50", sizes, seed=1000 + number, config=config)
            make_adapter(run / "checkpoint-100", sizes, seed=number, config=config)
            number += 1
    fleet_scan([str(folder / "in")], folder / "out", engine=Inline)
    return folder / "out"


def finest(reference: Path) -> list[dict[str, Any]]:
    found = pq.read_table(reference).to_pylist()
    return [row for row in found if (row["scope"], row["level"], row["index"]) == ("module", 1, "ssi")]


def test_a_cell_needs_runs_and_where_they_are_known_sources(tmp_path: Path) -> None:
    many = sourced(tmp_path / "many", 10, 2)
    facts = build_reference(many, tmp_path / "many.parquet", source="folder")
    assert (facts.adapters, facts.checkpoints, facts.copies) == (20, 20, 0)
    assert (facts.source, facts.sources) == ("folder", 10)
    assert read_facts(tmp_path / "many.parquet") == facts
    assert [(row["adapters"], row["sources"]) for row in finest(tmp_path / "many.parquet")] == [(20, 10)] * 2

    few = sourced(tmp_path / "few", 9, 3)
    assert build_reference(few, tmp_path / "few.parquet", source="folder").sources == 9
    assert finest(tmp_path / "few.parquet") == []
    each = build_reference(few, tmp_path / "each.parquet")
    assert (each.adapters, each.sources, each.source) == (27, None, None)
    assert [(row["adapters"], row["sources"]) for row in finest(tmp_path / "each.parquet")] == [(27, None)] * 2


def test_intervals_are_those_of_the_sources(tmp_path: Path) -> None:
    dataset = sourced(tmp_path, 10, 3)
    build_reference(dataset, tmp_path / "each.parquet")
    build_reference(dataset, tmp_path / "sources.parquet", source="folder")
    measured = s3lora.scan(tmp_path / "in" / "source-03" / "run-010" / "checkpoint-100")
    by = [Reference(tmp_path / f"{name}.parquet").compare(measured) for name in ("each", "sources")]
    for path, standing in by[1].standings.items():
        assert (standing.adapters, standing.sources) == (30, 10)
        one, other = by[0].standings[path].marks["ssi"], standing.marks["ssi"]
        assert one.percentile == other.percentile
        expected = wilson(round(other.percentile / 100 * 10), 10)
        assert other.low == pytest.approx(min(100 * expected.low, other.percentile))
        assert other.high - other.low > one.high - one.low


def test_a_column_that_is_not_there_is_refused(tmp_path: Path, dataset: Path) -> None:
    with pytest.raises(UsageError, match='the dataset has no column x" OR 1; choose one of repository, owner, folder'):
        build_reference(dataset, tmp_path / "no.parquet", source='x" OR 1')
    assert build_reference(dataset, tmp_path / "yes.parquet", source="base_family").sources == 2
    assert build_reference(dataset, tmp_path / "uri.parquet", source="uri").sources == COUNT + 3
    assert build_reference(dataset, tmp_path / "none.parquet", source="repository").sources == 1


def test_a_reference_of_before_is_read(tmp_path: Path, reference: Path) -> None:
    table = pq.read_table(reference)
    pq.write_table(table.drop_columns(["role", "sources"]), tmp_path / "before.parquet")
    measured = s3lora.scan(one(tmp_path, 7))
    assert Reference(tmp_path / "before.parquet").compare(measured) == Reference(reference).compare(measured)


def test_one_role_is_one_cell_and_no_role_is_none(tmp_path: Path) -> None:
    names = ("bert.encoder.layer.{}.attention.self.query", "distilbert.transformer.layer.{}.attention.q_lin")
    for number in range(FEWEST):
        paths = [names[number % 2].format(layer) for layer in range(2)] + ["block.0.mix"]
        config = {"base_model_name_or_path": f"org/thing{'ab'[number % 2]}-1B"}
        make_adapter(tmp_path / "in" / f"{number:02d}", dict.fromkeys(paths, (10, 9, 4)), seed=number, config=config)
    fleet_scan([str(tmp_path / "in")], tmp_path / "out", engine=Inline)
    build_reference(tmp_path / "out", tmp_path / "ref.parquet")
    found = pq.read_table(tmp_path / "ref.parquet").to_pylist()
    cells = [row for row in found if (row["scope"], row["level"], row["index"]) == ("module", 2, "ssi")]
    assert [(row["role"], row["projection"], row["adapters"], row["values"]) for row in cells] == [
        ("encoder.q", None, FEWEST, 2 * FEWEST)
    ]
    against = Reference(tmp_path / "ref.parquet").compare(s3lora.scan(tmp_path / "in" / "00"))
    assert against.standings[names[0].format(1)].cell == "same role and rank band, of any base"
    assert against.standings["block.0.mix"].cell == "same rank band, of any base and role"
