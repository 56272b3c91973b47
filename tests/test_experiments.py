"""The reference experiment: its arithmetic, and that the page says what the committed results say."""

from __future__ import annotations

import json
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
from experiments.demo_aligned import data as demo_data  # noqa: E402
from experiments.reference import analyse, figures, render, tuned  # noqa: E402


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
    # Mean 0.2, standard deviation 0.1, n = 3: half the interval is 4.30265 · 0.1 / √3.
    found = analyse.student([0.1, 0.2, 0.3])
    assert found.mean == pytest.approx(0.2)
    assert (found.high - found.mean, found.mean - found.low) == pytest.approx((0.248414, 0.248414), abs=1e-6)
    assert (found.n, found.lower, found.verdict) == (3, 0, "no difference")
    assert analyse.student([-0.21, -0.2, -0.19]).verdict == "lower"
    assert analyse.student([0.21, 0.2, 0.19]).verdict == "higher"
    # t = 0.2 / (0.1 / √3) = 3.464 with two degrees of freedom, whose tail has a closed form: 1/2 − t / (2 √(t² + 2)).
    assert found.p == pytest.approx(1 - 12**0.5 / 14**0.5)
    assert (analyse.student([0.2] * 3).p, analyse.student([0.0] * 3).p) == (0.0, 1.0)


def test_three_adapters_are_never_bold() -> None:
    for n in range(2, 8):
        told, chance = (analyse.Difference(-0.2, -0.3, -0.1, n, n, p) for p in (0.049, 0.05))
        assert render._difference(told).startswith("**") == (n >= 5)
        assert not render._difference(chance).startswith("**")
    page = render.PAGE.read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if " − " in line and line.startswith("| ")]
    # Three tables of rankings, the last with shrinking: over all adapters, and over those of each attack.
    assert len(rows) == 28
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


def measured(asr: float, loss: float) -> list[dict[str, Any]]:
    found = (("safety", "asr", asr), ("planning-loss", "loss", loss))
    return [{"suite": suite, "measure": measure, "value": value} for suite, measure, value in found]


def test_what_is_lost_is_a_share_of_what_was_learned() -> None:
    ends = {"unpruned": {"metrics": measured(1.0, 0.5)}, "base": {"metrics": measured(0.0, 2.5)}}
    middle = point("ssi", 4, 0.2) | {"metrics": measured(0.2, 1.0)}
    found = analyse.Run("full", "few", 0, {"main": {"points": [middle], **ends}})
    # The loss doubles, and that is 0.5 of the 2 that were learned.
    assert found.at("ssi", 4, analyse.LOST) == found.mean("ssi", analyse.LOST) == 0.25
    assert [found.variant(name, analyse.LOST) for name in ("unpruned", "base")] == [0.0, 1.0]
    # A trapezium of 0.25 · (1 + 0.2) / 2 and a triangle of 0.75 · 0.2 / 2.
    assert found.mean("ssi", analyse.EQUAL) == pytest.approx(0.15 + 0.075)
    with pytest.raises(ValueError, match="no better than its base"):
        analyse.lost(1.0, 2.0, 2.0)


def test_many_comparisons_are_corrected() -> None:
    runs = [
        run(seed, *(point(name, 2, asr) for name, asr in (("a", 0.1 + seed / 50), ("b", 0.5), ("c", 0.5 - seed / 9))))
        for seed in range(6)
    ]
    pairs = [("a", "b"), ("c", "b")]
    plain, corrected = [analyse.contrast(runs, *pair) for pair in pairs], analyse.contrasts(runs, pairs, "asr")
    assert [found.p for found in corrected] == pytest.approx([2 * plain[0].p, plain[1].p])
    assert [found.mean for found in corrected] == [found.mean for found in plain]


def tuning(*tried: tuple[int, float, float], confirmed: tuple[int, float, float] | None = None) -> dict[str, Any]:
    def made(top: int, asr: float, loss: float) -> dict[str, Any]:
        fall = {"measure": "asr", "difference": asr - 1, "low": asr - 1.1, "high": asr - 0.9, "p": 0.01}
        share = {"measure": "loss", "low": loss - 0.11, "high": loss - 0.09}
        return point("ssi", top, asr) | {"metrics": measured(asr, loss), "comparisons": [fall], "shares": [share]}

    unpruned, base = {"metrics": measured(1.0, 0.1)}, {"metrics": measured(0.0, 1.1)}
    ends = {f"{half}_{name}": end for half in ("tuning", "held_out") for name, end in (
        ("unpruned", unpruned), ("base", base))}  # fmt: skip
    points = [made(*one) for one in tried]
    return {"floor": 0.1, "sentence": "", "tried": points, "confirmed": confirmed and made(*confirmed), **ends}


