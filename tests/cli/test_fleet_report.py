"""`s3lora fleet report`: a page, a document, the pages of single adapters, and nothing half-written."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pytest

from s3lora.cli.fleet.reports import file_name
from s3lora.fleet.populations.reference import build_reference
from s3lora.fleet.populations.survey import Survey, survey
from s3lora.fleet.run import fleet_scan
from tests.command import call, process
from tests.fleet.inline import Inline
from tests.planning import tensors_of
from tests.report.test_documents import validator
from tests.report.test_page import Page
from tests.support import make_adapter, write_safetensors

pytest.importorskip("duckdb")
PATHS = [f"model.layers.{i}.self_attn.{name}" for i in range(3) for name in ("q_proj", "v_proj")]
HOSTILE = "x..%2f <img src=x onerror=alert(1)> javascript:"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Return a dataset of 24 adapters, one of them with a hostile name, one of them a single file."""
    for number in range(22):
        one(tmp_path / "in", f"a{number:02d}", number)
    one(tmp_path / "in", HOSTILE, 90)
    one(tmp_path / "in", "../in/é", 91)
    fleet_scan([str(tmp_path / "in")], tmp_path / "out", engine=Inline)
    return tmp_path / "out"


def one(folder: Path, name: str, seed: int) -> Path:
    config = {"base_model_name_or_path": "org/Thing-1B"}
    return make_adapter(folder / name, dict.fromkeys(PATHS, (10, 9, 4)), seed=seed, config=config)


def test_a_page(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "fleet", "report", dataset, "-o", tmp_path / "page.html")
    assert (result.status, result.out, result.err) == (0, "", "")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text == call(capsys, "fleet", "report", dataset).out
    assert len(Page(text).tables["most"]) == 25
    assert str(tmp_path) not in text
    assert "<img" not in text


def test_a_document(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "fleet", "report", dataset, "--format", "json", "--most", "3", "--index", "stable-rank")
    validator("population").validate(json.loads(result.out))
    made = msgspec.json.decode(result.out, type=Survey)
    assert made == survey(dataset, index="stable_rank", most=3)
    assert made.unusual is not None
    assert (made.unusual.index, len(made.unusual.most)) == ("stable_rank", 3)


def test_a_reference(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_reference(dataset, tmp_path / "ref.parquet", "ours")
    result = call(capsys, "fleet", "report", dataset, "--reference", tmp_path / "ref.parquet")
    assert "None of 24 adapters can be called unusual against this reference" in result.out
    assert "in the reference <b>ours</b> (n&nbsp;=&nbsp;24)" in result.out


def links(text: str) -> list[str]:
    found = [value for tag, name, value in Page(text).attributes if (tag, name) == ("a", "href")]
    return [value for value in found if not value.startswith("#")]


def test_pages_of_single_adapters(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = survey(dataset, most=24).unusual
    assert found is not None
    gone, changed = found.most[1], found.most[2]
    shutil.rmtree(gone.uri)
    one(Path(changed.uri).parent, Path(changed.uri).name, 1234)
    pages = tmp_path / "sub folder" / "pages"
    result = call(capsys, "fleet", "report", dataset, "--reports", pages, "-o", tmp_path / "page.html")
    assert (result.status, result.err) == (0, "")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    lines = [cells[0] for cells in Page(text).tables["most"][1:]]
    assert "no report: " in lines[1]
    assert str(tmp_path) not in lines[1]
    assert ["has changed since" in line for line in lines] == [i == 2 for i in range(24)]
    assert len(links(text)) == 23
    assert {pages / Path(link).name for link in links(text)} == set(pages.iterdir())
    for link in links(text):
        assert re.fullmatch(r"\./sub%20folder/pages/\d{3}-[a-z0-9-]+\.html", link)
        file = (tmp_path / unquote(link)).read_text(encoding="utf-8")
        assert "s3lora scan" in file
        assert str(tmp_path) not in file
    hostile = next(file for file in pages.iterdir() if "onerror" in file.name)
    assert "<img" not in hostile.read_text(encoding="utf-8")


def test_pages_are_of_the_adapter_that_was_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        folder = one(tmp_path / "in", f"a{seed}", seed)
        tensors = tensors_of(folder)
        both = {
            key.replace(f".{half}.", f".{half}.{name}."): value
            for key, value in tensors.items()
            for half in ("lora_A", "lora_B")
            if half in key
            for name in ("mine", "other")
        }
        write_safetensors(folder / "adapter_model.safetensors", both)
    one(tmp_path / "in", "plain", 2)
    words = ("fleet", "scan", tmp_path / "in" / "*", "--adapter", "mine", "--out", tmp_path / "out", "--workers", 1)
    assert call(capsys, *words).status == 0
    pages = tmp_path / "pages"
    result = call(capsys, "fleet", "report", tmp_path / "out", "--reports", pages, "-o", tmp_path / "page.html")
    assert result.status == 0
    assert "no report" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    shown = [file.read_text(encoding="utf-8") for file in pages.iterdir()]
    named = ["--adapter mine -o PRUNED" in html.unescape(text) for text in shown]
    assert sorted(named) == [False, True, True], "the third holds one adapter, which has no name"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "007-etc-passwd.html"),
        ("..", "007-adapter.html"),
        ("", "007-adapter.html"),
        ("C:\\x\\con.html", "007-c-x-con-html.html"),
        ("a" * 500, f"007-{'a' * 40}.html"),
        ("\u202eevil\x00", "007-evil.html"),
    ],
)
def test_names_of_pages_hold_nothing_foreign(name: str, expected: str) -> None:
    assert file_name(7, name) == expected


def test_what_cannot_be_meant(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    page = tmp_path / "page.html"
    for arguments, sentence in {
        (tmp_path / "empty",): "holds no results of a fleet",
        (dataset, "--reports", tmp_path / "r"): "--reports needs --output",
        (dataset, "--reports", tmp_path / "r", "--format", "json", "-o", page): "--reports does nothing with --format",
        (dataset, "--reports", tmp_path / "file", "-o", page): "cannot be written",
        (dataset, "--index", "sharpness"): "sharpness",
        (dataset, "--index", "kurtosis"): "scan with --kurtosis",
        (dataset, "--most", "0"): "0",
        (dataset, "--reference", tmp_path / "file"): "cannot be read as a reference",
        (dataset, "-o", tmp_path / "no" / "page.html"): "no such folder",
    }.items():
        result = call(capsys, "fleet", "report", *arguments)
        assert (result.status, result.out) == (2, ""), arguments
        assert sentence in result.err, arguments
        assert "Traceback" not in result.err
    assert not page.exists()
    assert not (tmp_path / "r").exists()


def test_without_a_run_to_its_end(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = dataset / "fleet.json"
    file.write_text(file.read_text().replace('"complete": true', '"complete": false'))
    assert "The last run of the scan did not come to its end" in call(capsys, "fleet", "report", dataset).out


def test_in_a_process_of_its_own(dataset: Path) -> None:
    result = process("fleet", "report", dataset)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("<!doctype html>")
