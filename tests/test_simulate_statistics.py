"""The simulation of the statistics: it runs, it can fail, and the page says what the committed results say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import simulate_statistics as simulation  # noqa: E402
from s3lora import statistics  # noqa: E402
from s3lora.statistics import Interval  # noqa: E402


def committed() -> tuple[int, dict[str, list[simulation.Row]]]:
    content = json.loads(simulation.RESULTS.read_text(encoding="utf-8"))
    return content["runs"], content["tables"]


def test_the_page_is_made_from_the_results() -> None:
    page = simulation.PAGE.read_text(encoding="utf-8")
    assert simulation.render(page, committed()[1]) == page


def test_the_results_have_no_fault() -> None:
    runs, results = committed()
    assert runs == simulation.RUNS
    assert simulation.faults(results, runs) == []
    # What the page says of clusters that are ignored, and of the exact test.
    ignored = [row["type I"] for row in results["clusters"] if row["by"] == "ignored"]
    assert min(ignored) > 0.15
    power = {row["by"]: row["power"] for row in results["pairs"] if row["n"] == 20}
    assert power["McNemar mid-p"] > power["McNemar exact"] + 0.05


def test_the_same_seed_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "SIZES", (10, 20, 50, 60))
    first, again = (simulation.plain(simulation.simulate(8, 50)) for _ in range(2))
    assert first == again
    assert set(first) == set(committed()[1])


def test_an_interval_that_is_too_short_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "SIZES", (20,))
    runs = 200
    good = {"pairs": simulation.pairs(runs), "shares": simulation.shares(runs), "many": simulation.many(runs)}
    assert simulation.faults(good, runs) == []
    inner = statistics.paired_rate_difference

    def short(a: object, b: object, clusters: object = None) -> Interval:
        value, low, high = inner(a, b, clusters)  # type: ignore[arg-type]
        return Interval(value, value + (low - value) / 2, value + (high - value) / 2)

    monkeypatch.setattr(statistics, "paired_rate_difference", short)
    monkeypatch.setattr(statistics, "holm", lambda values: values)
    found = simulation.faults({"pairs": simulation.pairs(runs), "many": simulation.many(runs)}, runs)
    assert any("by Tango, n 20: an interval at 95 % held the truth in 0." in fault for fault in found)
    assert any("by Tango, n 20: a test erred" in fault for fault in found)
    assert any("Holm's correction erred" in fault for fault in found)


def test_it_ends_with_a_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"n": 50, "coverage": 0.94, "least coverage": 0.9}]
    monkeypatch.setattr(simulation, "simulate", lambda runs, resamples: {"rates": rows})
    assert simulation.main(["--quick"]) == 0
    rows[0]["coverage"] = 0.5
    assert simulation.main(["--quick"]) == 1
    assert "| 50 | 0.500 | 0.900 |" in (shown := capsys.readouterr().out)
    assert "fault: rates: n 50: an interval at 95 % held the truth in 0.500" in shown
