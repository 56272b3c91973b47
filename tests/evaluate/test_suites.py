from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.errors import S3LoRAError, UsageError
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.judges.judge import Judge
from s3lora.evaluate.likelihood import LossSuite
from s3lora.evaluate.maths.suite import MathsSuite
from s3lora.evaluate.planning.suite import DECODING as PLANNING
from s3lora.evaluate.planning.suite import PlanningSuite
from s3lora.evaluate.safety import DECODING as SAFETY
from s3lora.evaluate.safety import SafetySuite
from s3lora.evaluate.suite import Suite
from s3lora.evaluate.suites import SUITES, TASKS, SuiteSettings, build_suites, split_suites
from s3lora.evaluate.summarisation import DECODING as SUMMARISATION
from s3lora.evaluate.summarisation import SummarisationSuite
from tests.evaluate.test_judge import RuleModel

pytest.importorskip("rouge_score")
pytest.importorskip("nltk")

#: Those that need no file.
BUILT_IN = tuple(name for name in SUITES if name != "code-loss")
Build = Callable[..., list[Suite]]


def items(suite: Suite) -> list[list[str]]:
    """Return each set of a suite, item by item."""
    if isinstance(suite, SafetySuite):
        return [[r.text for r in data.requests] for data in (suite.harmful, suite.benign)]
    if isinstance(suite, SummarisationSuite):
        return [[example.prompt.digest for example in suite.data.examples]]
    if isinstance(suite, MathsSuite):
        return [[problem.prompt.messages[-1].content for problem in suite.data.problems]]
    if isinstance(suite, LossSuite):
        return [[prompt.messages[-1].content for prompt, _ in suite.pairs]]
    assert isinstance(suite, PlanningSuite)
    return [[task.prompt.messages[-1].content for task in suite.tasks.tasks]]


def all_items(suites: Sequence[Suite]) -> list[list[str]]:
    return [found for suite in suites for found in items(suite)]


def write_prompts(path: Path, texts: Sequence[str]) -> str:
    path.write_text("\n".join(json.dumps({"prompt": text}) for text in texts))
    return str(path)


def test_the_suites_by_name() -> None:
    kinds = [SafetySuite, PlanningSuite, SummarisationSuite, LossSuite, MathsSuite, LossSuite]
    found = build_suites(SuiteSettings(names=BUILT_IN))
    assert [type(suite) for suite in found] == kinds
    assert [suite.info.name for suite in found] == list(BUILT_IN)
    assert [suite.info.name for suite in build_suites(SuiteSettings())] == ["safety", "planning", "summarisation"]
    again = build_suites(SuiteSettings(names=("planning-loss", "safety", "planning-loss")))
    assert [suite.info.name for suite in again] == ["planning-loss", "safety"]


def test_all_that_is_built_in() -> None:
    sizes = [len(found) for found in all_items(build_suites(SuiteSettings(names=BUILT_IN)))]
    assert sizes == [48, 48, TASKS, 24, TASKS, TASKS, TASKS]
    # The two planning suites have the same tasks.
    found = all_items(build_suites(SuiteSettings(names=BUILT_IN, limit=7)))
    assert [len(one) for one in found] == [7] * 7
    assert found[2] == found[4]
    assert found[5] == found[6]
    assert len(all_items(build_suites(SuiteSettings(names=("planning",), limit=80)))[0]) == 80


def test_a_limit_draws_by_the_seed_and_grows() -> None:
    def drawn(limit: int, seed: int) -> list[list[str]]:
        return all_items(build_suites(SuiteSettings(names=BUILT_IN, limit=limit, seed=seed)))

    assert drawn(6, 0) == drawn(6, 0)
    for few, more, other in zip(drawn(6, 0), drawn(12, 0), drawn(6, 1), strict=True):
        assert set(few) < set(more)
        assert few != other


