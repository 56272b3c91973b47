"""The curves as a PNG: always the same bytes, with nothing in them but the picture."""

from __future__ import annotations

import dataclasses
import struct
import sys
import zlib
from pathlib import Path

import pytest

from s3lora.errors import OutputError
from s3lora.evaluate.results import Sweep
from s3lora.needs import MissingPackageError, how_to_install
from s3lora.report.curves import draw, png
from tests.command import call
from tests.foreign_blocks import PROJECT
from tests.report import measured
from tests.report.test_page import ATTACK

pytest.importorskip("resvg_py")


def chunks(content: bytes) -> list[tuple[str, bytes]]:
    """Return the parts of a PNG; each has its length, name, content and checksum."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    at, found = 8, []
    while at < len(content):
        size, name = struct.unpack(">I4s", content[at : at + 8])
        body = content[at + 8 : at + 8 + size]
        assert struct.unpack(">I", content[at + 8 + size : at + 12 + size])[0] == zlib.crc32(name + body)
        found.append((name.decode(), body))
        at += 12 + size
    return found


def small(*rankings: str) -> Sweep:
    """Return a sweep that is drawn quickly."""
    sweep = measured.sweep()
    points = [(i, point) for i, point in enumerate(sweep.points) if point.ranking in rankings and point.top in (30, 60)]
    front = {sweep.points[i].top for i in sweep.pareto}
    return dataclasses.replace(
        sweep,
        points=tuple(point for _, point in points),
        pareto=tuple(n for n, (i, _) in enumerate(points) if i in sweep.pareto and front),
        spreads=tuple(one for one in sweep.spreads if one.ranking in rankings and one.top in (30, 60)),
    )


SWEEP = small("mas-svd weighted-ssi", "random")


def test_a_picture_and_nothing_else() -> None:
    found = chunks(png(SWEEP))
    assert {name for name, _ in found} <= {"IHDR", "pHYs", "IDAT", "IEND"}, "no time, no name of a program"
    width, height = struct.unpack(">II", found[0][1][:8])
    assert width == 2 * (480 + 22 + 480 + 28)
    alone = chunks(png(dataclasses.replace(SWEEP, utility=None)))
    assert struct.unpack(">II", alone[0][1][:8])[0] == 2 * (480 + 28)
    assert height > 2 * 360


def test_equal_sweeps_give_equal_bytes() -> None:
    first = png(SWEEP)
    assert png(SWEEP) == first
    assert first != png(dataclasses.replace(SWEEP, adapter=measured.source("another")))


def changed(sweep: Sweep, **fields: object) -> Sweep:
    """Return the sweep with these fields in every metric of safety of its rankings."""
    points = (
        point
        if point.control
        else dataclasses.replace(
            point,
            metrics=tuple(
                dataclasses.replace(one, **fields) if (one.suite, one.measure) == measured.ASR else one  # type: ignore[arg-type]
                for one in point.metrics
            ),
        )
        for point in sweep.points
    )
    return dataclasses.replace(sweep, points=tuple(points))


def test_what_is_measured_is_drawn() -> None:
    alone = dataclasses.replace(SWEEP, utility=None)
    first = png(alone)
    assert png(changed(alone, low=None, high=None)) != first, "intervals"
    assert png(changed(alone, value=0.5)) != first, "values"
    wider = tuple(dataclasses.replace(one, least=0.0) for one in alone.spreads)
    assert png(dataclasses.replace(alone, spreads=wider)) != first, "ranges of controls"
    assert png(dataclasses.replace(SWEEP, pareto=())) != png(SWEEP), "the front"


@pytest.mark.parametrize("name", [ATTACK, "", "_hidden", "$\\frac{1}{", "漢字 \ud800 \x1b[2J", "x" * 600])
def test_hostile_names_are_drawn(name: str) -> None:
    hostile = measured.hostile_sweep(name)
    few = dataclasses.replace(hostile, points=hostile.points[:1], pareto=(0,), spreads=(), utility=None)
    assert chunks(png(few))[-1][0] == "IEND"


@pytest.mark.parametrize("sweep", [measured.bare_sweep(), measured.one_point_sweep()], ids=["bare", "one point"])
def test_little_is_drawn_too(sweep: Sweep) -> None:
    assert chunks(png(sweep))[-1][0] == "IEND"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    alone = dataclasses.replace(SWEEP, utility=None)
    draw(alone, tmp_path / "curve.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
    assert chunks((tmp_path / "curve.png").read_bytes())[-1][0] == "IEND"
    with pytest.raises(OutputError, match="cannot be written"):
        draw(alone, tmp_path / "nowhere" / "curve.png")


# --- what must be installed


def test_the_extra_brings_what_is_drawn_with() -> None:
    for extra in ("eval", "plots"):
        assert any(one.startswith("resvg-py") for one in PROJECT["optional-dependencies"][extra])
    assert any(one.startswith("jinja2") for one in PROJECT["dependencies"]), "pages are made without any extra"


def test_without_resvg_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(MissingPackageError, match=r"package resvg_py.*; run: pip install "):
        png(SWEEP)


def test_a_sweep_asks_for_resvg_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    result = call(
        capsys, "sweep", tmp_path / "no-adapter", "--base", "none", "--output", tmp_path / "out", "--no-cache"
    )
    assert result.status == 2
    assert "package resvg_py" in result.err
    assert f"; run: pip install {how_to_install('plots', 'resvg_py')}" in result.err
    assert len(result.err.strip().splitlines()) <= 2
