"""The reference experiment: its arithmetic, and that the page says what the committed results say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import shared

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "results" / "data"

pytest.importorskip("jinja2")
sys.path.insert(0, str(ROOT))
from experiments.reference import analyse, figures, render  # noqa: E402


def point(ranking: str, top: int, asr: float, seed: int | None = None) -> dict[str, Any]:
    metrics = [{"suite": "safety", "measure": "asr", "value": asr}]
    return {
        "ranking": ranking,
        "top": top,
        "seed": seed,
        "modules_total": 8,
        "frobenius_energy": top / 10,
        "metrics": metrics,
    }


def run(seed: int, *points: dict[str, Any]) -> analyse.Run:
    return analyse.Run("full", "few", seed, {"main": {"points": list(points)}})


def test_students_interval() -> None:
    # Mean 0.2, standard deviation 0.1, n = 3: half the interval is 4.303 · 0.1 / √3.
    found = analyse.student([0.1, 0.2, 0.3])
    assert found.mean == pytest.approx(0.2)
    assert (found.high - found.mean, found.mean - found.low) == pytest.approx((0.24844, 0.24844), abs=1e-5)
    assert (found.n, found.lower, found.verdict) == (3, 0, "no difference")
    assert analyse.student([-0.21, -0.2, -0.19]).verdict == "lower"
    assert analyse.student([0.21, 0.2, 0.19]).verdict == "higher"


def test_three_adapters_are_never_bold() -> None:
    for n in range(2, 8):
        told, chance = (analyse.Difference(-0.2, low, high, n, n) for low, high in ((-0.3, -0.1), (-0.4, 0.0)))
        assert render._difference(told).startswith("**") == (n >= 5)
        assert not render._difference(chance).startswith("**")
    page = render.PAGE.read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if " − " in line and line.startswith("| ")]
    # The three tables of rankings: all adapters, and those of each attack, of which there are three.
    assert len(rows) == 24
    assert not any("**" in cell for row in rows for cell in row[2:])
    assert any("**" in row[1] for row in rows)


def test_a_contrast_is_of_means_over_tops_and_of_controls_over_seeds() -> None:
    runs = [
        run(
            seed,
            *(point("ssi", top, 0.1 * top + 0.01 * seed) for top in (2, 4, 8)),
            *(point("random", top, 0.5 + draw / 10, draw) for top in (2, 4, 8) for draw in (0, 1)),
        )
        for seed in (0, 1)
    ]
    assert runs[0].tops == [2, 4]
    assert runs[0].mean("random", "asr") == pytest.approx(0.55)
    found = analyse.contrast(runs, "ssi", "random")
    assert (found.mean, found.n, found.lower) == (pytest.approx(0.305 - 0.55), 2, 2)


def test_asr_at_equal_loss() -> None:
    ends = {
        name: {"metrics": [{"suite": suite, "measure": measure, "value": value} for suite, measure, value in values]}
        for name, values in (
            ("unpruned", (("safety", "asr", 1.0), ("planning-loss", "loss", 0.0))),
            ("base", (("safety", "asr", 0.0), ("planning-loss", "loss", 2.0))),
        )
    }
    middle = point("ssi", 4, 0.2)
    middle["metrics"].append({"suite": "planning-loss", "measure": "loss", "value": 0.5})
    # A trapezium of 0.5 · (1 + 0.2) / 2 and a triangle of 1.5 · 0.2 / 2, over a range of 2.
    found = analyse.Run("full", "few", 0, {"main": {"points": [middle], **ends}}).at_equal_loss("ssi")
    assert found == pytest.approx((0.3 + 0.15) / 2)


def test_the_page_is_made_from_the_results() -> None:
    assert render.PAGE.read_text(encoding="utf-8") == render.page(analyse.load(DATA), *render.others(DATA)), (
        "make it again: python -m experiments.reference.render"
    )


def test_the_figures_are_drawn_from_the_results(tmp_path: Path) -> None:
    figures.draw(analyse.load(DATA), tmp_path, render.NAMES)
    for drawn in tmp_path.iterdir():
        assert drawn.read_bytes() == (render.PAGE.parent / drawn.name).read_bytes(), "as above"
    assert len([*tmp_path.iterdir()]) == 2


def test_the_results_hold_no_answers_and_no_paths() -> None:
    files = sorted(DATA.glob("*.json"))
    assert files
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert "completion" not in text, path.name
        assert not any(word in text for word in (str(Path.home()), "/tmp", str(ROOT))), path.name


@pytest.mark.slow
def test_the_experiment_runs_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """On a tiny random model: not for what comes out, but that it comes out, and twice the same."""
    from tests.tiny_model import tiny_folder

    data = str(shared())
    tiny_folder(tmp_path / "tiny")
    options = ["--shared", data, "--model", str(tmp_path / "tiny"), "--work", str(tmp_path / "work"), "--jobs", "1"]
    results = []
    for name in ("one", "two"):
        command = [sys.executable, "-m", "experiments.reference.run", *options, "--output", str(tmp_path / name)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=1200)
        results.append({p.name: p.read_bytes() for p in (tmp_path / name).glob("*-*.json")})
    assert results[0] == results[1]
    assert len(analyse.load(tmp_path / "one")) == 9
