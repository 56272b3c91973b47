from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.errors import S3LoRAError
from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.planning import loader
from s3lora.evaluate.planning.documents import Document
from s3lora.evaluate.planning.loader import read_tasks
from s3lora.evaluate.planning.questions import built_in
from s3lora.evaluate.planning.suite import PlanningSuite
from s3lora.evaluate.planning.tasks import SYSTEM_PROMPT, PlanningTask
from tests.evaluate.planning.planners import Planner

#: Rows in the published forms, with texts of our own.
HOTPOT: dict[str, Any] = {
    "_id": "5a7a",
    "question": "On which river lies the town where the Hale Clock was made?",
    "answer": "the Orrin",
    "supporting_facts": [["Hale Clock", 0], ["Dunmere", 1]],
    "context": [
        ["Hale Clock", ["The Hale Clock is a tower clock.", " It was made in Dunmere."]],
        ["Dunmere", ["Dunmere is a town.", " It lies on the Orrin."]],
    ],
    "type": "bridge",
    "level": "easy",
}
HOTPOT_COLUMNS = {
    **{key: HOTPOT[key] for key in ("question", "answer")},
    "id": "5a7a",
    "context": {"title": [t for t, _ in HOTPOT["context"]], "sentences": [s for _, s in HOTPOT["context"]]},
}
TRIVIA = {
    "Data": [
        {
            "Answer": {
                "Aliases": ["Lead", "Plumbum"],
                "NormalizedAliases": ["lead"],
                "Value": "Lead",
                "Type": "FreeForm",
            },
            "EntityPages": [],
            "Question": "Which metal has the symbol Pb?",
            "QuestionId": "tc_1",
        }
    ],
    "Domain": "Web",
    "Version": 1.0,
}
REWOO = {
    "instruction": "Make a plan. Tools: Google[input], LLM[input].",
    "input": "Who built it?",
    "output": "Plan: Search.\n#E1 = Google[it]\nPlan: Extract.\n#E2 = LLM[Who built it? Given #E1]",
}


def write(folder: Path, document: object, name: str = "tasks.json") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("row", [HOTPOT, HOTPOT_COLUMNS])
def test_hotpotqa(tmp_path: Path, row: object) -> None:
    tasks = read_tasks(write(tmp_path, [row]))
    assert tasks.name == "tasks.json"
    [task] = tasks.tasks
    assert (task.id, task.answers) == ("5a7a", ("the Orrin",))
    assert task.documents == (
        Document("Hale Clock", "The Hale Clock is a tower clock. It was made in Dunmere."),
        Document("Dunmere", "Dunmere is a town. It lies on the Orrin."),
    )
    assert (task.system, task.plan) == (SYSTEM_PROMPT, "")


def test_its_paragraphs_are_what_lookup_searches(tmp_path: Path) -> None:
    tasks = read_tasks(write(tmp_path, [HOTPOT]))

    class Extracts(Planner):
        def answer(self, prompt: Prompt) -> str:
            question = prompt.messages[-1].content
            return plan if prompt in self.plans else (self.solve(question) or question).rstrip(".").split()[-1]

    plan = """Plan: a
#E1 = Google[where was the Hale Clock made]
#E2 = LLM[Repeat the last word of #E1]
Plan: c
#E3 = Wikipedia[#E2]"""
    suite = PlanningSuite(tasks)
    outcome = suite.run(Extracts(tasks), None)
    assert outcome.counts["failed_steps"] == 0
    assert outcome.columns["exact_match"].values == (1.0,)
    assert {m.name: m.role for m in suite.info.measures}["token_f1"] == "utility"


def test_triviaqa(tmp_path: Path) -> None:
    [task] = read_tasks(write(tmp_path, TRIVIA)).tasks
    assert task == PlanningTask("Which metal has the symbol Pb?", answers=("Lead", "Plumbum"), id="tc_1")
    row = {
        "question": task.question,
        "question_id": "tc_1",
        "answer": {"value": "Lead", "aliases": ["Lead", "Plumbum"]},
    }
    assert read_tasks(write(tmp_path, [row])).tasks == (task,)


def test_rewoo(tmp_path: Path) -> None:
    tasks = read_tasks(write(tmp_path, [REWOO]))
    [task] = tasks.tasks
    assert task == PlanningTask("Who built it?", REWOO["output"], system=REWOO["instruction"])
    outcome = PlanningSuite(tasks).run(Planner(tasks), None)
    assert outcome.columns["well_formed"].values == (1.0,)
    assert "exact_match" not in outcome.columns


def test_lines_of_ones_own(tmp_path: Path) -> None:
    rows = [
        {"question": "q1", "answer": "a"},
        {"Question": "q2", "answer": ["a", "b"], "plan": "Plan: x #E1 = LLM[q2]", "id": 7},
        {"question": "q3", "answer": 12, "context": "Some text."},
        {"question": "q4", "answers": ["a"], "aliases": ["b"], "context": ["One.", "Two."], "system": "Plan!"},
    ]
    tasks = read_tasks(write(tmp_path, "\n".join(map(json.dumps, rows)) + "\n\n", "own.jsonl")).tasks
    assert [task.answers for task in tasks] == [("a",), ("a", "b"), ("12",), ("a", "b")]
    assert (tasks[1].plan, tasks[1].id) == ("Plan: x #E1 = LLM[q2]", "7")
    assert tasks[2].documents == (Document("Paragraph 1", "Some text."),)
    assert tasks[3].documents == (Document("Paragraph 1", "One."), Document("Paragraph 2", "Two."))
    assert tasks[3].system == "Plan!"


