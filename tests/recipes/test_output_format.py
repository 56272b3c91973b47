"""The recipe for an output format: `scan` writes it, to a file too, and says what it cannot show."""

from __future__ import annotations

from pathlib import Path

from s3lora.measure.scan import scan
from tests.recipes.recipe import follow
from tests.report.scanned import DEMO, mixed


def test_scan_writes_it(tmp_path: Path) -> None:
    copy = follow("An output format", tmp_path)
    other, broken = mixed(tmp_path / "other"), tmp_path / "broken"
    broken.mkdir()
    sharpest = [max(scan(path).modules, key=lambda module: module.indices["ssi"] or 0.0).path for path in (DEMO, other)]
    form = ("--format", "sharpest")
    one, two, file, found, nothing, compared, told = copy.run(
        ["scan", DEMO, *form],
        ["scan", DEMO, other, *form],
        ["scan", other, *form, "-o", tmp_path / "out.txt"],
        ["scan", DEMO, *form, "--fail-on", "ssi > 0.5"],
        ["scan", broken, *form],
        ["scan", DEMO, *form, "--reference", tmp_path / "reference.parquet"],
        ["scan", "--help"],
    )
    assert (one.status, one.out, one.err) == (0, f"{sharpest[0]}\n", "")
    assert (two.status, two.out) == (0, "".join(f"{path}\n" for path in sharpest))
    assert (file.status, file.out) == (0, "")
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == f"{sharpest[1]}\n"
    assert (found.status, found.out) == (1, one.out)
    assert (nothing.status, nothing.out) == (3, ""), "nothing was measured"
    assert compared.status == 2
    assert "--reference does nothing with --format sharpest" in compared.err
    assert "sarif|junit|sharpest" in told.out
