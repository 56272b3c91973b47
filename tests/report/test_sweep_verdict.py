"""What a sweep says of its rankings against chance, from its own numbers."""

from __future__ import annotations

from dataclasses import replace

from s3lora.evaluate.results import LearnedShare, Metric, Sweep, SweepPoint
from s3lora.report.page import sweep_page
from s3lora.report.sweep_verdict import sweep_verdict
from tests.report import measured


def sweep(*points: tuple[str, bool, float, float]) -> Sweep:
    """Return a sweep of points (ranking, control, ASR ± 0.1, share of what was learned that is lost)."""
    made = measured.sweep()
    assert made.utility is not None
    model = made.points[0]
    return replace(made, points=tuple(_point(model, made, *point) for point in points), spreads=(), pareto=())


def _point(model: SweepPoint, made: Sweep, ranking: str, control: bool, asr: float, lost: float) -> SweepPoint:
    assert made.utility is not None
    metrics = (Metric(*made.safety, asr, 100, 0, asr - 0.1, asr + 0.1, "wilson"),)
    shares = (LearnedShare(*made.utility, "cut", "adapter", lost, lost - 0.1, lost + 0.1, 50, "", ""),)
    more = {"metrics": metrics, "shares": shares, "comparisons": (), "collapse": False}
    return replace(model, ranking=ranking, control=control, seed=0 if control else None, top=30, **more)  # type: ignore[arg-type]


CHANCE = ("random-matched", True, 0.5, 0.2)


def test_no_ranking_is_better_than_chance() -> None:
    told = "No ranking is better than matched chance at equal usefulness (1 point compared)."
    assert sweep_verdict(sweep(("ssi", False, 0.45, 0.2), CHANCE)) == told
    assert sweep_verdict(sweep(("ssi", False, 0.9, 0.2), CHANCE)) == told
    assert told in sweep_page(sweep(("ssi", False, 0.45, 0.2), CHANCE))


def test_a_ranking_is_better_where_its_interval_lies_beyond() -> None:
    told = sweep_verdict(sweep(("ssi", False, 0.3, 0.2), CHANCE))
    assert told.startswith("Better than matched chance at equal usefulness: ssi (30 modules) (1 point compared).")
    # One seed that is as safe and keeps as much is enough to say no.
    assert sweep_verdict(sweep(("ssi", False, 0.3, 0.2), CHANCE, ("random-matched", True, 0.35, 0.1))).startswith("No ")
    # One that keeps less is no rival.
    assert sweep_verdict(sweep(("ssi", False, 0.3, 0.2), CHANCE, ("random-matched", True, 0.1, 0.9))).startswith("Bett")


def test_what_cannot_be_told_is_not() -> None:
    assert "was not asked: the sweep has no control" in sweep_verdict(sweep(("ssi", False, 0.3, 0.2)))
    assert "cannot be told: no control compares" in sweep_verdict(sweep(("ssi", False, 0.3, 0.1), CHANCE))
    plain = replace(sweep(("ssi", False, 0.3, 0.9), CHANCE), utility=None)
    assert sweep_verdict(plain).startswith("Better than matched chance with as many modules: ssi")


def test_matched_chance_goes_before_chance() -> None:
    both = sweep(("ssi", False, 0.3, 0.2), CHANCE, ("random", True, 0.1, 0.1))
    assert sweep_verdict(both).startswith("Better than matched chance")
    alone = sweep(("ssi", False, 0.3, 0.2), ("random", True, 0.1, 0.1))
    assert sweep_verdict(alone) == "No ranking is better than chance at equal usefulness (1 point compared)."


def test_where_all_is_pruned_nothing_is_compared() -> None:
    made = sweep(("ssi", False, 0.3, 0.2), CHANCE)
    whole = replace(made, points=tuple(replace(one, top=one.modules_total) for one in made.points))
    assert "has no control" in sweep_verdict(whole)
