"""Tables, JSON and plain text are told apart, and what is half of one is an error that says how to tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.errors import S3LoRAError
from s3lora.evaluate.chat import Message, Prompt
from s3lora.evaluate.data.choice import choices
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.delimited import looks_like_table
from s3lora.evaluate.planning.loader import read_tasks
from s3lora.evaluate.prompts import PromptSet, Request, read_prompts
from s3lora.evaluate.references import read_references
from tests.support import shared


def read(folder: Path, text: str, name: str, *where: str, field: str | None = None) -> PromptSet:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return read_prompts(path, choices(where, [field] if field else [], ["harmful"])["harmful"])


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.txt", "p"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_parts_cells_is_told_from_the_table(
    name: str, delimiter: str, end: str, mark: str, tmp_path: Path
) -> None:
    lines = ["ID;Prompt;category", '1;"Open ""it"";\tnow, please";tools', f'2;"two{end}lines";', "3;x,y;z"]
    other = ["ID,Prompt,category", '1,"Open ""it"";\tnow, please",tools', f'2,"two{end}lines",', '3,"x,y",z']
    chosen = lines if delimiter == ";" else other if delimiter == "," else [one.replace(";", "\t", 1) for one in lines]
    if delimiter == "\t":
        chosen = ["ID\tPrompt\tcategory", '1\t"Open ""it"";\tnow, please"\ttools', f'2\t"two{end}lines"\t', "3\tx,y\tz"]
    found = read(tmp_path, mark + end.join(chosen) + end, name)
    assert found.requests == (
        Request('Open "it";\tnow, please', "tools", "1"),
        Request(f"two{end}lines", "", "2"),
        Request("x,y", "z", "3"),
    )


def test_one_column_is_a_table_too(tmp_path: Path) -> None:
    assert [r.text for r in read(tmp_path, "prompt\nOpen it, now\nClose; it\n", "p.csv").requests] == [
        "Open it, now",
        "Close; it",
    ]


@pytest.mark.parametrize(
    "text", ["prompt,prompt\na,b\n", "Prompt,id,PROMPT \na,1,b\n", '{"prompt": "a", "Prompt": "b"}\n']
)
def test_two_columns_of_one_name_are_an_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="has 2 columns called prompt; rename all but the one that is meant"):
        read(tmp_path, text, "p.jsonl" if text.startswith("{") else "p.csv")


def test_columns_without_a_name_may_be_several(tmp_path: Path) -> None:
    assert [one.text for one in read(tmp_path, "prompt,,\na,b,c\n", "p.csv").requests] == ["a"]


UNKNOWN = "topic,wording\ntools,Open it\ntools,Close it\n"


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.txt", "p", "p.csv.gz"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_without_a_known_column_is_an_error(name: str, delimiter: str, tmp_path: Path) -> None:
    text = UNKNOWN.replace(",", delimiter)
    with pytest.raises(DataFileError) as caught:
        read(tmp_path, text, name)
    assert "topic, wording" in str(caught.value)
    assert "prompt_fields=NAME" in str(caught.value)
    found = read(tmp_path, text, name, field="Wording")
    assert [r.text for r in found.requests] == ["Open it", "Close it"]


def test_lines_of_json_without_a_known_column(tmp_path: Path) -> None:
    text = "\n".join(json.dumps({"topic": "tools", "wording": wording}) for wording in ("Open it", "Close it"))
    with pytest.raises(
        DataFileError, match=r"line 1 has no prompt; its columns are topic, wording; .*prompt_fields=NAME"
    ):
        read(tmp_path, text, "p.jsonl")
    assert [r.text for r in read(tmp_path, text, "p.jsonl", field="wording").requests] == ["Open it", "Close it"]
    with pytest.raises(DataFileError, match="line 1 has no column words; its columns are topic, wording"):
        read(tmp_path, text, "p.jsonl", field="words")


def test_the_field_comes_before_what_is_known(tmp_path: Path) -> None:
    text = "prompt,plain,id\nPlease open it,Open it,7\n"
    assert read(tmp_path, text, "p.csv", field="plain").requests == (Request("Open it", "", "7"),)
    # A row of which the named column is empty has no prompt, though another column has one.
    with pytest.raises(DataFileError, match="line 2 has no prompt in its column plain"):
        read(tmp_path, "prompt,plain\nOpen it,\n", "p.csv", field="plain")


@pytest.mark.parametrize(
    "text",
    [
        "How do I open a tin?\nHow do I close it again?\n",
        "Hello, world\nHi, there\nHey, you\n",
        "First, open it; then, close it.\nFirst, find it; then, take it.\nFirst, ask; then, go.\n",
        "Open it\nClose it, please\n",
        "Write a story of 1,000 words\nAdd 2,500 and 3\nName it\n",
        "[INST] open it\n",
        "{name}, open it\n",
        "# topic,wording\na,b\n",
        "#\ntopic,wording\na,b\n",
        "# kind,name\nOpen it,now\nClose it,then\nTake it,too\n",
        "Open it: a,b,c\nNo list here\n",
        "one line\n",
        "Apples, pears and plums\n",
    ],
)
def test_plain_text_is_one_prompt_a_line(text: str, tmp_path: Path) -> None:
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    for name in ("p.txt", "p", "p.md"):
        assert [r.text for r in read(tmp_path, text, name).requests] == lines
    with pytest.raises(DataFileError, match="plain text without columns"):
        read(tmp_path, text, "p.txt", "label=unsafe")


@pytest.mark.parametrize(
    "text",
    [
        "topic,wording\ntools,Open it\n",
        "topic\twording\n",
        "tools\tOpen it?\ntools\tClose it!\nfood\tEat it, please.\n",
        "1,Open it?,safe\n2,Close it!,safe\n3,Eat it.,unsafe\n",
        "1;How do I open it?;safe\n2;How do I close it?;safe\n3;What now?;unsafe\n",
    ],
)
def test_what_looks_like_a_table_is_no_plain_text(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"looks like a table .* prompt_fields=NAME; .* the line `# prompts`"):
        read(tmp_path, text, "p.txt")
    assert read(tmp_path, "# prompts\n" + text, "p.txt").requests[0].text == text.split("\n")[0]


def test_the_ending_csv_or_json_is_believed(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"its columns are how do i open a tin\?; name"):
        read(tmp_path, "How do I open a tin?\nHow do I close it?\n", "p.csv")
    for name in ("p.json", "p.jsonl", "p.ndjson", "p.jsonl.gz"):
        with pytest.raises(DataFileError, match="line 1 is not JSON"):
            read(tmp_path, "How do I open a tin?\n", name)
    # What is a prompt is not printed in full.
    with pytest.raises(DataFileError) as caught:
        read(tmp_path, "please " * 40 + "\nagain\n", "p.csv")
    assert "please " * 8 not in str(caught.value)


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Open it."},
]
SHARED_CHAT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Hi."},
    {"from": "gpt", "value": "Hello."},
    {"from": "human", "value": "Open it."},
]
BEFORE = (Message("system", "Be brief."), Message("user", "Hi."), Message("assistant", "Hello."))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"conversations": SHARED_CHAT},
        {"prompt": CHAT},
        {"messages": CHAT, "text": "rendered"},
        {"Messages": [*CHAT, {"role": "assistant", "content": "No."}]},
        {"messages": [*CHAT[:3], {"role": "user", "content": [{"type": "text", "text": "Open it."}]}]},
    ],
)
def test_chats(row: object, tmp_path: Path) -> None:
    found = read(tmp_path, json.dumps([row]), "p.json")
    assert found.requests == (Request("Open it.", before=BEFORE),)
    assert found.requests[0].prompt == Prompt((*BEFORE, Message("user", "Open it.")))
    alone = read(tmp_path, json.dumps([{"prompt": "Open it."}]), "q.json")
    assert found.sha256 != alone.sha256


def test_a_chat_ends_with_its_reference(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"messages": [*CHAT, {"role": "assistant", "content": "Done."}]}))
    [example] = read_references(path).examples
    assert (example.prompt.messages[-1].content, example.references) == ("Open it.", ("Done.",))
    path.write_text(json.dumps({"messages": CHAT}))
    with pytest.raises(DataFileError, match="row 1 has no reference"):
        read_references(path)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"messages": []}, "a prompt that does not end with a message of the user"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "a message without a role"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "a message that holds more than text"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "a prompt that does not end with a message of the user"),
        ({"turns": [" "]}, "a prompt that is no text"),
        ({"turns": {"a": 1}}, "a prompt that is no text"),
    ],
)
def test_chats_that_cannot_be_asked(row: object, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=f"row 1 has {problem}"):
        read(tmp_path, json.dumps([row]), "p.json")


def test_of_turns_the_first_is_asked_and_that_is_said(tmp_path: Path) -> None:
    rows = [{"question_id": 81, "category": "writing", "turns": ["Write a letter.", "Make it shorter."]}] * 2
    found = read(tmp_path, json.dumps(rows), "p.json")
    assert found.requests[0] == Request("Write a letter.", "writing", "81")
    assert found.notes == ("p.json: of 2 prompts with several turns the first turn is asked",)
    table = read(tmp_path, 'question_id,turns\n1,"[""Write it."", ""Again.""]"\n', "p.csv")
    assert table.requests == (Request("Write it.", "", "1"),)


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_input_takes_every_form(form: str, tmp_path: Path) -> None:
    rows = [
        {"question": "What is 1, 2?", "answer": "it, that", "id": "a"},
        {"question": "Why?", "answer": "So", "id": "b"},
    ]
    path = tmp_path / f"x.{form}"
    if form == "parquet":
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(rows), path)
    elif form in ("csv", "tsv"):
        comma = "," if form == "csv" else "\t"
        lines = [["question", "answer", "id"], *([f'"{value}"' for value in row.values()] for row in rows)]
        path.write_text("\n".join(comma.join(line) for line in lines))
    else:
        path.write_text(json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)))
    assert read_prompts(path).requests == (Request("What is 1, 2?", "", "a"), Request("Why?", "", "b"))
    assert [(e.id, e.references) for e in read_references(path).examples] == [("a", ("it, that",)), ("b", ("So",))]
    tasks = [(task.question, task.answers) for task in read_tasks(path).tasks]
    assert tasks == [("What is 1, 2?", ("it, that",)), ("Why?", ("So",))]


@given(st.text(st.sampled_from('ab,;\t"\n #'), max_size=60))
def test_no_text_is_taken_for_both(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """What is read as plain text has as many prompts as lines: no header, and no cells."""
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(text, newline="")
    try:
        found = read_prompts(path)
    except S3LoRAError:
        return
    assert looks_like_table(text) is None
    lines = [line.strip() for line in text.split("\n")]
    assert [r.text for r in found.requests] == [line for line in lines if line and not line.startswith("#")]


def test_published_files() -> None:
    data = shared() / "data"
    strong = read_prompts(data / "strongreject_dataset.csv", kind="harmful")
    assert (len(strong), len({r.category for r in strong.requests})) == (313, 6)
    assert "forbidden" not in strong.requests[0].text
    harmbench = read_prompts(data / "harmbench_behaviors_text_all.csv")
    assert len({r.id for r in harmbench.requests}) == len(harmbench) == 400
    chosen = choices(["functionalcategory=standard"], [], ["harmful"])["harmful"]
    assert len(read_prompts(data / "harmbench_behaviors_text_all.csv", chosen)) == 200
    safe, unsafe = (read_prompts(data / "xstest_prompts.csv", kind=kind) for kind in ("benign", "harmful"))  # type: ignore[arg-type]
    assert (len(safe), len(unsafe)) == (250, 200)
    gsm = read_references(data / "gsm8k_test.jsonl")
    assert len(gsm) == 1319
    assert all(float(one.references[0].replace("$", "")) is not None and "####" in one.worked for one in gsm.examples)
    code = read_references(data / "HumanEval.jsonl.gz")
    assert len(code) == 164
    assert all("    " in one.worked and one.id.startswith("HumanEval/") for one in code.examples)
    with pytest.raises(DataFileError, match="its columns are model, id, prompt_is, opening, people"):
        read_prompts(data / "xstest_openings.jsonl")
