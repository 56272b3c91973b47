"""Prompts of a task, told by their shape: with plans, with answers, in chats, or alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s3lora.errors import S3LoRAError
from s3lora.evaluate.chat import Message, Prompt
from s3lora.evaluate.data.choice import EVERY_ROW, choices
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.planning.tasks import SYSTEM_PROMPT
from s3lora.repair.build_data import repair_data
from s3lora.repair.data import TaskPrompts
from s3lora.repair.task_data import read_task
from tests.support import shared

PLAN = "Plan: Find it. #E1 = Lookup[area of Ada]"
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello?"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "And now?"},
]
ASKED = Prompt(
    (
        Message("system", "Be brief."),
        Message("user", "Hello?"),
        Message("assistant", "Hi."),
        Message("user", "And now?"),
    )
)


def read(folder: Path, *rows: object, **options: list[str]) -> TaskPrompts:
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = choices(options.get("where", []), options.get("field", []), ["task"], ["task"])
    return read_task(path, found.get("task", EVERY_ROW))


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        pytest.param({"prompt": "Do it.", "reference": "Done."}, Prompt.ask("Do it."), "Done.", id="reference"),
        pytest.param({"prompt": "Do it.", "references": ["Done.", "So."]}, Prompt.ask("Do it."), "Done.", id="two"),
        pytest.param({"prompt": "Do it.", "completion": "Done."}, Prompt.ask("Do it."), "Done.", id="completion"),
        pytest.param({"prompt": "Do it.", "response": "Done."}, Prompt.ask("Do it."), "Done.", id="response"),
        pytest.param(
            {"prompt": CHAT, "completion": [{"role": "assistant", "content": "Bye."}]}, ASKED, "Bye.", id="trl chat"
        ),
        pytest.param({"messages": [*CHAT, {"role": "assistant", "content": "Bye."}]}, ASKED, "Bye.", id="chat"),
        pytest.param(
            {"conversations": [{"from": "human", "value": "Do it."}, {"from": "gpt", "value": "Done."}]},
            Prompt.ask("Do it."),
            "Done.",
            id="sharegpt",
        ),
        pytest.param({"messages": CHAT}, ASKED, None, id="chat without an answer"),
        pytest.param(
            {"instruction": "Add.", "input": "1, 1", "output": "2"}, Prompt.ask("Add.\n\n1, 1"), "2", id="alpaca"
        ),
        pytest.param({"instruction": "Go.", "input": "", "output": "Gone."}, Prompt.ask("Go."), "Gone.", id="no input"),
        pytest.param({"question": "1 + 1?", "answer": "2"}, Prompt.ask("1 + 1?"), "2", id="question"),
        pytest.param(
            {"question": "1 + 1?", "answer": "It is 2.\n#### 2"}, Prompt.ask("1 + 1?"), "It is 2.\n#### 2", id="worked"
        ),
        pytest.param(
            {"dialogue": "A: Hi.", "summary": "A greets."},
            Prompt.ask("Summarise this dialogue in one or two sentences.\n\nA: Hi."),
            "A greets.",
            id="dialogue",
        ),
        pytest.param(
            {"question": "How large?", "plan": PLAN}, Prompt.ask("How large?", SYSTEM_PROMPT), PLAN, id="plan"
        ),
        pytest.param(
            {"question": "How large?", "plan": PLAN, "system": "Plan!"}, Prompt.ask("How large?", "Plan!"), PLAN,
            id="plan with a system prompt",
        ),
        pytest.param(
            {"instruction": "Plan!", "input": "How large?", "output": PLAN}, Prompt.ask("How large?", "Plan!"), PLAN,
            id="rewoo",
        ),
        pytest.param(
            {"question": "Who?", "answer": "Ada", "context": [["Ada", ["She is."]]]}, Prompt.ask("Who?", SYSTEM_PROMPT),
            None, id="hotpotqa",
        ),
        pytest.param(
            {"question": "Who?", "answer": {"value": "Ada", "aliases": ["A."]}}, Prompt.ask("Who?", SYSTEM_PROMPT),
            None, id="triviaqa",
        ),
        pytest.param({"prompt": "Do it.", "category": "x"}, Prompt.ask("Do it."), None, id="prompts alone"),
    ],
)  # fmt: skip
def test_shapes(row: object, prompt: Prompt, answer: str | None, tmp_path: Path) -> None:
    found = read(tmp_path, row)
    assert found.prompts == (prompt,)
    assert found.references == (() if answer is None else (answer,))
    assert (found.name, found.built_in, len(found.ids)) == ("t.jsonl", False, 1)
    assert found.data.n == 1
    assert found.data.sha256 == found.sha256


def test_plain_text(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("# tasks\nDo it.\nAnd that.\n")
    found = read_task(tmp_path / "t.txt")
    assert found.prompts == (Prompt.ask("Do it."), Prompt.ask("And that."))
    assert found.references == ()


def test_of_tasks_only_some_of_which_have_a_plan_none_is_used(tmp_path: Path) -> None:
    found = read(tmp_path, {"question": "a", "plan": PLAN}, {"question": "b", "answer": "c"})
    assert (len(found), found.references) == (2, ())
    assert found.notes == ("t.jsonl: 1 of 2 tasks have a plan, so that none of them is used",)


def test_a_column_and_rows_of_ones_own(tmp_path: Path) -> None:
    rows = [{"ask": f"Do {n}", "reference": f"Did {n}", "id": n, "kind": n % 2} for n in range(4)]
    found = read(tmp_path, *rows, field=["ask"], where=["kind=1"])
    assert found.prompts == (Prompt.ask("Do 1"), Prompt.ask("Do 3"))
    assert (found.references, found.ids) == (("Did 1", "Did 3"), ("1", "3"))
    assert found.notes == ("t.jsonl: only rows with kind=1",)
    plans = read(tmp_path, {"ask": "How large?", "plan": PLAN}, field=["ask"])
    assert (plans.prompts, plans.references) == ((Prompt.ask("How large?", SYSTEM_PROMPT),), (PLAN,))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "holds no prompts"),
        ([{"a": 1}], "row 1 has no prompt; its columns are a; name the column that holds the prompts: prompt_fields="),
        ([{"prompt": 7}], "row 1 has a prompt that is no text"),
        ([{"prompt": "a", "reference": "b"}, {"prompt": "c"}], "row 2 has no reference"),
        ([{"prompt": "a", "reference": 7.5}], "row 1 has a reference that is no text"),
        ([{"question": "a", "plan": PLAN}, {"plan": PLAN}], "row 2 has no question; its columns are plan"),
        ([{"question": "a", "choices": "b", "answer": 0}], "row 1 has no list of 2 to 26 choices"),
        ([[1]], "row 1 has a value that is neither a text nor an object"),
    ],
)
def test_what_cannot_be_read(rows: list[Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataFileError) as caught:
        read(tmp_path, *rows)
    assert str(caught.value).startswith(f"{tmp_path}/t.jsonl: ")
    assert problem in str(caught.value).replace("line 1", "row 1").replace("line 2", "row 2")


def test_a_system_prompt_stays_in_every_part(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Do {n}."}]}
        for n in range(60)
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = repair_data(task=path)
    harmless = tmp_path / "b.jsonl"
    harmless.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for part in (data.learning, data.tuning, data.test):
        assert all(prompt.messages[0] == Message("system", "Be brief.") for prompt in part.task.prompts)
    kept = repair_data(harmless=harmless)
    for part in (kept.learning, kept.tuning, kept.test):
        assert all(prompt.messages[0] == Message("system", "Be brief.") for prompt in part.harmless.prompts)


@pytest.mark.parametrize(
    ("file", "answered"),
    [
        ("dialogsum.test.jsonl", True),
        ("gsm8k_test.jsonl", True),
        ("HumanEval.jsonl.gz", True),
        ("seed_tasks.jsonl", False),
        ("xstest_prompts.csv", False),
    ],
)
def test_data_sets(file: str, answered: bool) -> None:
    data = repair_data(task=shared() / "data" / file)
    for part in (data.learning, data.tuning, data.test):
        assert len(part.task) >= 20
        assert len(part.task.references) == len(part.task) * answered


def test_published_prompts() -> None:
    folder = shared() / "data"
    data = repair_data(
        harmful=folder / "advbench_harmful_behaviors.csv",
        harmless=folder / "xstest_prompts.csv",
        fresh=folder / "strongreject_dataset.csv",
        where=["fresh:source!=AdvBench"],
    )
    for part, size in ((data.learning, 32), (data.tuning, 50), (data.test, 100)):
        assert (len(part.harmful), len(part.harmless)) == (size, size)
        assert not [one for one in part.harmless.requests if one.category.startswith("contrast_")]
    assert data.fresh is not None
    assert len(data.fresh) == 100


def test_what_is_no_file(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "none"):
        with pytest.raises(S3LoRAError):
            read_task(source)
