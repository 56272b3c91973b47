"""What a survey says of a population, against a slow oracle that goes through its rows one by one."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import s3lora
from s3lora.errors import AdapterFileError, UsageError
from s3lora.fleet.populations.distributions import GROUPS, Group, bin_sql
from s3lora.fleet.populations.reference import GRID, build_reference
from s3lora.fleet.populations.standing import NORMAL, Reference, share_below
from s3lora.fleet.populations.survey import EXAMPLES, Survey, survey
from s3lora.fleet.results.outcome import Settings
from s3lora.fleet.run import fleet_scan
from s3lora.measure.against import TELLING
from s3lora.measure.cells import FEWEST, band
from s3lora.measure.configuration import Configuration
from s3lora.report.documents import to_json
from s3lora.spectrum.bins import RANKS, SHARES, SIZES, Bins
from s3lora.spectrum.indices import INDICES
from s3lora.statistics import wilson
from tests.fleet.inline import Inline, rows
from tests.support import make_adapter

simulate = pytest.importorskip("benchmarks.simulate_fleet").simulate

pytest.importorskip("duckdb")
BASE = {"base_model_name_or_path": "org/Thing-1B", "lora_alpha": 8}
PATHS = [f"model.layers.{i}.self_attn.{name}" for i in range(2) for name in ("q_proj", "v_proj")]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of 900 simulated inputs with copies, errors, and more families than are told apart."""
    return simulate(tmp_path_factory.mktemp("fleet") / "simulated", 900, 9, each=300)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of real scans: one of rank 1, a zero update, NaN, two copies, one of them scaled, an error."""
    folder = tmp_path_factory.mktemp("fleet")
    for number in range(30):
        write(folder, f"{number:03d}", number)
    write(folder, "one", 30, rank=1)
    write(folder, "zero", 31, zero_b=PATHS[:1])
    write(folder, "untrained", 32, zero_b=PATHS)
    write(folder, "copy", 0)
    write(folder, "copy-scaled", 0, alpha=99)
    (folder / "in" / "broken").mkdir()
    (folder / "in" / "broken" / "adapter_config.json").write_text("{}")
    (folder / "in" / "broken" / "adapter_model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    fleet_scan([str(folder / "in")], folder / "out", engine=Inline)
    return folder / "out"


def write(folder: Path, name: str, seed: int, *, rank: int = 4, alpha: int = 8, **more: Any) -> Path:
    config = {"base_model_name_or_path": "org/Thing-1B", "lora_alpha": alpha}
    return make_adapter(folder / "in" / name, dict.fromkeys(PATHS, (10, 9, rank)), seed=seed, config=config, **more)


def distinct(folder: Path) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return the adapters that count, by uri, and their modules that have an index."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows(folder, "adapters"):
        first.setdefault(row["tensors"], row)
    adapters = {row["uri"]: row for row in first.values()}
    return adapters, [row for row in rows(folder, "modules") if row["uri"] in adapters and row["ssi"] is not None]


def place(bins: Bins, value: float) -> int:
    """Return the bin of a value by its definition."""
    if bins.scale == "linear":
        at = (value - bins.low) * bins.each
    else:
        at = -1.0 if value <= 0 else math.log(value / bins.low, 2 if bins.scale == "log2" else 10) * bins.each
    return min(max(math.floor(at), 0), bins.count - 1)


@pytest.mark.parametrize("bins", [RANKS, SIZES, Bins("log2", 1e-3, 4, 12), SHARES])
def test_every_value_has_a_bin(bins: Bins) -> None:
    """Zero, which an update may have as its norm, has no logarithm, nor have negative values."""
    middles = [(bins.edge(i) + bins.edge(i + 1)) / 2 for i in range(bins.count)]
    values = [0.0, -0.0, -1.0, -1e300, 5e-324, bins.low / 2, bins.edge(bins.count) * 2, 1e300, *middles]
    database = pytest.importorskip("duckdb").connect(":memory:")
    database.execute("CREATE TABLE t (i INTEGER, x DOUBLE)")
    database.executemany("INSERT INTO t VALUES (?, ?)", list(enumerate(values)))
    found = [row[0] for row in database.execute(f"SELECT {bin_sql(bins, 'x')} FROM t ORDER BY i").fetchall()]
    assert found == [place(bins, value) for value in values]
    assert found[:6] == [0] * 6
    assert found[6:8] == [bins.count - 1] * 2
    assert found[8:] == list(range(bins.count))


@pytest.mark.parametrize("kind", ["simulated", "scanned"])
def test_distributions(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    found = survey(folder)
    adapters, modules = distinct(folder)
    assert [one.index for one in found.distributions] == [name for name, index in INDICES.items() if index.surveyed]
    for one in found.distributions:
        known = [row for row in modules if row[one.index] is not None]
        whole = Counter(place(INDICES[one.index].bins, row[one.index]) for row in known)
        assert one.edges == tuple(INDICES[one.index].bins.edge(i) for i in range(min(whole), max(whole) + 2))
        check(one.all, known, one.index, min(whole))
        for groups, key in ((one.families, "base_family"), (one.projections, "projection")):
            of = {row["path"] + row["uri"]: adapters[row["uri"]]["base_family"] if key == "base_family" else row[key]
                  for row in modules}  # fmt: skip
            sizes = Counter(of.values())
            order = sorted(sizes, key=lambda name: (-sizes[name], name))
            told, rest = order[:GROUPS], order[GROUPS:]
            shown = [name for name in told if any(of[row["path"] + row["uri"]] == name for row in known)]
            assert [group.name for group in groups] == [*shown, *([""] if len(rest) > 1 else rest)]
            for group in groups:
                names = rest if group.joined > 1 else [group.name]
                assert group.joined == len(names)
                check(group, [row for row in known if of[row["path"] + row["uri"]] in names], one.index, min(whole))


def check(group: Group, members: list[dict[str, Any]], index: str, first: int) -> None:
    values = [row[index] for row in members]
    assert group.modules == len(values) == sum(group.counts)
    assert group.adapters == len({row["uri"] for row in members})
    ends = (group.least, group.q25, group.median, group.q75, group.greatest)
    assert ends == pytest.approx(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist(), rel=1e-12)
    counts = Counter(place(INDICES[index].bins, value) - first for value in values)
    wrong = sum(abs(count - counts[i]) for i, count in enumerate(group.counts))
    assert wrong <= 2, "a value on an edge may fall on either side of it, by the last bit of a logarithm"


def expected(folder: Path, index: str) -> dict[str, dict[str, Any]]:
    """Return for every adapter its two numbers, the level and size of its cell, and both z."""
    adapters, modules = distinct(folder)
    values: dict[str, list[float]] = defaultdict(list)
    for row in modules:
        silent = INDICES[index].silent and adapters[row["uri"]]["rank_max"] == 1
        if row[index] is not None and not silent:
            values[row["uri"]].append(row[index])
    tip = max if INDICES[index].sharp == "high" else min
    both = {uri: (float(np.median(found)), tip(found)) for uri, found in values.items()}
    keys = {uri: (adapters[uri]["base_family"], band(adapters[uri]["rank_max"])) for uri in both}
    found: dict[str, dict[str, Any]] = {}
    for uri in both:
        cells = [
            [other for other in both if keys[other] == keys[uri]],
            [other for other in both if keys[other][1] == keys[uri][1]],
            list(both),
        ]
        ends = [band(adapters[uri][name]) for name in ("rank_min", "rank_max")]
        level = next(i for i, cell in enumerate(cells) if len(cell) >= FEWEST or i == 2)
        z: list[float | None] = []
        words: list[str] = []
        for i in (0, 1):
            cell = np.asarray([both[other][i] for other in cells[level]])
            mad = np.median(np.abs(cell - np.median(cell)))
            z.append(NORMAL * (both[uri][i] - np.median(cell)) / mad if mad > 0 else None)
            share = share_below(both[uri][i], np.quantile(cell, GRID).tolist())
            words.append(word(z[i], share, len(cell)))
        mixed = INDICES[index].by_rank and (level == 2 or ends[0] != ends[1])
        found[uri] = {
            "words": words, "mixed": mixed, "values": both[uri], "level": level, "cell": cells[level], "z": z,
            "all": both,
        }  # fmt: skip
    return found


def word(z: float | None, share: float, adapters: int) -> str:
    """Return the word on one number: far out, and surely among the 5 % at an end."""
    interval = wilson(round(share * adapters), adapters)
    if min(interval.low, share) <= 0.5 <= max(interval.high, share) or (z is not None and abs(z) <= 3.5):
        return "no"
    if adapters < 73:
        return "unknown"
    if interval.low > 0.95 or interval.high < 0.05:
        return "unknown" if z is None else "high" if z > 0 else "low"
    return "no"


def verdict(one: dict[str, Any]) -> str:
    """Return the word on an adapter: unusual by one number is enough."""
    if one["mixed"]:
        return "unknown"
    far = sorted((1, 0), key=lambda i: -abs(one["z"][i] or 0))
    return next((one["words"][i] for i in far if one["words"][i] in ("high", "low")), None) or (
        "unknown" if "unknown" in one["words"] else "no"
    )


@pytest.mark.parametrize("index", ["ssi", "normalised_ssi", "stable_rank", "magnitude"])
@pytest.mark.parametrize("kind", ["simulated", "scanned"])
def test_the_unusual_are_those_farthest_from_their_cell(kind: str, index: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    ranking = survey(folder, index=index, most=25).unusual
    assert ranking is not None
    wanted = expected(folder, index)
    scores = {uri: max((abs(z) for z in one["z"] if z is not None), default=None) for uri, one in wanted.items()}
    order = sorted((uri for uri in scores if scores[uri] is not None), key=lambda uri: (-(scores[uri] or 0), uri))
    assert [one.uri for one in ranking.most] == order[:25]
    assert [one.place for one in ranking.most] == list(range(1, len(ranking.most) + 1))
    assert ranking.adapters == ranking.reference_adapters == len(wanted)
    assert ranking.coarser == sum(one["level"] > 0 for one in wanted.values())
    assert ranking.alike == sum(score is None for score in scores.values())
    verdicts = {uri: verdict(one) for uri, one in wanted.items()}
    assert ranking.unusual == sum(word in ("high", "low") for word in verdicts.values())
    assert (ranking.unusual > 0) == (kind == "simulated")
    assert ranking.mixed == sum(one["mixed"] for one in wanted.values())
    assert ranking.few == sum(not one["mixed"] and len(one["cell"]) < TELLING for one in wanted.values())
    assert ranking.rank_one == (kind == "scanned" and INDICES[index].silent)
    adapters, modules = distinct(folder)
    for one in ranking.most:
        found = wanted[one.uri]
        assert one.verdict == verdicts[one.uri]
        assert one.hindered == ("mixed_ranks" if found["mixed"] else None)
        assert (one.level, one.adapters) == (found["level"], len(found["cell"]))
        assert (one.base_family, one.rank) == (adapters[one.uri]["base_family"], adapters[one.uri]["rank_max"])
        assert one.copies + 1 == sum(row["tensors"] == adapters[one.uri]["tensors"] for row in rows(folder, "adapters"))
        at_tip = [row["path"] for row in modules if row["uri"] == one.uri and row[index] == found["values"][1]]
        assert one.module == min(at_tip)
        for i, mark in enumerate((one.median, one.sharpest)):
            assert mark.value == pytest.approx(found["values"][i], rel=1e-12)
            assert mark.z == (None if found["z"][i] is None else pytest.approx(found["z"][i], rel=1e-9, abs=1e-9))
            cell = np.asarray([found["all"][other][i] for other in found["cell"]])
            percentile = 100 * float((cell < mark.value).mean() + (cell == mark.value).mean() / 2)
            assert mark.percentile == pytest.approx(percentile, abs=100 / len(cell) + 0.5)
            assert 0 <= mark.low <= mark.percentile <= mark.high <= 100
    for i, counts in enumerate((ranking.spread.median, ranking.spread.sharpest)):
        z = [one["z"][i] for one in wanted.values() if one["z"][i] is not None]
        assert counts == tuple(np.histogram(np.clip(z, -9.99, 9.99), ranking.spread.edges)[0])


def test_against_a_reference_of_itself_nothing_changes(scanned: Path, tmp_path: Path) -> None:
    build_reference(scanned, tmp_path / "ref.parquet", "ours")
    own, other = survey(scanned).unusual, survey(scanned, reference=tmp_path / "ref.parquet").unusual
    assert own is not None
    assert other is not None
    assert other.most == own.most
    assert (other.against, other.reference, other.reference_adapters) == ("reference", "ours", 32)
    assert (own.against, own.reference) == ("population", "out")


def test_a_scan_is_told_the_same_by_the_reference(scanned: Path, tmp_path: Path) -> None:
    build_reference(scanned, tmp_path / "ref.parquet")
    ranking = survey(scanned, reference=tmp_path / "ref.parquet").unusual
    assert ranking is not None
    for one in ranking.most[:5]:
        standing = Reference(tmp_path / "ref.parquet").compare(s3lora.scan(one.uri)).adapter
        assert standing is not None
        assert (standing.level, standing.adapters, standing.cell) == (one.level, one.adapters, one.cell)
        assert standing.marks["ssi_sharpest"].z == pytest.approx(one.sharpest.z, rel=1e-9)
        assert standing.marks["ssi_median"].percentile == pytest.approx(one.median.percentile, rel=1e-9)


def test_census_of_what_was_scanned(scanned: Path) -> None:
    found = survey(scanned)
    census = found.census
    assert (census.inputs, census.adapters, census.errors, census.distinct) == (36, 35, 1, 33)
    assert (census.measured, census.families, census.zero_modules) == (32, 1, 5)
    assert (census.modules, census.measured_modules) == (35 * 4, 33 * 4 - 5)
    assert (found.complete, found.name) == (True, "out")
    [copies] = found.copies
    assert (copies.adapters, copies.scalings, found.copied_groups) == (3, 2, 1)
    assert [Path(uri).name for uri in copies.first] == ["000", "copy", "copy-scaled"]
    [kind] = found.errors
    assert (kind.kind, kind.inputs, kind.transient) == ("AdapterFile", 1, 0)
    assert Path(kind.examples[0].uri).name == "broken"
    assert "Git LFS pointer" in kind.examples[0].reason
    assert [(recipe.rank, recipe.adapters) for recipe in found.recipes] == [(4, 32), (1, 1)]
    assert found.more_recipes == 0


def test_errors_copies_and_recipes_of_many(simulated: Path) -> None:
    found = survey(simulated)
    errors, adapters = rows(simulated, "errors"), rows(simulated, "adapters")
    assert {kind.kind: kind.inputs for kind in found.errors} == Counter(row["kind"] for row in errors)
    for kind in found.errors:
        uris = sorted(row["uri"] for row in errors if row["kind"] == kind.kind)
        assert [example.uri for example in kind.examples] == uris[:EXAMPLES]
        assert kind.transient == sum(row["transient"] for row in errors if row["kind"] == kind.kind)
    groups = {tensors: number for tensors, number in Counter(r["tensors"] for r in adapters).items() if number > 1}
    assert found.copied_groups == len(groups)
    assert [one.adapters for one in found.copies] == sorted(groups.values(), reverse=True)[: len(found.copies)]
    assert all(one.adapters == groups[one.tensors] for one in found.copies)
    recipes = Counter((r["base_family"], r["rank_max"], r["lora_dropout"]) for r in distinct(simulated)[0].values())
    assert [recipe.adapters for recipe in found.recipes] == sorted(recipes.values(), reverse=True)[:20]
    assert found.more_recipes == len(recipes) - 20


def test_same_dataset_same_bytes(simulated: Path) -> None:
    made = [to_json(survey(simulated)) for _ in range(2)]
    assert made[0] == made[1]
    assert "NaN" not in made[0]
    assert json.loads(made[0])["schema_version"] == 1


def test_simulations_are_reproducible(tmp_path: Path) -> None:
    one, two = (simulate(tmp_path / name, 40, 3, each=20) for name in "ab")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 7
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


def test_nothing_but_errors(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "adapter_model.safetensors").write_bytes(b"no")
    fleet_scan([str(tmp_path / "in")], tmp_path / "out", engine=Inline)
    found = survey(tmp_path / "out")
    assert (found.unusual, found.distributions, found.copies, found.recipes) == (None, (), (), ())
    assert (found.census.adapters, found.census.errors, len(found.errors)) == (0, 1, 1)


def test_what_cannot_be_surveyed(scanned: Path, simulated: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterFileError, match="holds no results of a fleet"):
        survey(tmp_path)
    with pytest.raises(UsageError, match="no index 'sharpness'"):
        survey(scanned, index="sharpness")
    with pytest.raises(UsageError, match="most must be 1 or more"):
        survey(scanned, most=0)
    with pytest.raises(UsageError, match="no module of this dataset has kurtosis; scan with kurtosis=True"):
        survey(scanned, index="kurtosis")
    build_reference(simulated, tmp_path / "ref.parquet")
    write(tmp_path, "one", 1)
    how = Settings(Configuration(kurtosis=True))
    fleet_scan([str(tmp_path / "in")], tmp_path / "out", how, engine=Inline)
    assert survey(tmp_path / "out", index="kurtosis").distributions[0].index == "kurtosis"
    with pytest.raises(UsageError, match="the reference holds no kurtosis"):
        survey(tmp_path / "out", index="kurtosis", reference=tmp_path / "ref.parquet")
    fleet_scan([str(tmp_path / "in")], tmp_path / "other", Settings(Configuration("svd")), engine=Inline)
    with pytest.raises(UsageError, match="the reference was made with method mas-svd, and this scan with svd"):
        survey(tmp_path / "other", reference=tmp_path / "ref.parquet")
    with pytest.raises(AdapterFileError, match="is no reference"):
        survey(scanned, reference=next(scanned.glob("parts/*/modules.parquet")))


def scaled(folder: Path, name: str, factor: float) -> None:
    """Write an adapter whose factors differ from those of others in nothing but their size."""
    file = write(folder, name, 7) / "adapter_model.safetensors"
    save_file({key: tensor * np.float32(factor) for key, tensor in load_file(file).items()}, file, {"format": "pt"})


def test_where_most_are_alike_there_is_no_z(tmp_path: Path) -> None:
    for number in range(FEWEST):
        scaled(tmp_path, f"{number}", 2.0**number)
    write(tmp_path, "other", 99, rank=16)
    fleet_scan([str(tmp_path / "in")], tmp_path / "out", engine=Inline)
    ranking = survey(tmp_path / "out").unusual
    assert ranking is not None
    assert (ranking.adapters, ranking.alike, ranking.coarser, ranking.most) == (FEWEST + 1, FEWEST + 1, 1, ())
    assert sum(ranking.spread.median) == 0


def test_a_broken_part_is_one_sentence(tmp_path: Path) -> None:
    folder = simulate(tmp_path / "fleet", 20, 2)
    part = next(folder.glob("parts/*/modules.parquet"))
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(AdapterFileError, match="dataset"):
        survey(folder)


def test_an_incomplete_dataset_says_so(tmp_path: Path) -> None:
    folder = simulate(tmp_path / "fleet", 20, 2)
    file = folder / "fleet.json"
    file.write_text(file.read_text().replace('"complete": true', '"complete": false'))
    found: Survey = survey(folder)
    assert not found.complete
