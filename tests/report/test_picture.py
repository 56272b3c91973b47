"""Pictures: every label has ink and lies within, whatever signs it has, and their bytes depend on nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from s3lora.choose.rules import Top
from s3lora.report import curves
from s3lora.report.chart import LegendEntry, legend
from s3lora.report.heatmap_file import heat_map_svg
from s3lora.report.picture import png_of, svg_file
from s3lora.report.sheet import LONGEST, MEANING, WORDS, sheet
from tests.command import environment
from tests.report import measured
from tests.report.scanned import DEMO, mixed, reported
from tests.report.test_page import ATTACK
from tests.report.test_text import HOSTILE

pytest.importorskip("resvg_py")

SIZE = re.compile(r'viewBox="[^"]*" width="([^"]*)" height="([^"]*)"')
TEXT = re.compile(r"<text[^>]*>([^<]*)</text>")


def map_of(path: Path) -> str:
    one = reported(path, Top(3))
    return heat_map_svg(one.document, one.ranked)


def drawn(name: str, folder: Path) -> str:
    """Return one of the files that become a PNG."""
    if "map" in name:
        return map_of(mixed(folder))
    return curves.svg({"sweep": measured.sweep, "bare": measured.bare_sweep, "one": measured.one_point_sweep}[name]())


def without_ink(svg: str) -> list[str]:
    """Return the words that leave no trace in the picture: it is the same without them."""
    whole = png_of(svg)
    found = [match for match in TEXT.finditer(svg) if match[1].strip()]
    assert found
    return [match[1] for match in found if png_of(svg[: match.start()] + svg[match.end() :]) == whole]


@pytest.mark.parametrize("name", ["map", pytest.param("sweep", marks=pytest.mark.thorough), "bare", "one"])
def test_every_label_has_ink(name: str, tmp_path: Path) -> None:
    assert not without_ink(drawn(name, tmp_path))


def test_words_without_a_font_would_be_noticed() -> None:
    blank = svg_file(
        "sheet.svg.jinja", "title", (100.0, 50.0), sheet={"left": 500, "about": (), "panels": (), "entries": ()}
    )
    assert without_ink(blank) == ["title"]


@pytest.mark.parametrize("name", ["map", "sweep", "bare"])
def test_no_colour_is_left_to_a_page(name: str, tmp_path: Path) -> None:
    svg = drawn(name, tmp_path)
    assert "var(" not in svg
    assert "@media" not in svg
    assert not re.search(r'(?:href|src|url\(|@import|(?<!xmlns=")http)', svg)


#: Signs of the program's own words and of names in Latin, Greek and Cyrillic.
KNOWN = "AZaz09 äéñßøşž ΑΩαω σΔτ Жя ×·−–—…°±²₁→←↑↓⇒∈∑√∞≈≠≤≥■□▲▼◆●�½%[]{}<&"
UNKNOWN = ("漢", "\ue000", "ع", "א", "ก", "अ", "😀", "\U0001d504", "ﬁ", "e\u0301")


def picture_of(text: str) -> bytes:
    return png_of(
        svg_file("sheet.svg.jinja", text, (900.0, 40.0), sheet={"left": 5, "about": (), "panels": (), "entries": ()})
    )


def test_known_signs_are_not_boxes() -> None:
    box = picture_of("漢")
    assert box == picture_of("字"), "neither is in the font: both are the box"
    signs = KNOWN.replace(" ", "")
    pictures = {picture_of(sign): sign for sign in signs}
    assert box not in pictures
    assert len(pictures) == len(signs) - len("ΑA") // 2, "all differ, but the Latin A and the Greek"


@pytest.mark.parametrize("sign", UNKNOWN)
def test_signs_that_the_font_lacks_do_not_vanish(sign: str) -> None:
    nothing, around = picture_of(""), picture_of("ab")
    assert picture_of(sign) != nothing
    assert picture_of(f"a{sign}b") != around


@pytest.mark.parametrize("name", [name for name in (*HOSTILE, ATTACK) if name.strip()])
def test_hostile_names_have_ink(name: str) -> None:
    assert without_ink(sheet(name, [name], [], [LegendEntry("c0", "", name)])) == []


def edges(svg: str) -> list[bytes]:
    """Return pictures of what lies on the four sides of a drawing, 200 pixels deep."""
    width, height = (float(size) for size in SIZE.findall(svg)[0])
    bare = svg.replace('<rect width="100%" height="100%"', '<rect width="0" height="0"')
    return [
        png_of(re.sub(SIZE, f'viewBox="{box}" width="300" height="300" preserveAspectRatio="none"', bare, count=1))
        for box in (
            f"-200 0 200 {height}", f"{width} 0 200 {height}", f"0 -200 {width} 200", f"0 {height} {width} 200",
        )
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["map", "long map", "sweep", "bare", "one", "long"])
def test_nothing_reaches_out_of_the_picture(name: str, tmp_path: Path) -> None:
    if name == "long":
        long = [LegendEntry("c0", "", "n" * 100)]
        svg = sheet("n" * 2 * LONGEST, ["n" * 2 * WORDS], [], long)
        assert "n" * (MEANING - 1) in svg
    else:
        svg = drawn(name, tmp_path / ("n" * 100 if name == "long map" else "n"))
    empty = edges(sheet("", [], [], []))
    assert edges(svg) == empty
    moved = svg.replace('class="title" x="', 'class="title" x="-')
    assert name == "long" or edges(moved) != empty, "what reaches out is seen"


def test_the_legend_of_a_sheet_names_all() -> None:
    texts = TEXT.findall(curves.svg(measured.sweep()))
    entries = [entry.text for entry in legend(measured.sweep())]
    found = [text for text in texts if text in entries]
    assert found[-len(entries) :] == entries
    named = {text.removesuffix(" (control)") for text in entries[:6]}
    assert named <= set(texts[: -len(entries)]), "and lines have their names beside them"


def test_pictures_are_the_same_in_every_process() -> None:
    code = (
        "import sys, hashlib\nfrom s3lora.report.picture import png_of\n"
        "print(hashlib.sha256(png_of(sys.stdin.buffer.read().decode())).hexdigest())"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code], input=map_of(DEMO).encode(), capture_output=True, check=True,
            env=environment({"PYTHONHASHSEED": seed, "LANG": lang}),
        ).stdout
        for seed, lang in (("1", "C"), ("2", "de_DE.UTF-8"))
    ]  # fmt: skip
    assert found[0] == found[1] != b""
