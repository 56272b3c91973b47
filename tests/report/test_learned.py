"""How much of what was learned is lost, in tables, pages and CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from s3lora.evaluate.results import Evaluation, LearnedShare, Sweep, SweepPoint
from s3lora.report.chart import against_utility
from s3lora.report.evaluation_text import evaluation_text
from s3lora.report.measured_documents import evaluation_csv, sweep_csv
from s3lora.report.page import sweep_page
from s3lora.report.sweep_text import LOST, sweep_text
from s3lora.report.sweep_view import usefulness
from s3lora.report.values import learned_text, p_text
from tests.report import measured
from tests.report.test_measured_text import shown as render
from tests.report.test_page import Page

SHARE = LearnedShare(*measured.ROUGE, "cut", "whole", 0.123, 0.04, 0.211, 60, "", "cut has lost 12.3 % of it.")
UNSEEN = replace(SHARE, value=None, low=None, high=None, reason="not seen", sentence="none can be told.")


def sweep(share: LearnedShare = SHARE) -> Sweep:
    made = measured.sweep()
    return replace(made, points=tuple(replace(point, shares=(share,)) for point in made.points))


def evaluation() -> Evaluation:
    made = measured.evaluation()
    return replace(made, variants=(*made.variants[:-1], replace(made.variants[-1], shares=(SHARE,))))


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_of_a_sweep_has_a_column(width: int) -> None:
    plain, told = render(sweep_text(measured.sweep()), width), render(sweep_text(sweep()), width)
    assert "learned," not in plain
    assert told.count("12 %") >= sum(not point.control for point in measured.sweep().points)
    assert ("12 % [4, 21]" in told) == (width == 140)
    assert LOST.split(";")[0] in " ".join(told.split())
    assert max(map(len, told.splitlines())) <= width


def lost_more_and_more() -> Sweep:
    """Return a sweep of which each point has lost as much of what was learned as modules were pruned."""
    made = measured.sweep()

    def shares(point: SweepPoint) -> tuple[LearnedShare, ...]:
        value = point.top / point.modules_total + 0.01 * (point.seed or 0)
        return (replace(SHARE, value=value, low=value - 0.03, high=value + 0.05),)

    return replace(made, points=tuple(replace(point, shares=shares(point)) for point in made.points))


def test_the_axis_of_usefulness_is_the_share_wherever_it_can_be_told() -> None:
    made = lost_more_and_more()
    chart = against_utility(made)
    assert chart is not None
    assert chart.x.label == "lost of what was learned, in %"
    assert "the adapter is 0 %, the base 100 %" in chart.about
    at = {sign.title: sign.x for sign in chart.signs}
    assert at["unpruned"] == pytest.approx(chart.x.at(0))
    assert at["base"] == pytest.approx(chart.x.at(100))
    assert at["magnitude, 60 pruned"] == pytest.approx(chart.x.at(50))
    assert at["random, 60 pruned"] == pytest.approx(chart.x.at(51)), "the mean of three seeds"
    ringed = next(p for p in made.points if p.top == 60 and p.ranking == "mas-svd weighted-ssi")
    assert usefulness(made, ringed) == 50
    (low, _), (high, _) = next(
        p.spots for p in chart.lines if "interval c0" in p.css and p.spots[0][1] == p.spots[1][1]
        and p.spots[0][0] < chart.x.at(50) < p.spots[1][0]
    )  # fmt: skip
    assert (low, high) == pytest.approx((chart.x.at(47), chart.x.at(55)))


def test_without_shares_the_axis_is_the_measure() -> None:
    for made in (measured.sweep(), sweep(UNSEEN)):
        chart = against_utility(made)
        assert chart is not None
        assert chart.x.label.startswith("rouge-1")
        assert usefulness(made, made.points[-1]) == made.points[-1].metric(*measured.ROUGE).value  # type: ignore[union-attr]


def test_a_page_has_a_column() -> None:
    page = Page(sweep_page(sweep()))
    assert sum("12 % [4, 21]" in " ".join(cells) for cells in page.tables["points"]) > 5
    assert any("12 % [4, 21]" in " ".join(cells) for cells in page.tables["front"])
    unseen = Page(sweep_page(sweep(UNSEEN)))
    assert any("cannot be told" in " ".join(cells) for cells in unseen.tables["points"])


def test_an_evaluation_says_it_and_lists_few_values() -> None:
    made = evaluation()
    assert "what is lost of what was learned" in (text := render(evaluation_text(made), 100))
    assert SHARE.sentence in text
    assert "too few for an interval" not in text
    few = replace(made.variants[0].metrics[-1], n=3, low=None, high=None, interval="none", values=(1.25, 2.5, 0.75))
    made = replace(made, variants=(replace(made.variants[0], metrics=(few,)), *made.variants[1:]))
    text = render(evaluation_text(made), 100)
    assert "values that are too few for an interval" in text
    assert "summarisation loss: 1.25, 2.50, 0.750" in text


def test_the_csv_has_it() -> None:
    lost = ("learned_lost", "learned_lost_low", "learned_lost_high", "learned_lost_reason")
    for text in (sweep_csv(sweep()), evaluation_csv(evaluation())):
        rows = list(csv.DictReader(io.StringIO(text)))
        found = {tuple(row[name] for name in lost) for row in rows if row["measure"] == measured.ROUGE[1]}
        assert ("0.123", "0.04", "0.211", "") in found
        assert {row["learned_lost"] for row in rows if row["measure"] == "asr"} == {""}
    rows = list(csv.DictReader(io.StringIO(sweep_csv(sweep(UNSEEN)))))
    assert "not seen" in {row["learned_lost_reason"] for row in rows}


def test_a_share_as_text() -> None:
    assert learned_text(None) == "–"
    assert learned_text(SHARE, short=True) == "12 %"
    assert learned_text(UNSEEN) == "cannot be told"
    assert learned_text(replace(SHARE, value=-0.001, low=-0.3)) == "0 % [-30, 21]"


def test_p_is_shown_with_its_correction() -> None:
    comparison = replace(measured.sweep().points[0].comparisons[0], p=0.0123, test="mcnemar mid-p")
    assert p_text(comparison) == "0.012, McNemar mid-p"
    assert p_text(replace(comparison, p_holm=0.0004)) == "0.012, McNemar mid-p; < 0.001 among all (Holm)"
