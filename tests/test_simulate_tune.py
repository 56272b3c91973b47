"""The simulation of `tune`: a quick run, and the committed rows against the page and against what they must hold."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.simulate_tune import (
    BEGIN,
    END,
    PAGE,
    RESULTS,
    SIZES,
    WORLDS,
    Row,
    main,
    measure,
    render,
    simulate,
    table,
)
from s3lora.statistics import bootstrap_mean

WORTH, DEAR = WORLDS[0], WORLDS[1]


def rows() -> list[Row]:
    return [Row(**row) for row in json.loads(RESULTS.read_text(encoding="utf-8"))]


def test_a_quick_run_is_seeded_and_finds_what_is_there() -> None:
    before = dict(bootstrap_mean.__kwdefaults__ or {})
    found = simulate(runs=2, sizes=(30,))
    assert bootstrap_mean.__kwdefaults__ == before
    assert [(row.kind, row.world) for row in found] == [(k, w.name) for k in ("mean", "rate") for w in WORLDS]
    assert found[0] == measure(WORTH, "mean", 30, 2)
    assert (found[0].chosen, found[0].wrong, found[1].chosen, found[1].nothing) == (1, 0, 0, 1)


def test_what_is_right_is_told_from_the_truth() -> None:
    assert [top for top in (1, 25, 26, 60) if WORTH.right(top)] == [1, 25]
    assert not DEAR.right(20)  # nothing is lost that matters, and nothing gained
    assert not DEAR.right(100)


def test_the_committed_rows_hold_what_the_page_claims() -> None:
    found = rows()
    assert [(row.kind, row.world, row.n) for row in found] == [
        (kind, world.name, n) for kind in ("mean", "rate") for world in WORLDS for n in SIZES
    ]
    for row in found:
        # The level of both tests together is below 2.5 %; two standard errors of so many runs are left.
        assert row.wrongly_confirmed <= 0.025 + 2 * (0.025 * 0.975 / row.runs) ** 0.5, row
        assert row.chosen + row.nothing + row.untold == pytest.approx(1)
        if row.world == "worth it":
            assert row.nothing == 0, row
    assert BEGIN in PAGE.read_text(encoding="utf-8")
    assert f"{BEGIN}\n\n{table(found)}\n\n{END}" in PAGE.read_text(encoding="utf-8")


def test_the_table_is_written_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    render(rows()[:1], page)
    text = page.read_text()
    assert text.startswith(f"Before.\n\n{BEGIN}\n\n| usefulness |")
    assert text.endswith(f"|\n\n{END}\n\nAfter.\n")
    assert "old" not in text


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes rows and page; here a few rows of its own."""
    page, results = tmp_path / "page.md", tmp_path / "rows.json"
    page.write_text(f"{BEGIN}{END}\n")
    monkeypatch.setattr("benchmarks.simulate_tune.PAGE", page)
    monkeypatch.setattr("benchmarks.simulate_tune.RESULTS", results)
    monkeypatch.setattr("benchmarks.simulate_tune.SIZES", (12,))
    monkeypatch.setattr("benchmarks.simulate_tune.WORLDS", (WORTH,))
    monkeypatch.setattr("sys.argv", ["simulate_tune", "--runs", "1"])
    main()
    found = json.loads(results.read_text())
    assert [(row["kind"], row["n"], row["runs"]) for row in found] == [("mean", 12, 1), ("rate", 12, 1)]
    assert page.read_text().count("\n| mean | worth it | 12 |") == 1
    assert found[0] == asdict(Row(**found[0]))
