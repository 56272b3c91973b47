"""Results as they show themselves in Python: the command's JSON and CSV, tables, drawings, HTML that stands alone."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

import s3lora
from s3lora.needs import MissingPackageError
from s3lora.report.documents import compare_csv, scan_csv, scan_document
from tests.command import call
from tests.support import make_adapter

PATHS = [f"model.layers.{i}.self_attn.{name}" for i in range(3) for name in ("q_proj", "v_proj")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "a", dict.fromkeys(PATHS, (8, 6, 2)), zero_b=[PATHS[0]])


def test_json_is_that_of_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = s3lora.scan(folder)
    plan = s3lora.select(scan)
    text = call(capsys, "scan", folder, "--format", "json", "--reference", "none").out
    assert scan.to_json(plan) == text
    assert s3lora.Scan.from_json(text).modules == plan.mark(scan).modules


def test_tables_have_the_columns_of_the_csv(folder: Path) -> None:
    scan, compared, composed = s3lora.scan(folder), s3lora.compare([folder] * 2), s3lora.compose([folder] * 2)
    heads = [
        next(csv.reader(io.StringIO(text))) for text in (scan_csv([scan_document(scan, None)]), compare_csv(compared))
    ]
    for result, head in zip((scan, compared, composed), (*heads, None), strict=True):
        pandas, polars = result.to_pandas(), result.to_polars()
        assert list(pandas.columns) == polars.columns == (head or polars.columns)
        assert len(pandas) == len(polars) > 0
    table = scan.to_polars()
    assert table["path"].to_list() == PATHS
    assert table["ssi"].to_list() == [module.indices["ssi"] for module in scan]
    assert table["sigma"].to_list() == [list(module.sigma) for module in scan]
    assert scan.to_pandas()["zero"].tolist() == [True, *[False] * 5]


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_a_library_that_is_not_there_is_named(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = s3lora.scan(folder)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError) as caught:
        getattr(scan, f"to_{name}")()
    assert str(caught.value) == f"this needs the package {name}, which is not installed; run: pip install {name}"


def test_a_drawing_is_svg_and_png(folder: Path, tmp_path: Path) -> None:
    scan = s3lora.scan(folder)
    drawn = scan.plot()
    assert repr(drawn) == "<Drawing: ssi of a by layer and projection>"
    assert ElementTree.fromstring(drawn._repr_svg_()).tag == "{http://www.w3.org/2000/svg}svg"
    drawn.save(tmp_path / "map.svg")
    assert (tmp_path / "map.svg").read_text(encoding="utf-8") == drawn.svg
    assert "energy" in repr(scan.plot("energy"))
    assert "chosen: 2 of 6" in scan.plot(plan=s3lora.select(scan, s3lora.Top(2))).svg
    pytest.importorskip("resvg_py")
    drawn.save(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "x.svg").mkdir()
    with pytest.raises(s3lora.OutputError, match="is a folder"):
        drawn.save(tmp_path / "x.svg")


def test_there_is_no_png_without_its_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = s3lora.scan(folder).plot()
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert drawn._repr_svg_()
    with pytest.raises(MissingPackageError):
        drawn.png()


def test_html_stands_alone(folder: Path) -> None:
    scan = s3lora.scan(folder)
    html = scan._repr_html_()
    assert "6 modules by mas-svd" in html
    assert "Note: 1 of 6 modules are zero updates" in html
    (image,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert base64.b64decode(image).decode() == scan.plot().svg
    assert not re.search(r"https?:|<script|<link|url\(", html.replace(image, ""))


def test_html_has_no_markup_from_names(tmp_path: Path) -> None:
    evil = '<img src=x onerror=alert(1)>"&'
    paths = [f"model.layers.{i}.self_attn.{evil}" for i in range(3)]
    scan = s3lora.scan(make_adapter(tmp_path / "a", dict.fromkeys(paths, (8, 6, 2))))
    scan = dataclasses.replace(scan, warnings=(evil,), source=dataclasses.replace(scan.source, name=evil))
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(scan._repr_html_())
    assert set(tags) == {"div", "b", "img"}
    assert tags.count("img") == 1, "the map"
    assert "onerror=alert(1)&gt;" in scan._repr_html_()


def test_a_scan_without_a_map_is_shown(tmp_path: Path) -> None:
    scan = s3lora.scan(make_adapter(tmp_path / "a", {"score": (8, 6, 2)}))
    assert "<img" not in scan._repr_html_()
    assert repr(scan).splitlines()[1] == " LoRA of rank 2: score"
    with pytest.raises(s3lora.NothingToAuditError, match="no map of fewer than two modules"):
        scan.plot()