def test_one_row_and_the_built_in_tasks_written_out(tmp_path: Path) -> None:
    assert read_tasks(write(tmp_path, {"question": "q", "answer": "a"})).tasks == (PlanningTask("q", answers=("a",)),)
    own = built_in(20)
    lines = [json.dumps({"question": t.question, "plan": t.plan, "answer": t.answers[0]}) for t in own.tasks]
    folder = tmp_path / "docs"
    folder.mkdir()
    for n, document in enumerate(own.documents):
        write(folder, f"# {document.title}\n{document.text}", f"{n:03}.md")
    tasks = read_tasks(write(tmp_path, "\n".join(lines)), folder)
    assert tasks.documents == own.documents
    outcome = PlanningSuite(tasks).run(Planner(tasks), None)
    assert set(outcome.columns["exact_match"].values) == {1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no tasks"),
        ("[]", "holds no tasks"),
        ("7", "no form that holds rows"),
        ('"text"', "no form that holds rows"),
        ("[7]", "row 1 is no object"),
        ('{"question": "q", "answer": "a"}\n{"question"', "line 2 is not JSON"),
        ('{"question": "q", "answer": "a"}\n\n7', "line 3 is no object"),
        ('[{"question": "q"}]', "row 1 has neither an answer nor a plan"),
        ('[{"answer": "a"}]', "row 1 has no question"),
        ('[{"question": 7, "answer": "a"}]', "row 1 has a question that is no text"),
        ('[{"question": " ", "answer": "a"}]', "row 1 has a question that is no text"),
        ('[{"question": "q", "answer": true}]', "row 1 has an answer that is no text"),
        ('[{"question": "q", "answer": [["a"]]}]', "row 1 has an answer that is no text"),
        ('[{"question": "q", "answer": {"b": 1}}]', "row 1 has neither"),
        ('[{"question": "q", "answer": "a", "context": 7}]', "row 1 has a context that is no text"),
        ('[{"question": "q", "answer": "a", "context": [["t", [7]]]}]', "row 1 has a context that is no text"),
        ('[{"question": "q", "answer": "a", "context": {"title": ["t"]}}]', "titles and sentences do not match"),
        ('[{"question": "q", "answer": "a", "plan": 7}]', "row 1 has a plan that is no text"),
        ('[{"instruction": "i", "input": "", "output": "o"}]', "row 1 has an input that is no text"),
        ('[{"question": "\\ud800", "answer": "a"}]', "row 1 has half of a character"),
        (
            json.dumps([{"question": "q" * 20_001, "answer": "a"}]),
            "row 1 has a question of more than 20,000 characters",
        ),
        (json.dumps([{"question": "q", "answer": list(map(str, range(1_001)))}]), "row 1 has more than 1,000 answers"),
        (json.dumps([{"question": "q", "answer": "a", "context": ["t"] * 1_001}]), "more than 1,000 paragraphs"),
        (json.dumps([{"question": "q", "answer": "a", "context": ["t" * 2**20] * 2}]), "a context of more than"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5_000, "numbers too long"),
    ],
)
def test_files_that_are_no_tasks(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(S3LoRAError, match=message) as caught:
        read_tasks(write(tmp_path, text))
    assert "tasks.json" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(S3LoRAError, match="No such file"):
        read_tasks(tmp_path / "none.json")
    (tmp_path / "a.json").write_bytes(b"[\n\xff]")
    with pytest.raises(S3LoRAError, match="line 2 is not UTF-8"):
        read_tasks(tmp_path / "a.json")
    monkeypatch.setattr(loader, "MAX_TASKS", 1)
    with pytest.raises(DataFileError, match="more than 1 tasks"):
        read_tasks(write(tmp_path, [HOTPOT, HOTPOT]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["question", "answer", "context", "plan", "title", "sentences", "Data", "Value"]), inner
        )
    ),
    max_leaves=12,
)


@given(VALUES)
def test_any_json_is_tasks_or_an_error(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value))
    with contextlib.suppress(S3LoRAError):
        assert read_tasks(path).sha256


def test_data_sets_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def load_dataset(name: str, configuration: str | None, split: str) -> list[dict[str, Any]]:
        asked.append((name, configuration, split))
        if "missing" in name:
            raise FileNotFoundError("no such data set\nand a long tail")
        return [HOTPOT_COLUMNS]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    for name in ("hotpotqa", "TriviaQA", "rewoo", "some/one", "some/one:a:b"):
        assert len(read_tasks(name)) == 1
    assert asked == [
        ("hotpotqa/hotpot_qa", "distractor", "validation"),
        ("mandarjoshi/trivia_qa", "rc.nocontext", "validation"),
        ("rewoo/planner_instruction_tuning_2k", None, "train"),
        ("some/one", None, "train"),
        ("some/one", "a", "b"),
    ]
    with pytest.raises(DataFileError, match=r"some/missing.*cannot be loaded \(no such data set\)"):
        read_tasks("some/missing")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(S3LoRAError, match="pip install"):
        read_tasks("hotpotqa")
