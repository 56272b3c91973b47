"""Ranks in a survey: those of rank 1 have no place in it, and over mixed ranks nothing is called unusual."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

import s3lora
from s3lora.fleet.populations.reference import build_reference
from s3lora.fleet.populations.standing import Reference
from s3lora.fleet.populations.survey import survey
from s3lora.fleet.run import fleet_scan
from s3lora.measure.against import together
from s3lora.report.population_page import population_page
from s3lora.spectrum.indices import INDICES
from tests.fleet.inline import Inline
from tests.fleet.populations.test_survey import BASE, PATHS, write
from tests.support import make_adapter

SILENT = {name for name, index in INDICES.items() if index.silent}

pytest.importorskip("duckdb")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of 80 adapters of rank 4, one much sharper, two of 32, three of 1, and one of 1 and 4."""
    folder = tmp_path_factory.mktemp("ranks")
    for number in range(80):
        write(folder, f"{number:03d}", number)
    file = folder / "in" / "007" / "adapter_model.safetensors"
    tensors = load_file(file)
    for key, tensor in tensors.items():
        if "lora_B" in key:
            tensor[:, 1:] *= 1e-3  # one direction is left
    save_file(tensors, file, {"format": "pt"})
    for number, rank in enumerate((32, 32, 1, 1, 1)):
        shapes = dict.fromkeys(PATHS, (40, 40, rank))
        make_adapter(folder / "in" / f"rank-{rank}-{number}", shapes, seed=100 + number, config=BASE)
    pattern = {path: (10, 9, 4 if number else 1) for number, path in enumerate(PATHS)}
    make_adapter(folder / "in" / "pattern", pattern, seed=200, config=BASE)
    fleet_scan([str(folder / "in")], folder / "out", engine=Inline)
    return folder / "out"


def test_who_is_of_rank_one_has_no_place(ranks: Path) -> None:
    for index in SILENT:
        ranking = survey(ranks, index=index, most=200).unusual
        assert ranking is not None
        assert (ranking.rank_one, ranking.adapters, len(ranking.most)) == (3, 83, 83)
        assert not any(one.rank == 1 for one in ranking.most)
    for index in ("magnitude", "weighted_ssi"):
        ranking = survey(ranks, index=index, most=200).unusual
        assert ranking is not None
        assert (ranking.rank_one, ranking.adapters) == (0, 86)


def test_over_mixed_ranks_nothing_is_unusual(ranks: Path) -> None:
    ranking = survey(ranks, most=200).unusual
    assert ranking is not None
    found = {Path(one.uri).name: one for one in ranking.most}
    assert (ranking.unusual, ranking.few, ranking.mixed) == (1, 0, 3)
    assert [(one.verdict, one.hindered) for one in ranking.most if one.verdict == "high"] == [("high", None)]
    assert found["007"].verdict == "high"
    for name in ("rank-32-0", "rank-32-1", "pattern"):
        assert (found[name].verdict, found[name].hindered) == ("unknown", "mixed_ranks")
    assert found["pattern"].level == 0
    assert max(abs(one.z) for one in ranking.most if one.hindered) > 3.5, "for its rank alone"
    whole = survey(ranks, index="normalised_ssi", most=200).unusual
    assert whole is not None
    assert (whole.mixed, {one.hindered for one in whole.most}) == (0, {None})


@pytest.mark.parametrize("index", ["ssi", "normalised_ssi", "stable_rank", "magnitude"])
def test_a_scan_gets_the_same_verdict(ranks: Path, tmp_path: Path, index: str) -> None:
    build_reference(ranks, tmp_path / "ref.parquet")
    reference = Reference(tmp_path / "ref.parquet")
    ranking = survey(ranks, index=index, most=200, reference=tmp_path / "ref.parquet").unusual
    assert ranking is not None
    assert ranking.unusual > 0 or index == "magnitude"
    some = [one for one in ranking.most[:12] + ranking.most[-3:] if Path(one.uri).exists()]
    assert len(some) >= 10
    for one in [*some, *(one for one in ranking.most if one.hindered)]:
        against = reference.compare(s3lora.scan(one.uri))
        names = [f"{index}_sharpest", f"{index}_median"]
        names.sort(key=lambda name: -abs(against.adapter.marks[name].z or 0))  # type: ignore[union-attr]
        assert together([against.unusual[name] for name in names]) == one.verdict
        assert {against.hindered.get(name) for name in names} == {one.hindered}
    lone = reference.compare(s3lora.scan(ranks.parent / "in" / "rank-1-2"))
    assert lone.hindered["ssi_median"] == "rank_one"
    assert {lone.unusual[f"{name}_sharpest"] for name in SILENT - {"normalised_ssi"}} == {"unknown"}


def test_a_population_of_rank_one_has_no_ranking(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, f"{number}", number, rank=1)
    fleet_scan([str(tmp_path / "in")], tmp_path / "out", engine=Inline)
    for index in SILENT:
        ranking = survey(tmp_path / "out", index=index).unusual
        assert ranking is not None
        assert (ranking.adapters, ranking.rank_one, ranking.most, ranking.unusual) == (0, 3, (), 0)
    assert "3 adapters of rank 1 are not ranked" in population_page(survey(tmp_path / "out"))
