"""The shipped reference of published adapters, and where adapters stand in it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3lora
from s3lora.choose.null import null_sharpness
from s3lora.choose.ranking import Context
from s3lora.measure.cells import BANDS, FEWEST, FEWEST_SOURCES, band
from s3lora.measure.null_energy import null_energy
from s3lora.measure.published import FAR_WIDER, FILE, GRID, LEADING, SIGNAL, among_published, bands, published
from s3lora.measure.roles import MEANINGS, role_of
from s3lora.measure.scan import Scan, scan
from s3lora.spectrum.indices import INDICES
from tests.reference import published as dense
from tests.support import factors, make_adapter, shared, write_safetensors

DATA = Path(s3lora.__file__).parent / FILE
SOURCES = DATA.with_name("sources.tsv")
STORED: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
Q = "model.layers.{}.self_attn.q_proj"


def test_a_cell_has_runs_and_sources_enough_and_quantiles_alone() -> None:
    assert len(STORED["cells"]) == len(published().groups) >= 20
    for cell in STORED["cells"]:
        assert min(cell["adapters"], cell["runs"]) >= FEWEST == 20
        assert cell["sources"] >= FEWEST_SOURCES == 10
        assert cell["modules"] >= cell["adapters"] >= cell["runs"] >= cell["sources"]
        stack, *middle, part = cell["role"].split(".")
        assert stack in ("encoder", "decoder", "unet")
        assert middle in ([], ["cross"])
        assert part in MEANINGS
        assert band(cell["rank"]) == cell["band"] in {band(high) for high in BANDS[1:4]}
        assert 0 < cell["width"][0] <= cell["width"][1]
        assert set(cell["quantiles"]) == {"energy", "normalised_ssi", "ssi"}
        for values in cell["quantiles"].values():
            assert len(values) == len(GRID) == 91
            assert values == sorted(values)
            assert 0 <= values[0] < values[-1] <= 1
    known = {(cell["role"], cell["band"]): cell for cell in STORED["cells"] if cell["architecture"] is None}
    for cell in STORED["cells"]:  # one of an architecture is a part of one of all
        assert cell["modules"] <= known[cell["role"], cell["band"]]["modules"]
        assert cell["architecture"] is None or cell["modules"] < known[cell["role"], cell["band"]]["modules"]


def test_it_is_small_and_says_where_it_comes_from() -> None:
    assert sum(file.stat().st_size for file in DATA.parent.iterdir()) < 300_000
    rows = list(csv.DictReader(SOURCES.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
    assert len(rows) == len({row["repository"] for row in rows}) == STORED["sources"] == 224
    assert sum(int(row["adapters"]) for row in rows) == STORED["adapters"] == 394
    for row in rows:
        assert row["repository"].count("/") == 1
        assert row["licence"]
        assert all(len(commit) == 40 and int(commit, 16) >= 0 for commit in row["commits"].split())


def test_the_files_are_what_the_numbers_give() -> None:
    pytest.importorskip("pyarrow")
    from docs.make_published import check_roles, modules_of, sources
    from docs.make_published import published as made

    folder = shared() / "population"
    if not folder.exists():
        pytest.skip("needs the numbers of the population")
    check_roles(modules_of(folder))
    assert made(folder) == DATA.read_text(encoding="utf-8")
    assert sources(folder) == SOURCES.read_text(encoding="utf-8")


def test_quantiles_are_those_of_the_definition() -> None:
    from docs.make_published import quantiles

    random = np.random.default_rng(0)
    for count in (1, 2, 7, 40):
        values = [float(value) for value in random.integers(0, 12, count) / 10]
        owners = [int(owner) for owner in random.integers(0, 5, count)]
        found = quantiles(values, owners, GRID)
        assert found == pytest.approx([dense.quantile(values, owners, share) for share in GRID], abs=1e-12)


def test_each_adapter_counts_alike() -> None:
    from docs.make_published import quantiles

    once = quantiles([0.1, 0.9], [1, 2], (0.4, 0.6))
    often = quantiles([0.1, *[0.9] * 99], [1, *[2] * 99], (0.4, 0.6))
    assert often == pytest.approx(once)


def of_rank(folder: Path, rank: int, *, wide: int = 768, seed: int = 0, decay: float = 0.5, name: str = Q) -> Scan:
    """Return the scan of an adapter with three modules, whose singular values fall by `decay` each."""
    tensors = {}
    for layer in range(3):
        a, b = factors(wide, wide, rank, seed=seed + layer)
        key = f"base_model.model.{name.format(layer)}"
        tensors[f"{key}.lora_A.weight"] = a
        tensors[f"{key}.lora_B.weight"] = (b * decay ** np.arange(rank)).astype(np.float32)
    folder.mkdir(parents=True)
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return scan(folder)


@pytest.mark.parametrize("decay", [1.0, 0.8, 0.5, 0.1, 0.001])
def test_a_module_stands_where_the_definition_has_it(tmp_path: Path, decay: float) -> None:
    measured = of_rank(tmp_path / "made", 8, decay=decay)
    found = among_published(measured)
    (group,) = found.groups
    assert (group.role, group.band, group.architecture) == ("decoder.q", "5-8", None)
    cell = next(one for one in STORED["cells"] if (one["role"], one["band"]) == ("decoder.q", "5-8"))
    assert list(found.standings) == [module.path for module in measured.modules]
    for module in measured.modules:
        marks = found.standings[module.path].marks
        assert set(marks) == {"energy", "normalised_ssi", "ssi"}
        for name, mark in marks.items():
            quantiles = cell["quantiles"][name]
            value = module.indices[name]
            assert mark.value == value
            assert mark.percentile == pytest.approx(dense.percentile(value, quantiles, GRID), abs=1e-9)
            low, high = dense.wilson(mark.percentile / 100, cell["sources"])
            low = 0.0 if value < quantiles[0] else min(low, mark.percentile)
            assert (mark.low, mark.high) == pytest.approx((low, min(max(high, mark.percentile), 95.0)), abs=1e-9)
            assert 5 <= mark.percentile <= 95
            assert mark.low <= mark.percentile <= mark.high <= 95  # nothing is told beyond
            assert mark.beyond == (value > quantiles[-1])
    shares = sorted(one.marks[LEADING].percentile for one in found.standings.values())
    assert found.median is not None
    assert found.median.percentile == pytest.approx(shares[1])
    assert found.beyond == sum(one.marks[LEADING].beyond for one in found.standings.values())
    assert (found.beyond == 3) == (decay < 0.2)
    assert found.sharpest in found.standings


def test_the_band_of_a_group_goes_from_its_5th_to_its_95th_percentile(tmp_path: Path) -> None:
    found = among_published(of_rank(tmp_path / "made", 8))
    cell = next(one for one in STORED["cells"] if (one["role"], one["band"]) == ("decoder.q", "5-8"))
    ends = {name: [(values[GRID.index(0.05)], values[GRID.index(0.95)])] for name, values in cell["quantiles"].items()}
    assert bands(found) == ends
    # Whose quantiles are not those of this program has no bands.
    assert bands(replace(found, name="another reference")) == {}
    assert bands(replace(found, groups=(replace(found.groups[0], band="1"),))) == {}


def test_what_has_no_such_reference_says_why(tmp_path: Path) -> None:
    def why(name: str, rank: int, wide: int = 768, path: str = Q) -> dict[str, int]:
        found = among_published(of_rank(tmp_path / name, rank, wide=wide, name=path))
        assert not found.standings
        assert (found.sharpest, found.median, found.groups) == (None, None, ())
        return dict(found.left_out)

    assert why("large rank", 32) == {"rank": 3}
    assert why("rank 1", 1) == {"rank": 3}
    assert why("narrow", 8, wide=64) == {"width": 3}
    assert why("wide", 4, wide=9000) == {"width": 3}
    assert why("no role", 8, path="model.layers.{}.my_block") == {"role": 3}
    assert why("an expert", 8, path="model.layers.{}.mlp.experts.0.down_proj") == {"role": 3}
    assert why("few", 8, path="decoder.layers.{}.encoder_attn.k_proj") == {"few": 3}


def test_width_goes_as_far_as_twice_that_of_the_cell(tmp_path: Path) -> None:
    cell = next(one for one in STORED["cells"] if (one["role"], one["band"]) == ("decoder.q", "2-4"))
    wide = int(cell["width"][1] * FAR_WIDER)
    assert among_published(of_rank(tmp_path / "just", 2, wide=wide)).standings
    assert not among_published(of_rank(tmp_path / "over", 2, wide=wide + 2)).standings


def test_ssi_is_compared_within_one_rank_and_one_method_only(tmp_path: Path) -> None:
    six = among_published(of_rank(tmp_path / "six", 6))
    assert {name for one in six.standings.values() for name in one.marks} == {"energy", "normalised_ssi"}
    of_rank(tmp_path / "eight", 8)
    plain = among_published(scan(tmp_path / "eight", "svd"))
    assert {name for one in plain.standings.values() for name in one.marks} == {"energy"}
    fewer = among_published(scan(tmp_path / "eight", rank=4))
    assert {name for one in fewer.standings.values() for name in one.marks} == {"energy"}


def test_the_architecture_is_told_by_the_path_or_the_base(tmp_path: Path) -> None:
    path = "transformer.h.{}.attn.c_attn"
    (group,) = among_published(of_rank(tmp_path / "gpt2", 8, wide=1330, name=path)).groups
    assert (group.role, group.architecture) == ("decoder.qkv", "gpt2")
    (group,) = among_published(of_rank(tmp_path / "other", 8, wide=1330, name="model.layers.{}.attn.qkv_proj")).groups
    assert (group.role, group.architecture) == ("decoder.qkv", None)


@pytest.mark.parametrize("rank", [2, 8, 16, 64])
def test_random_updates_have_no_training_signal(tmp_path: Path, rank: int) -> None:
    random = among_published(of_rank(tmp_path / "random", rank, decay=1.0)).signal
    assert random is not None
    assert not random.found
    assert abs(random.excess) < SIGNAL / 2
    trained = among_published(of_rank(tmp_path / "trained", rank, decay=0.5)).signal
    assert trained is not None
    assert trained.found
    assert trained.modules == 3


def test_rank_one_and_narrow_matrices_tell_nothing_of_training(tmp_path: Path) -> None:
    assert among_published(of_rank(tmp_path / "one", 1)).signal is None
    assert among_published(of_rank(tmp_path / "narrow", 8, wide=15)).signal is None
    zero = make_adapter(tmp_path / "zero", {Q.format(0): (64, 64, 4)}, zero_b=(Q.format(0),))
    assert among_published(scan(zero)).signal is None


@pytest.mark.parametrize(
    "shape",
    [(512, 512, 8), (4096, 1024, 16), (12, 47, 4), (58, 130, 16), (300, 3000, 5), (96, 96, 48), (2816, 1408, 3)],
)
def test_the_null_is_that_of_the_rule(shape: tuple[int, int, int]) -> None:
    """The rule draws factors whole and has its own arithmetic; the table is at most 3 % off."""
    m, n, rank = shape
    drawn = null_sharpness(shape, Context(INDICES["energy"], "svd", None), 0.5, 400, 7)
    assert null_energy(m, n, rank) == pytest.approx(drawn, rel=0.035)
    assert null_energy(n, m, rank) == null_energy(m, n, rank)


def test_the_null_falls_to_what_equal_directions_have() -> None:
    for rank in (2, 7, 64):
        values = [null_energy(rank * 2**x, rank * 2**x, rank) for x in range(13)]
        known = [value for value in values if value is not None]
        assert len(known) == 13
        assert known == sorted(known, reverse=True)
        assert 1 / rank < known[-1] < 1.1 / rank
    assert null_energy(10**7, 10**7, 8) == null_energy(8 << 12, 8 << 12, 8)
    assert [null_energy(*shape) for shape in ((64, 64, 1), (4, 64, 8), (4096, 4096, 300))] == [None] * 3


def test_trained_files_lie_above_the_null_and_the_random_one_does_not() -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    folder = shared() / "population"
    if not folder.exists():
        pytest.skip("needs the numbers of the population")
    found: dict[tuple[str, int], list[float]] = {}
    for row in pq.read_table(folder / "modules.parquet").to_pylist():
        m, n, rank, energy = row["m"], row["n"], row["rank"], row["svd_energy"]
        if row["status"] in ("trained", "random") and energy is not None and energy == energy and min(m, n) >= 2 * rank:
            random = null_energy(m, n, rank)
            if random is not None:
                found.setdefault((row["status"], row["adapter"]), []).append(energy - random)
    excess = {key: float(np.median(values)) for key, values in found.items()}
    assert len(excess) == 626
    assert min(value for (status, _), value in excess.items() if status == "trained") > 0.1 > SIGNAL
    assert [abs(value) < 0.002 for (status, _), value in excess.items() if status == "random"] == [True]


def test_roles_of_a_real_adapter() -> None:
    folder = shared() / "adapters" / "distilgpt2-peft"
    found = among_published(scan(folder))
    assert len(found.standings) == 6
    assert {role_of(path).key for path in found.standings} == {"decoder.qkv"}  # type: ignore[union-attr]
    assert found.signal is not None
    assert found.signal.found


def test_a_comparison_is_looked_into_at_a_prompt(tmp_path: Path) -> None:
    paths = [f"model.layers.{layer}.self_attn.{kind}_proj" for layer in range(2) for kind in "qz"]
    against = among_published(scan(make_adapter(tmp_path / "a", dict.fromkeys(paths, (576, 576, 8)))))
    q, other = paths[0], paths[1]
    assert (len(against), q in against, other in against) == (2, True, False)
    assert against[q] is against.standings[q]
    with pytest.raises(s3lora.NoSuchModuleError, match=r"no module 'model.layers.0.self_attn.z_proj' is compared"):
        against[other]
    with pytest.raises(s3lora.UsageError, match="named by its path, not by 0"):
        against[0]  # type: ignore[index]
    assert ([] in against, [*against]) == (False, paths[::2])
    lines = repr(against).splitlines()
    assert lines[0] == "<AgainstPublished: 2 of 4 modules with an update compared"
    assert len(lines) < 7


def test_a_comparison_of_nothing_has_a_table_of_the_same_columns(tmp_path: Path) -> None:
    pytest.importorskip("pandas")

    def table(rank: int) -> Any:
        modules = {f"model.layers.{i}.self_attn.q_proj": (576, 576, rank) for i in range(2)}
        return among_published(scan(make_adapter(tmp_path / str(rank), modules))).to_pandas()

    some, none = table(8), table(64)
    assert (len(some), len(none)) == (2, 0)
    assert list(none.columns) == list(some.columns)
    assert list(none.dtypes[4:]) == list(some.dtypes[4:]), "numbers stay numbers"


def test_a_comparison_is_a_table_of_pandas(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    paths = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(2)]
    against = among_published(scan(make_adapter(tmp_path / "a", dict.fromkeys(paths, (576, 576, 8)))))
    q = paths[0]
    table = against.to_pandas()
    mark = against[q].marks["ssi"]
    first = table.set_index("path").loc[q]
    assert list(table["path"]) == paths
    assert (first["role"], first["ranks"], first["sources"]) == ("decoder.q", "5-8", against.groups[0].sources)
    found = [first[f"ssi{name}"] for name in ("", "_percentile", "_low", "_high")]
    assert found == [mark.value, mark.percentile, mark.low, mark.high]
