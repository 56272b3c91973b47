"""What reports say of an adapter against a reference: the words, the numbers, and what they never say."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from s3lora.choose.rankings import survey
from s3lora.choose.select import select
from s3lora.measure.scan import scan
from s3lora.report.against_view import mark_of, percentile, reading, remarks, robust_z, rows_of, verdict
from s3lora.report.documents import ScanDocument, scan_csv, scan_document, to_json
from s3lora.report.scan_page import Reported, scan_page
from s3lora.report.text import scan_text, to_text
from s3lora.spectrum.methods import METHODS
from tests.report.made_against import against
from tests.report.scanned import mixed, reported, wide
from tests.report.test_documents import validator
from tests.report.test_page import ATTACK
from tests.support import make_adapter


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> ScanDocument:
    measured = scan(mixed(tmp_path_factory.mktemp("made") / "mixed"))
    return scan_document(measured, select(measured, index="ssi"))


@pytest.fixture(scope="module")
def document(bare: ScanDocument) -> ScanDocument:
    return replace(bare, reference=against(bare))


def told(text: str) -> str:
    return " ".join(text.split())


def text_of(document: ScanDocument) -> str:
    return to_text(scan_text(document, None))


def test_the_text_names_the_reference_and_shows_both_marks(document: ScanDocument) -> None:
    text = text_of(document)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "against the reference ours  80 adapters, 2,640 modules" in text
    assert re.search(r"sharpest module +0\.\d+ +100 \[95\.4, 100\] +\+4\.2 +unusually high \(sharp\)", text)
    assert re.search(r"median of modules +0\.\d+ +50 \[39, 61\] +\+0\.2 +not unusual", text)
    assert "It is unusual against this reference, which does not tell what it does, nor whether" in told(text)
    assert "31 modules are compared with 80 adapters: same base family, projection, rank band" in told(text)
    assert "fell back" not in text
    for word in ("backdoor", "malicious", "safe "):
        assert word not in text


def test_the_table_has_percentile_and_z(document: ScanDocument) -> None:
    assert document.reference is not None
    text = text_of(document)
    head = next(line for line in text.splitlines() if "sharpest modules" in line)
    assert head.split()[2:] == ["ssi", "pct", "z", "magnitude", "‖ΔW‖", "m", "×", "n"]
    sharpest = max(document.modules, key=lambda module: module.indices["ssi"] or 0)
    mark = document.reference.standings[sharpest.path].marks["ssi"]
    row = text.splitlines()[text.splitlines().index(head) + 1]
    assert row.split()[3:5] == [percentile(mark), robust_z(mark)]


def test_without_a_reference_nothing_changes(bare: ScanDocument) -> None:
    assert " pct " not in text_of(bare)
    assert "against" not in text_of(bare)
    assert "percentile" not in scan_csv([bare])
    assert json.loads(to_json(bare))["reference"] is None


def test_few_adapters_cannot_tell(bare: ScanDocument) -> None:
    few = replace(bare, reference=against(bare, adapters=60))
    text = told(text_of(few))
    assert "+4.2 cannot be told" in text
    assert "cannot be told: its cell has 60 adapters, and no percentile of fewer than 73 is sure" in text
    assert "unusually" not in text


@pytest.mark.parametrize(
    ("level", "ranks", "index", "why"),
    [
        (2, (8, 8), "ssi", "it is compared with adapters of other ranks, or its own modules differ in rank"),
        (0, (1, 8), "stable_rank", "it is compared with adapters of other ranks, or its own modules differ in rank"),
        (0, (1, 1), "energy", "all its modules have rank 1, of which this index says nothing, whatever the update."),
        (0, (1, 1), "magnitude", None),
        (2, (8, 8), "normalised_ssi", None),
    ],
)
def test_over_mixed_ranks_it_cannot_be_told(
    bare: ScanDocument, level: int, ranks: tuple[int, int], index: str, why: str | None
) -> None:
    made = against(bare, level=level, ranks=ranks)
    readings = [row.reading for row in rows_of(made, index)]
    if why is None:
        assert readings[0].startswith("unusually")
        assert verdict(made, index).startswith("It is unusual")
    else:
        assert readings == ["cannot be told"] * 2
        assert verdict(made, index).startswith(f"Whether it is unusual against this reference cannot be told: {why}")


def test_fallbacks_are_told(bare: ScanDocument) -> None:
    text = told(text_of(replace(bare, reference=against(bare, coarse=5))))
    assert "26 modules are compared with 80 adapters: same base family, projection, rank band and layer third." in text
    assert "5 modules are compared with 80 adapters: same role and rank band, of any base." in text
    assert "5 of 31 modules fell back to a coarser cell: fewer than 20 adapters of the reference share their" in text


@pytest.mark.parametrize(
    ("family", "number", "says"),
    [
        ("some-family", 80, "Its base family some-family has 80 adapters in the reference."),
        ("new-family", 0, "Its base family new-family is not known to the reference: all comparisons are with other"),
        ("unknown", 1, "It names no base model, as 1 adapter of the reference."),
    ],
)
def test_the_base_family_is_told(bare: ScanDocument, family: str, number: int, says: str) -> None:
    made = against(bare, base_family=family, family_adapters=number)
    assert says in told(text_of(replace(bare, reference=made)))


def test_chance_is_counted_at_the_sharp_end(bare: ScanDocument) -> None:
    made = against(bare)
    for index, sharp in (("ssi", True), ("stable_rank", False)):
        marks = [mark for path in made.standings if (mark := mark_of(made, path, index)) is not None]
        beyond = sum(mark.percentile > 95 if sharp else mark.percentile < 5 for mark in marks)
        assert 0 < beyond < len(marks)
        where = "above the 95th" if sharp else "below the 5th"
        last = list(remarks(made, index))[-1]
        assert last.startswith(f"Of {len(marks)} modules about {len(marks) / 20:.1f} lie {where} percentile by chance;")
        assert re.search(rf"here {beyond} do(es)?\.$", last)


def test_the_end_is_that_of_the_index(bare: ScanDocument) -> None:
    made = against(bare)
    assert [row.reading for row in rows_of(made, "stable_rank")] == ["unusually low (sharp)", "not unusual"]
    assert [row.reading for row in rows_of(made, "magnitude")] == ["unusually high", "not unusual"]
    assert reading("ssi", "low") == "unusually low (blunt)"
    assert bare.plan is not None
    by_rank = replace(bare, plan=replace(bare.plan, index="stable_rank"), reference=made)
    assert "unusually low (sharp)" in text_of(by_rank)


def test_equal_values_have_no_z(bare: ScanDocument) -> None:
    made = against(bare)
    assert made.adapter is not None
    marks = {key: replace(mark, z=None) for key, mark in made.adapter.marks.items()}
    same = replace(
        made, adapter=replace(made.adapter, marks=marks), unusual={**made.unusual, "ssi_sharpest": "unknown"}
    )
    assert "half of its cell or more has one and the same value" in verdict(same, "ssi")
    assert robust_z(marks["ssi_sharpest"]) == "–"


def test_an_adapter_of_zero_updates_stands_nowhere(tmp_path: Path) -> None:
    modules = {f"layers.{i}.q_proj": (8, 8, 2) for i in range(3)}
    measured = scan_document(scan(make_adapter(tmp_path / "zero", modules, zero_b=modules)), None)
    document = replace(measured, reference=against(measured))
    assert document.reference is not None
    assert (document.reference.adapter, document.reference.standings) == (None, {})
    assert "nothing can be compared" in told(text_of(document))
    assert "nothing can be compared" in scan_page([Reported(document=document, ranked=(), path="zero")])
    assert [row["percentile"] for row in csv.DictReader(io.StringIO(scan_csv([document])))] == [""] * 3


def test_json_has_it_and_reads_back(document: ScanDocument) -> None:
    content = json.loads(to_json(document))
    validator("scan").validate(content)
    assert content["reference"]["reference"] == "ours"
    assert content["reference"]["unusual"]["ssi_sharpest"] == "high"
    assert set(content["reference"]["standings"]) == {m.path for m in document.modules if not m.zero}
    assert msgspec.json.decode(to_json(document).encode(), type=ScanDocument) == document


def test_csv_has_it(document: ScanDocument, bare: ScanDocument) -> None:
    assert document.reference is not None
    rows = list(csv.DictReader(io.StringIO(scan_csv([document, bare]))))
    assert {row["percentile"] for row in rows[len(document.modules) :]} == {""}
    for module, row in zip(document.modules, rows, strict=False):
        standing = document.reference.standings.get(module.path)
        if standing is None:
            assert (row["percentile_of"], row["z"], row["cell"], row["cell_adapters"]) == ("", "", "", "")
            continue
        mark = standing.marks["ssi"]
        found = [row[name] for name in ("percentile", "percentile_low", "percentile_high", "z")]
        assert [float(value) if value else None for value in found] == [mark.percentile, mark.low, mark.high, mark.z]
        assert (row["percentile_of"], row["cell"], row["cell_adapters"]) == ("ssi", standing.cell, "80")


def page_of(path: Path, name: str = "ours") -> str:
    one = reported(path)
    return scan_page([replace(one, document=replace(one.document, reference=against(one.document, name=name)))])


def test_the_page_has_a_section_and_two_columns(tmp_path: Path) -> None:
    path = mixed(tmp_path / "made")
    text = page_of(path)
    assert text == page_of(path)
    assert "Against the reference ours</h2>" in text
    assert "80 adapters, 2,640 modules." in text
    assert text.count('data-sort="s-percentile"') == text.count('data-sort="s-z"') == 1
    assert "It is unusual against this reference, which does not tell what it does" in text
    assert "about 1.6 lie above the 95th percentile by chance" in text
    assert "<dt>reference</dt><dd>ours, 80 adapters, 2,640 modules</dd>" in text
    assert "s-percentile" not in scan_page([reported(path)]).partition("<script>")[0]


def test_hostile_reference_names_stay_text(tmp_path: Path) -> None:
    text = page_of(mixed(tmp_path / "made"), ATTACK)
    assert "<script>alert" not in text
    assert "<img" not in text
    measured = scan(mixed(tmp_path / "again"))
    bare = scan_document(measured, select(measured))
    shown = text_of(replace(bare, reference=against(bare, name="\x1b[31m[bold]:smile:")))
    assert "\x1b" not in shown
    assert "[bold]:smile:" in shown


@pytest.mark.parametrize(("layers", "rank", "limit"), [(32, 16, 300_000), (286, 12, 1_500_000)])
def test_size(tmp_path: Path, layers: int, rank: int, limit: int) -> None:
    measured = scan(wide(tmp_path / "wide", layers, rank))
    others = [replace(measured, configuration=replace(measured.configuration, method=name)) for name in METHODS][1:]
    bare = scan_document(measured, select(measured))
    document = replace(bare, reference=against(bare, coarse=9))
    text = scan_page([Reported(document=document, ranked=survey([measured, *others]), path="wide")])
    assert len(text.encode()) <= limit