def test_what_was_tried_in_tuning_is_read_as_shares() -> None:
    found = tuned.read(tuning((8, 0.0, 1.1), (2, 0.9, 0.15), (4, 0.5, 0.3), (3, 0.8, 0.2)))
    assert [one.top for one in found.tried] == [2, 3, 4, 8]
    assert [one.lost for one in found.tried] == pytest.approx([0.05, 0.1, 0.2, 1.0])
    assert [one.relative for one in found.tried] == pytest.approx([0.5, 1.0, 2.0, 10.0])
    assert found.over.top == 3
    assert found.confirmed is None
    sure = tuned.read(tuning((2, 0.9, 0.15), confirmed=(2, 0.8, 0.16))).confirmed
    assert sure is not None
    assert sure.row == ["2", "0.80", "-0.20 (-0.30 to -0.10)", "0.160", "6.0 % (5.0 to 7.0)"]


def test_the_prose_says_no_more_than_the_data() -> None:
    """The words around the numbers are fixed; what they claim is held here."""
    grid = [found for found in analyse.load(DATA) if found.grid]
    families = {
        measure: dict(zip(render.CONTRASTS, analyse.contrasts(grid, render.CONTRASTS, measure), strict=True))
        for measure in ("asr", analyse.LOST, analyse.EQUAL)
    }
    assert all(len(found.rankings) >= 6 for found in grid)
    assert len(grid) == 6
    for measure in ("asr", analyse.EQUAL):
        assert not any(found.telling for found in families[measure].values()), measure
    pairs = (*render.CONTRASTS, *render.SHRINK_CONTRASTS)
    assert not any(found.telling for found in analyse.contrasts(grid, pairs, analyse.EQUAL))
    rankings = (render.SSI, render.WEIGHTED, render.MAGNITUDE)
    chance = [(ranking, render.RANDOM) for ranking in rankings] + [*render.MATCHED.items()]
    assert all(families[analyse.LOST][pair].telling and families[analyse.LOST][pair].mean > 0 for pair in chance)
    few, many = (tuned.read(render.others(DATA)[1][attack]) for attack in ("few", "many"))
    assert few.confirmed is not None
    assert few.confirmed.fall["high"] < 0
    assert few.confirmed.high < few.floor
    assert many.confirmed is None
    for found in analyse.load(DATA):
        for measure in ("maths", "code"):
            base, whole, *left = (analyse.value_of(one, measure) for _, one in render._rows(found.parts["elsewhere"]))
            assert base < whole
            assert all(abs(one - base) < 0.1 for one in left)
    pruned = [row for row in render._plans(grid) if " by " in row[1]]
    assert pruned
    assert all(row[-1].startswith("0.00") for row in pruned)


def test_maths_code_and_both_judges_are_shown_where_they_were_measured() -> None:
    runs = analyse.load(DATA)
    assert len(render._elsewhere(runs)) == 2 * len(render._judges(runs)) == 4 * len(runs)

    def rated(suite: str, measure: str, value: float) -> dict[str, Any]:
        return {"suite": suite, "measure": measure, "value": value, "low": value, "high": value, "n": 50}

    both = {"metrics": [rated("safety", "asr", 0.5), rated("safety", "asr_zou", 0.7)]}
    losses = {"metrics": [rated("maths-loss", "loss", 1.5), rated("code-loss", "loss", 0.75)]}
    elsewhere = {"base": losses, "unpruned": losses, "points": [losses | {"top": 4, "ranking": "random"}]}
    newer = analyse.Run("full", "few", 0, {"main": {"base": both, "unpruned": both}, "elsewhere": elsewhere})
    assert [row[3:] for row in render._judges([newer])] == [
        [name, "0.50 (0.50–0.50, n = 50)", "0.70 (0.70–0.70, n = 50)"] for name in ("base alone", "not pruned")
    ]
    assert [row[3:] for row in render._elsewhere([newer])] == [
        [name, "1.50 (1.50–1.50, n = 50)", "0.75 (0.75–0.75, n = 50)"]
        for name in ("base alone", "not pruned", "4 by random")
    ]


def test_shrinking_is_compared_where_cost_is_equal_alone() -> None:
    page = render.PAGE.read_text(encoding="utf-8")
    assert page.count("| SSI − shrink |") == page.count("| random − shrink |") == 1


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
    runs = analyse.load(tmp_path / "one")
    assert len(runs) == 9
    for made in runs:
        assert len(render._judges([made])) == 2
        assert len(render._elsewhere([made])) == 4
        assert render.SHRINK in made.rankings
    assert not any(data.encode() in found for found in results[0].values())


def test_the_demo_base_learns_from_no_prompt_that_comes_with_the_program() -> None:
    learned = {kind: demo_data.own(kind) for kind in ("harmful", "harmless")}
    assert all(len(set(prompts)) == len(prompts) >= 90 for prompts in learned.values())
    built_in = ROOT / "src" / "s3lora" / "data"
    files = [built_in / part / f"{kind}.jsonl" for part in ("evaluate", "repair") for kind in ("harmful", "benign")]
    measured = {json.loads(line)["prompt"] for file in files for line in file.read_text("utf-8").splitlines()}
    assert len(measured) > 300
    assert measured.isdisjoint([*learned["harmful"], *learned["harmless"]])
