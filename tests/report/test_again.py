"""The page of a result, made again from its JSON: the same as before, from older documents too."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from s3lora.errors import AdapterFileError, UsageError
from s3lora.measure.comparison import compare
from s3lora.measure.series import as_comparison
from s3lora.report.again import page_of
from s3lora.report.compare_page import compare_page
from s3lora.report.documents import to_json
from s3lora.report.page import evaluation_page, sweep_page, tuning_page
from s3lora.report.population_page import population_page
from s3lora.report.repair_page import repair_page
from tests.command import call
from tests.planning import prune_to
from tests.report import made_population, measured, repaired
from tests.report.made_series import small_series
from tests.report.scanned import DEMO, mixed, reported

OLD = Path(__file__).parents[1] / "data" / "documents" / "1"


def again(folder: Path, document: object) -> str:
    (folder / "result.json").write_text(to_json(document), encoding="utf-8")
    return page_of(folder / "result.json")


@pytest.mark.parametrize(
    ("document", "page"),
    [
        (measured.sweep(), sweep_page),
        (measured.evaluation(), evaluation_page),
        (measured.tuning(), tuning_page),
        (repaired.repair(), repair_page),
        (made_population.population(), population_page),
    ],
)
def test_the_page_is_the_same(tmp_path: Path, document: object, page: object) -> None:
    assert again(tmp_path, document) == page(document)  # type: ignore[operator]


def test_a_comparison_has_its_page(tmp_path: Path) -> None:
    made = compare([mixed(tmp_path / "a"), DEMO])
    assert again(tmp_path, made) == compare_page(made)


def test_a_series_of_a_training_has_its_page(tmp_path: Path) -> None:
    series = small_series()
    assert again(tmp_path, series) == compare_page(as_comparison(series))
    with pytest.raises(AdapterFileError, match=r"result\.json: is no series of a training: its steps do not grow"):
        again(tmp_path, dataclasses.replace(series, steps=(20, 10, 30)))


def test_a_scan_has_its_page(tmp_path: Path) -> None:
    one = reported(DEMO)
    text = again(tmp_path, one.document)
    assert "What a rule would choose" in text
    assert text.count('<tr><th scope="row"><span>') == 120
    (tmp_path / "result.json").write_text(f"[{to_json(one.document)}, {to_json(one.document)}]", encoding="utf-8")
    assert page_of(tmp_path / "result.json").count("<article ") == 2


def test_a_scan_with_a_filter_keeps_what_was_selected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (("--projection", "q_proj"), ("--rank", "2"), ()):
        (tmp_path / "result.json").write_text(call(capsys, "scan", DEMO, *options, "--format", "json").out)
        data = re.search(
            r'<script type="application/json">(.*?)</script>', page_of(tmp_path / "result.json"), re.DOTALL
        )
        assert data is not None
        content = json.loads(data[1])
        assert (content["start"]["rule"], content["command"]["path"] == "") == (
            ("given", True) if options else ("top", False)
        )


def test_a_pruning_has_its_page(tmp_path: Path) -> None:
    prune_to(mixed(tmp_path / "a"), tmp_path / "out", ["model.layers.1.self_attn.q_proj"])
    text = page_of(tmp_path / "out" / "s3lora.json")
    assert "What was done" in text
    assert "model.layers.1.self_attn.q_proj" in text.replace("<wbr>", "")
    assert str(tmp_path) not in text


def test_documents_of_old_have_pages() -> None:
    kinds: dict[str, str] = {}
    for file in sorted(OLD.glob("*.json")):
        with contextlib.suppress(UsageError):
            kinds[file.stem] = page_of(file)
    assert {"scan", "compare", "eval", "sweep", "tune", "repair", "population", "series"} == set(kinds)
    assert all(text.startswith("<!doctype html>") for text in kinds.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "is no result that has a page"),
        ("[]", "is no result that has a page"),
        ("[1]", "is no result of s3lora"),
        ("nonsense", "is no result of s3lora"),
        ('"' + "\\u0000" * 9, "is no result of s3lora"),
        ("[" * 5000, "is no result of s3lora"),
        ('{"variants": 1, "setup": 2}', "is no result of s3lora"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        page_of(tmp_path / "result.json")


def emptied(kind: str, *names: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((OLD / f"{kind}.json").read_text(encoding="utf-8"))
    return content | {name: [] for name in names}


def with_rule(rule: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(to_json(reported(DEMO).document))
    content["plan"]["rule"] = rule
    return content


def flattened(counts: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(to_json(made_population.population()))
    for one in content["distributions"]:
        one["all"]["counts"] = [counts] * len(one["all"]["counts"])
    return content


@pytest.mark.parametrize(
    "content",
    [
        emptied("scan", "modules"),
        emptied("compare", "modules"),
        emptied("compare", "steps"),
        emptied("compare", "sources"),
        with_rule("threshold abc"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"holds parts that do not belong together .*; make it again$"):
        page_of(tmp_path / "result.json")


def test_an_evaluation_that_does_not_agree_with_itself_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = json.loads(call(capsys, "scan", DEMO, "--format", "json").out)["source"]
    content = json.loads(to_json(measured.sweep())) | {"adapter": source}
    numbers = [1e308, -1e308]
    for i, point in enumerate(content["points"]):
        for metric in point["metrics"]:
            metric["value"] = numbers[i % 2]
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    result = call(capsys, "scan", DEMO, "--evaluation", tmp_path / "sweep.json", "--format", "html")
    assert (result.status, result.out) == (2, "")
    assert "holds parts that do not belong together" in result.err


@pytest.mark.parametrize("counts", [0, -1])
def test_a_population_of_nothing_is_a_page_or_refused(tmp_path: Path, counts: int) -> None:
    (tmp_path / "result.json").write_text(json.dumps(flattened(counts)))
    try:
        made = page_of(tmp_path / "result.json")
    except UsageError as error:
        made = str(error)
    assert made.startswith("<!doctype html>") or "do not belong together" in made


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    content = json.loads(to_json(measured.sweep())) | {"schema_version": 99}
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="is of schema version 99"):
        page_of(tmp_path / "result.json")


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "result.json").write_text(to_json(measured.sweep()), encoding="utf-8")
    done = call(capsys, "report", tmp_path / "result.json", "-o", tmp_path / "page.html")
    assert (done.status, done.out) == (0, "")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == sweep_page(measured.sweep())
    assert call(capsys, "report", tmp_path / "absent.json").status == 2
