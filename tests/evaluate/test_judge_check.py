"""Judges beside people's labels, and rates corrected by them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s3lora.errors import UsageError
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.judges.checking import check_judge, correct
from s3lora.evaluate.judges.correction import rogan_gladen
from s3lora.evaluate.judges.judge import Judge
from s3lora.evaluate.judges.labelled import LabelNames, read_labelled
from s3lora.evaluate.judges.openings import OpeningsJudge
from s3lora.evaluate.judges.profiles import PROFILES
from s3lora.evaluate.refusals import built_in_refusals
from s3lora.evaluate.results import Evaluation, Metric, Setup, SuiteInfo, Variant
from s3lora.report.documents import to_json
from s3lora.statistics import wilson
from tests.command import call
from tests.evaluate.test_judge import RuleModel

ROWS = [
    {"model": "a", "prompt": "p", "answer": "I can't help with that.", "label": "refusal"},
    {"model": "a", "prompt": "p", "answer": "No way, José.", "label": "2_full_refusal"},
    {"model": "a", "prompt": "p", "answer": "Sure! First, boil water.", "label": "1_full_compliance"},
    {"model": "a", "prompt": "p", "answer": "I can't help with that, but here is why.", "label": "partial"},
    {"model": "b", "prompt": "p", "answer": "Of course.", "label": "Compliance"},
]


def written(folder: Path, rows: list[dict[str, str]] | None = None) -> Path:
    path = folder / "labelled.jsonl"
    path.write_text(
        "\n".join(json.dumps(row) for row in ROWS if rows is None) or "\n".join(map(json.dumps, rows or []))
    )
    return path


def test_a_judge_beside_people(tmp_path: Path) -> None:
    check = check_judge(built_in_refusals(), read_labelled(written(tmp_path)))
    a, b = check.models
    # Zou's list does not know "I can't help with that."
    assert (a.counts.model, a.counts.tp, a.counts.fn, a.counts.fp, a.counts.tn) == ("a", 0, 2, 0, 1)
    assert (a.sensitivity, a.specificity) == (wilson(0, 2), wilson(1, 1))
    assert (b.counts.refusals, b.counts.answers, b.sensitivity) == (0, 1, None)
    ours = check_judge(OpeningsJudge(), read_labelled(written(tmp_path))).models[0].counts
    assert ours.tp >= 1
    assert ours.partial_refused + ours.partial_not == 1


def test_a_judge_model_calls_attacks(tmp_path: Path) -> None:
    def rule(question: str) -> str:
        return "yes" if "boil" in question else "no" if "José" in question else "maybe"

    judge = Judge(RuleModel(rule), "rules", PROFILES["harmbench-cls"])
    check = check_judge(judge, read_labelled(written(tmp_path)))
    a = check.models[0]
    assert check.measure == "asr_judge"
    assert (a.counts.tp, a.counts.fn, a.counts.tn, a.counts.fp, a.unread) == (1, 0, 1, 0, 2)
    assert any("2 verdicts could not be read" in warning for warning in check.warnings)
    without = [{key: value for key, value in row.items() if key != "prompt"} for row in ROWS]
    with pytest.raises(UsageError, match="needs the prompt of every answer"):
        check_judge(judge, read_labelled(written(tmp_path, without)))


def evaluation(judge: str, **rates: tuple[int, int]) -> Evaluation:
    return Evaluation(
        setup=Setup("m", "0", "b", "cpu", "float32", 0, None),
        suites=(SuiteInfo("safety", (), (), judge),),
        variants=tuple(
            Variant(name=name, kind="adapter", metrics=(Metric("safety", "asr", k / n, n, 0, 0.0, 1.0, "wilson"),))
            for name, (k, n) in rates.items()
        ),
        comparisons=(),
    )


def labelled(folder: Path, model: str = "mine") -> Any:
    rows = [{"model": model, "answer": "I can't help with that.", "label": "refusal"}] * 18
    rows += [{"model": model, "answer": "Never ask such things of me again, friend.", "label": "refusal"}] * 2
    rows += [{"model": model, "answer": "Sure, first do this.", "label": "answer"}] * 20
    return read_labelled(written(folder, rows))


def test_a_rate_is_corrected_by_labels_of_the_same_model(tmp_path: Path) -> None:
    judge = OpeningsJudge()
    check = check_judge(judge, labelled(tmp_path))
    counts = check.models[0].counts
    found = correct(check, evaluation(f"refusals by {judge}; beside it", mine=(30, 100), other=(50, 100)))
    [one] = found.corrected
    expected = rogan_gladen(30, 100, counts)
    assert expected is not None
    assert (one.variant, one.n, one.measured) == ("mine", 100, 0.3)
    assert (one.value, one.low, one.high) == tuple(expected)
    assert "corrected" in one.sentence
    [named] = correct(check, evaluation(str(judge), other=(50, 100)), "other").corrected
    assert named.variant == "other"


def test_a_rate_that_cannot_be_corrected(tmp_path: Path) -> None:
    judge = OpeningsJudge()
    check = check_judge(judge, labelled(tmp_path))
    with pytest.raises(UsageError, match="was judged otherwise"):
        correct(check, evaluation("refusals by zou", mine=(1, 2)))
    with pytest.raises(UsageError, match="no labelled answer is of a variant"):
        correct(check, evaluation(str(judge), other=(1, 2)))
    with pytest.raises(UsageError, match="no suite safety"):
        correct(check, replace(evaluation(str(judge), mine=(1, 2)), suites=()))
    blind = replace(
        check, models=tuple(replace(m, counts=replace(m.counts, tp=0, fn=20, fp=0, tn=20)) for m in check.models)
    )
    [one] = correct(blind, evaluation(str(judge), mine=(1, 2))).corrected
    assert one.value is None
    assert "no more than chance" in one.sentence


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"answer": "x", "label": "maybe"}, "has the label maybe, which is not known"),
        ({"answer": "x"}, "no column that holds the label; it has answer"),
        ({"text": "x", "label": "refusal"}, "no column that holds the answer; it has text, label"),
        ({"answer": 3, "label": "refusal"}, "an answer that is no text"),
    ],
)
def test_rows_that_cannot_be_read(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataFileError, match=problem):
        read_labelled(written(tmp_path, [row]))


def test_labels_and_columns_of_other_names(tmp_path: Path) -> None:
    rows = [{"said": "No.", "verdict": "1"}, {"said": "Yes.", "verdict": "0"}]
    names = LabelNames(answer="said", label="Verdict", values={"1": "refusal", "0": "answer"})
    assert [one.label for one in read_labelled(written(tmp_path, rows), names).answers] == ["refusal", "answer"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, judge = written(tmp_path), OpeningsJudge()
    shown = call(capsys, "judge-check", path)
    assert shown.status == 0
    assert "1.000" in shown.out
    (tmp_path / "evaluation.json").write_text(to_json(evaluation(str(judge), a=(4, 10))))
    told = call(capsys, "judge-check", path, "--evaluation", tmp_path / "evaluation.json", "--format", "json")
    assert told.status == 0, told.err
    document = json.loads(told.out)
    assert [one["variant"] for one in document["corrected"]] == ["a"]
    assert str(tmp_path) not in told.out
    for wrong in (
        ("judge-check", tmp_path / "none.csv"),
        ("judge-check", path, "--variant", "a"),
        ("judge-check", path, "--refused", "1", "--answered", "1"),
        ("judge-check", path, "--evaluation", path),
    ):
        failed = call(capsys, *wrong)
        assert failed.status == 2
        assert failed.err.count("\n") <= 3
        assert "Traceback" not in failed.err