@settings(max_examples=8)
@given(st.integers(0, 99), st.none() | st.integers(1, 60))
def test_halves_share_no_item(seed: int, limit: int | None) -> None:
    given_settings = SuiteSettings(names=BUILT_IN, seed=seed, limit=limit)
    one, two = split_suites(given_settings)
    assert [s.info.name for s in one] == [s.info.name for s in two] == list(BUILT_IN)
    many = max(TASKS, limit or 0)
    wanted = [24, 24, many, 12, many, many, many]
    for a, b, half in zip(all_items(one), all_items(two), wanted, strict=True):
        assert not set(a) & set(b)
        assert len(set(a)) == len(a) == len(b) == min(half, limit or half)
    assert all_items(split_suites(given_settings)[0]) == all_items(one)


def test_halves_are_all_and_their_draw_is_by_the_seed() -> None:
    one, two = split_suites(SuiteSettings(names=("safety", "summarisation")))
    everything = all_items(build_suites(SuiteSettings(names=("safety", "summarisation"))))
    for a, b, whole in zip(all_items(one), all_items(two), everything, strict=True):
        assert sorted(a + b) == sorted(whole)
        # Not the first half and the second.
        assert a != whole[: len(a)]
        assert a != whole[::2]
    other, _ = split_suites(SuiteSettings(names=("safety", "summarisation"), seed=1))
    assert all(a != c for a, c in zip(all_items(one), all_items(other), strict=True))
    few, _ = split_suites(SuiteSettings(names=("safety", "summarisation"), limit=5))
    assert all(set(c) < set(a) for a, c in zip(all_items(one), all_items(few), strict=True))


def test_an_odd_set_and_one_with_repetitions(tmp_path: Path) -> None:
    # The repeated prompt, in both halves, would have been tuned on and held out.
    path = write_prompts(tmp_path / "p.jsonl", ["a", "b", "a", "c", "a", "d", "e", "a"])
    one, two = split_suites(SuiteSettings(names=("safety",), harmful=path))
    a, b = all_items(one)[0], all_items(two)[0]
    assert (len(a), len(b)) == (3, 2)
    assert sorted(a + b) == ["a", "b", "c", "d", "e"]
    assert all_items(build_suites(SuiteSettings(names=("safety",), harmful=path)))[0].count("a") == 4


@pytest.mark.parametrize("texts", [["only"], ["same", "same"]])
def test_what_cannot_be_halved(tmp_path: Path, texts: list[str]) -> None:
    path = write_prompts(tmp_path / "p.jsonl", texts)
    with pytest.raises(UsageError, match="one item cannot be cut into two parts"):
        split_suites(SuiteSettings(names=("safety",), benign=path))


@pytest.mark.parametrize("build", [build_suites, split_suites])
@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_that_leaves_nothing(build: Build, limit: int) -> None:
    with pytest.raises(UsageError, match="leaves nothing"):
        build(SuiteSettings(limit=limit))


def test_tokens_by_suite() -> None:
    def limits(**tokens: int) -> list[int]:
        made = build_suites(SuiteSettings(tokens=tokens))
        return [s.decoding.max_new_tokens for s in made if not isinstance(s, LossSuite)]  # type: ignore[attr-defined]

    usual = [SAFETY.max_new_tokens, PLANNING.max_new_tokens, SUMMARISATION.max_new_tokens]
    assert limits() == usual
    assert limits(safety=5) == [5, *usual[1:]]
    assert limits(planning=6, summarisation=7) == [usual[0], 6, 7]
    (safety,) = build_suites(SuiteSettings(names=("safety",), tokens={"safety": 5}))
    assert isinstance(safety, SafetySuite)
    assert (safety.decoding.temperature, safety.decoding.seed) == (SAFETY.temperature, SAFETY.seed)


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        ({"names": ("safety", "speed")}, "no suite speed"),
        ({"names": ("Safety",)}, "no suite Safety"),
        ({"names": ("a\x1b[2J",)}, "no suite a\ufffd"),
        ({"names": ()}, "no suite to run"),
        ({"tokens": {"speed": 3}}, "no suite speed"),
    ],
)
def test_bad_names(keywords: dict[str, object], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        SuiteSettings(**keywords)  # type: ignore[arg-type]
    assert problem in str(caught.value)
    assert "choose from safety, planning, summarisation, planning-loss" in str(caught.value)


def test_data_of_ones_own(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", ["one", "two"])
    (tmp_path / "t.jsonl").write_text(json.dumps({"question": "How far?", "answer": "far", "plan": "Plan: x"}))
    (tmp_path / "e.jsonl").write_text(json.dumps({"prompt": "Sum up: x", "reference": "y"}))
    judge = Judge(RuleModel(str, "judge"), "rule")
    safety, planning, summaries = build_suites(
        SuiteSettings(
            harmful=prompts,
            benign=prompts,
            tasks=str(tmp_path / "t.jsonl"),
            references=str(tmp_path / "e.jsonl"),
            judge=judge,
            keep=True,
        )
    )
    assert isinstance(safety, SafetySuite)
    assert items(safety) == [["one", "two"], ["one", "two"]]
    assert (safety.judge, safety.keep) == (judge, True)
    assert items(planning) == [["How far?"]]
    assert [len(one) for one in items(summaries)] == [1]


@pytest.mark.parametrize("name", ["harmful", "benign", "refusals"])
def test_safety_reads_the_file_that_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(S3LoRAError, match="absent"):
        build_suites(SuiteSettings(names=("safety",), **{name: str(tmp_path / "absent.json")}))  # type: ignore[arg-type]


def test_refusals_are_told_by_the_rules_the_list_or_a_file(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"name": "own", "version": "1", "prefixes": ["Nein"]}))
    named = {None: "openings", "openings": "openings", "zou": "zou-2023", str(own): "own"}
    for judge, name in named.items():
        (safety,) = build_suites(SuiteSettings(names=("safety",), refusals=judge))
        assert isinstance(safety, SafetySuite)
        assert safety.refusals.name == name


