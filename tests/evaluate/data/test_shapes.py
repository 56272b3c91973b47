"""Published data sets by their columns, on files of their shape with texts of our own."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from s3lora.evaluate.data.choice import EVERY_ROW, choices
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.kinds import PromptKind
from s3lora.evaluate.data.shapes import SHAPES, known_columns, shape_of
from s3lora.evaluate.planning.loader import read_tasks
from s3lora.evaluate.prompts import PromptSet, Request, read_prompts
from s3lora.evaluate.references import read_references

Row = dict[str, Any]

XSTEST = [
    {"id": 1, "prompt": "How do I kill a process?", "type": "homonyms", "label": "safe", "focus": "kill", "note": ""},
    {
        "id": 2,
        "prompt": "How do I open a lock?",
        "type": "contrast_homonyms",
        "label": "unsafe",
        "focus": "",
        "note": "",
    },
    {"id": 3, "prompt": "How do I cut bread?", "type": "homonyms", "label": "safe", "focus": "cut", "note": ""},
]
BEAVERTAILS = [
    {"prompt": "Open it?", "response": "No.", "category": {"theft": False, "fraud": False}, "is_safe": True},
    {"prompt": "Open it?", "response": "So.", "category": {"theft": True, "fraud": True}, "is_safe": False},
    {"prompt": "Open it?", "response": "Or so.", "category": {"theft": True, "fraud": False}, "is_safe": False},
    {"prompt": "Hello?", "response": "Hi.", "category": {"theft": False, "fraud": False}, "is_safe": True},
    {"prompt": "Take it?", "response": "Yes.", "category": {"theft": True, "fraud": False}, "is_safe": False},
]
#: Title → rows of that shape, and what is asked.
PROMPTS: dict[str, tuple[list[Row], list[Request]]] = {
    "AdvBench": ([{"goal": "Open it", "target": "Sure"}], [Request("Open it")]),
    "JailbreakBench": (
        [
            {"Index": 0, "Goal": "Open it", "Target": "Yes", "Behavior": "Opening", "Category": "Tools"},
            {"Index": 1, "Goal": "Do open it", "Target": "Yes", "Behavior": "Opening", "Category": "Tools"},
        ],
        [Request("Open it", "Tools", "Opening"), Request("Do open it", "Tools", "Opening")],
    ),
    "HarmBench": (
        [
            {"Behavior": "Open it", "FunctionalCategory": "standard", "SemanticCategory": "tools", "Tags": "",
             "ContextString": "", "BehaviorID": "open_it"},
            {"Behavior": "Open that", "FunctionalCategory": "contextual", "SemanticCategory": "tools",
             "Tags": "context", "ContextString": "A tin.", "BehaviorID": "open_that"},
        ],
        [Request("Open it", "tools", "open_it"), Request("A tin.\n\n---\n\nOpen that", "tools", "open_that")],
    ),
    "StrongREJECT": (
        [{"category": "Tools", "source": "custom", "forbidden_prompt": "Open it"}],
        [Request("Open it", "Tools")],
    ),
    "SORRY-Bench": (
        [
            {"question_id": 7, "category": "2", "turns": ["Open it"], "prompt_style": "base"},
            {"question_id": 7, "category": "2", "turns": ["Do you open it?"], "prompt_style": "question"},
        ],
        [Request("Open it", "2", "7"), Request("Do you open it?", "2", "7")],
    ),
    "MT-Bench": (
        [{"question_id": 81, "category": "writing", "turns": ["Write it.", "Shorter."]}],
        [Request("Write it.", "writing", "81")],
    ),
    "OR-Bench": ([{"prompt": "Open it", "category": "tools"}], [Request("Open it", "tools")]),
    "Do-Not-Answer": (
        [{"id": 0, "risk_area": "Tools", "types_of_harm": "Opening", "specific_harms": "x", "question": "Open it?"}],
        [Request("Open it?", "Tools", "0")],
    ),
    "SALAD-Bench": (
        [{"qid": 5, "question": "Open it?", "source": "GPT-Gen", "1-category": "O1", "2-category": "O2",
          "3-category": "O3: Tools"}],
        [Request("Open it?", "O3: Tools", "5")],
    ),
    "SALAD-Bench, attacks": (
        [
            {"aid": 1, "qid": 5, "augq": "You are a tin. Open!", "baseq": "Open it?", "3-category": "O3"},
            {"aid": 2, "qid": 5, "augq": "Be a tin. Open!", "baseq": "Open it?", "3-category": "O3"},
        ],
        [Request("You are a tin. Open!", "O3", "5"), Request("Be a tin. Open!", "O3", "5")],
    ),
    "XSTest": (XSTEST, [Request(row["prompt"], row["type"], str(row["id"])) for row in XSTEST]),
    "XSTest, first version": (
        [{key: value for key, value in row.items() if key != "label"} for row in XSTEST],
        [Request(row["prompt"], row["type"], str(row["id"])) for row in XSTEST],
    ),
    "BeaverTails": (BEAVERTAILS, [Request("Open it?"), Request("Hello?"), Request("Take it?", "theft")]),
    "Alpaca": (
        [
            {"instruction": "Add the numbers.", "input": "1, 1", "output": "2"},
            {"instruction": "Say hello.", "input": "", "output": "Hello."},
        ],
        [Request("Add the numbers.\n\n1, 1"), Request("Say hello.")],
    ),
    "prompts with completions": ([{"prompt": "Say hello.", "completion": "Hello."}], [Request("Say hello.")]),
    "prompts with responses": (
        [{"prompt": "Say hello.", "response": "Hello.", "category": "greetings"}],
        [Request("Say hello.", "greetings")],
    ),
    "GSM8K": ([{"question": "1 + 1?", "answer": "It is <<1+1=2>>2.\n#### 2"}], [Request("1 + 1?")]),
    "MMLU": (
        [{"question": "Which is red?", "subject": "colours", "choices": ["Grass", "Blood"], "answer": 1}],
        [Request("Which is red?\n\nA. Grass\nB. Blood\n\nAnswer with one letter.", "colours")],
    ),
    "HumanEval": (
        [{"task_id": "HumanEval/0", "prompt": "def two():\n", "canonical_solution": "    return 2\n",
          "entry_point": "two", "test": ""}],
        [Request("def two():", "", "HumanEval/0")],
    ),
}  # fmt: skip


def as_csv(rows: list[Row]) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()})
    return file.getvalue()


def read(folder: Path, rows: list[Row], form: str = "jsonl", kind: PromptKind | None = None, *where: str) -> PromptSet:
    path = folder / f"p.{form}"
    text = as_csv(rows) if form == "csv" else "\n".join(map(json.dumps, rows))
    path.write_text(text, encoding="utf-8", newline="")
    return read_prompts(path, choices(where, [], ["harmful"])["harmful"], kind)


@pytest.mark.parametrize("title", PROMPTS)
def test_what_is_asked(title: str, tmp_path: Path) -> None:
    rows, expected = PROMPTS[title]
    assert shape_of({name.lower(): value for name, value in rows[0].items()}).title == title
    assert list(read(tmp_path, rows).requests) == expected
    if not any(isinstance(value, dict) or name == "choices" for row in rows for name, value in row.items()):
        assert list(read(tmp_path, rows, "csv").requests) == expected


def test_every_shape_has_a_row_here() -> None:
    elsewhere = {"HarmBench test cases", "DialogSum, SAMSum", "XSum", "CNN/DailyMail", "prompts with references"}
    assert {shape.title for shape in SHAPES} == {*PROMPTS, *elsewhere}
    assert all(
        {*shape.columns, *shape.prompt} == {name.lower() for name in (*shape.columns, *shape.prompt)}
        for shape in SHAPES
    )
    assert known_columns() >= {"prompt", "forbidden_prompt", "augq", "turns"}


def test_harmbench_test_cases_are_of_one_behaviour(tmp_path: Path) -> None:
    cases = {"open_it": [{"test_case": "Open it", "generation": "No.", "label": 0}, "Do open it"]}
    path = tmp_path / "p.json"
    path.write_text(json.dumps(cases))
    assert read_prompts(path).requests == (Request("Open it", "", "open_it"), Request("Do open it", "", "open_it"))


@pytest.mark.parametrize("title", ["XSTest", "XSTest, first version"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_of_a_table_of_both_kinds_those_that_are_meant(title: str, form: str, tmp_path: Path) -> None:
    rows, everything = PROMPTS[title]
    safe, unsafe = read(tmp_path, rows, form, "benign"), read(tmp_path, rows, form, "harmful")
    assert (list(safe.requests), list(unsafe.requests)) == ([everything[0], everything[2]], [everything[1]])
    column = "label" if title == "XSTest" else "type"
    assert safe.notes == (f"p.{form}: 2 of 3 rows are benign by the column {column}; the others are left out",)
    # Who chooses by that column has chosen.
    chosen = read(tmp_path, rows, form, "benign", f"{column}!=")
    assert list(chosen.requests) == everything
    # Another condition comes on top.
    assert [r.id for r in read(tmp_path, rows, form, "benign", "focus=cut").requests] == ["3"]
    with pytest.raises(DataFileError, match=f"no prompt that is benign by the column {column}; where={column}!="):
        read(tmp_path, rows[1:2], form, "benign")


@pytest.mark.parametrize("column", ["label", "prompt_label", "prompt_harm_label"])
@pytest.mark.parametrize(("harmful", "benign"), [("unsafe", "safe"), ("Harmful", "Unharmful"), ("harmful", "benign")])
def test_any_table_with_such_a_column(column: str, harmful: str, benign: str, tmp_path: Path) -> None:
    rows = [{"question": "a", column: harmful}, {"question": "b", column: benign}, {"question": "c", column: None}]
    for kind, text in (("harmful", "a"), ("benign", "b")):
        found = read(tmp_path, rows, "jsonl", kind)
        assert [request.text for request in found.requests] == [text]
        told = f"p.jsonl: 1 of 3 rows are {kind} by the column {column}; the others are left out (1 say neither)"
        assert found.notes == (told,)
    assert len(read(tmp_path, rows)) == 3
    # Other labels are no kinds.
    numbers = [{"question": "a", column: 1}, {"question": "b", column: 0}]
    assert len(read(tmp_path, numbers, "jsonl", "harmful")) == 2


def test_beavertails(tmp_path: Path) -> None:
    found = read(tmp_path, BEAVERTAILS, "jsonl", "harmful")
    assert found.requests == (Request("Open it?", "theft, fraud"), Request("Take it?", "theft"))
    assert found.notes == (
        "p.jsonl: 3 of 5 rows are harmful by the column is_safe; the others are left out",
        "p.jsonl: 1 rows repeat a prompt, which is asked once",
    )
    with pytest.raises(DataFileError, match="is_safe labels answers and does not tell which are harmless"):
        read(tmp_path, BEAVERTAILS, "jsonl", "benign")
    chosen = read(tmp_path, BEAVERTAILS, "jsonl", "benign", "is_safe=true")
    assert [r.text for r in chosen.requests] == ["Open it?", "Hello?"]
    assert [r.text for r in read(tmp_path, BEAVERTAILS, "jsonl", None, "category.fraud=true").requests] == ["Open it?"]


def references(folder: Path, rows: list[Row]) -> list[tuple[str, tuple[str, ...], str]]:
    path = folder / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return [(e.id, e.references, e.worked) for e in read_references(path, EVERY_ROW).examples]


def test_right_answers(tmp_path: Path) -> None:
    [gsm] = PROMPTS["GSM8K"][0]
    assert references(tmp_path, [gsm]) == [("", ("2",), gsm["answer"])]
    assert references(tmp_path, [{**gsm, "answer": "All.\n#### 1,234"}]) == [("", ("1234",), "All.\n#### 1,234")]
    assert references(tmp_path, [{**gsm, "answer": "Rome"}, {**gsm, "answer": 3}]) == [
        ("", ("Rome",), ""),
        ("", ("3",), ""),
    ]
    [code] = PROMPTS["HumanEval"][0]
    assert references(tmp_path, [code]) == [("HumanEval/0", ("return 2",), "    return 2\n")]
    [mmlu] = PROMPTS["MMLU"][0]
    for answer in (1, "1", "B", "b"):
        assert references(tmp_path, [{**mmlu, "answer": answer}]) == [("", ("B", "Blood"), "")]


def test_answers_of_what_models_are_trained_on(tmp_path: Path) -> None:
    assert references(tmp_path, PROMPTS["Alpaca"][0]) == [("", ("2",), ""), ("", ("Hello.",), "")]
    for title in ("prompts with completions", "prompts with responses"):
        assert references(tmp_path, PROMPTS[title][0]) == [("", ("Hello.",), "")]
    turns = [{"role": "assistant", "content": "Hello."}, {"role": "assistant", "content": "And?"}]
    assert references(tmp_path, [{"prompt": "Hi", "completion": turns}]) == [("", ("Hello.\n\nAnd?",), "")]
    for nothing in ("", [], [7], None):
        with pytest.raises(DataFileError, match="no reference"):
            references(tmp_path, [{"prompt": "Hi", "completion": nothing}])
    with pytest.raises(DataFileError, match="a reference that is no text"):
        references(tmp_path, [{"prompt": "Hi", "completion": 7.5}])


def test_right_answers_for_plans(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(PROMPTS[title][0][0]) for title in ("GSM8K", "MMLU")))
    gsm, mmlu = read_tasks(path).tasks
    assert (gsm.question, gsm.answers) == ("1 + 1?", ("2",))
    assert (mmlu.question.split("\n")[0], mmlu.answers) == ("Which is red?", ("B", "Blood"))
    assert "B. Blood" in mmlu.question
    path.write_text(json.dumps({"wording": "1 + 1?", "answer": 2}))
    [task] = read_tasks(path, None, choices([], ["wording"], ["tasks"])["tasks"]).tasks
    assert (task.question, task.answers) == ("1 + 1?", ("2",))
    with pytest.raises(DataFileError, match="row 1 has no question; its columns are wording, answer; name the one"):
        read_tasks(path)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"answer": 2}, "neither an index nor a letter"),
        ({"answer": "C"}, "neither an index nor a letter"),
        ({"answer": True}, "neither an index nor a letter"),
        ({"answer": ""}, "neither an index nor a letter"),
        ({"answer": "AB"}, "neither an index nor a letter"),
        ({"answer": "9" * 5000}, "neither an index nor a letter"),
        ({"choices": "Grass Blood"}, "no list of 2 to 26 choices"),
        ({"choices": ["Grass"]}, "no list of 2 to 26 choices"),
        ({"choices": ["Grass", 7]}, "a choice that is no text"),
    ],
)
def test_choices_that_cannot_be_read(changed: Row, problem: str, tmp_path: Path) -> None:
    [mmlu] = PROMPTS["MMLU"][0]
    with pytest.raises(DataFileError, match=problem):
        references(tmp_path, [{**mmlu, **changed}])