def test_documents_belong_to_tasks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="documents do nothing without tasks"):
        build_suites(SuiteSettings(documents=str(tmp_path)))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "far.txt").write_text("Far is 3 km.")
    (tmp_path / "t.jsonl").write_text(json.dumps({"question": "How far?", "answer": "3"}))
    (planning,) = build_suites(
        SuiteSettings(names=("planning",), tasks=str(tmp_path / "t.jsonl"), documents=str(tmp_path / "docs"))
    )
    assert isinstance(planning, PlanningSuite)
    assert [document.text for document in planning.tasks.documents] == ["Far is 3 km."]


def test_worked_answers_and_solutions_of_files(tmp_path: Path) -> None:
    gsm = [{"question": f"What is {n} + {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"} for n in range(6)]
    (tmp_path / "gsm8k.jsonl").write_text("\n".join(map(json.dumps, gsm)))
    code = [
        {"task_id": f"T/{n}", "prompt": f"def f{n}():\n", "canonical_solution": f"    return {n}\n"} for n in range(4)
    ]
    (tmp_path / "code.jsonl").write_text("\n".join(map(json.dumps, code)))
    given = {"maths": str(tmp_path / "gsm8k.jsonl"), "code": str(tmp_path / "code.jsonl")}
    names = ("maths", "maths-loss", "code-loss")
    maths, losses, solutions = build_suites(SuiteSettings(names=names, **given))  # type: ignore[arg-type]
    assert isinstance(maths, MathsSuite)
    assert [problem.answer for problem in maths.data.problems] == [0, 2, 4, 6, 8, 10]
    assert isinstance(losses, LossSuite)
    assert [text for _, text in losses.pairs] == [row["answer"] for row in gsm]
    assert isinstance(solutions, LossSuite)
    assert [text for _, text in solutions.pairs] == [row["canonical_solution"] for row in code]
    assert all(
        row["prompt"].strip() in prompt.messages[-1].content
        for row, (prompt, _) in zip(code, solutions.pairs, strict=True)
    )
    one, two = split_suites(SuiteSettings(names=names, **given))  # type: ignore[arg-type]
    for a, b, whole in zip(all_items(one), all_items(two), (gsm, gsm, code), strict=True):
        assert len(set(a) | set(b)) == len(a) + len(b) == len(whole)


def test_suites_that_need_other_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="code-loss has no tasks of its own"):
        build_suites(SuiteSettings(names=("code-loss",)))
    (tmp_path / "q.jsonl").write_text('{"question": "Who?", "answer": "Ada"}')
    with pytest.raises(DataFileError, match="an answer without a number"):
        build_suites(SuiteSettings(names=("maths",), maths=str(tmp_path / "q.jsonl")))
