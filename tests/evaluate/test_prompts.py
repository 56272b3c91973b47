from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.errors import S3LoRAError, UsageError
from s3lora.evaluate import prompts
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.prompts import (
    Completion,
    PromptSet,
    Request,
    built_in,
    harmbench,
    jailbreakbench,
    read_prompts,
)
from s3lora.needs import MissingPackageError
from tests.examples import examples
from tests.support import shared


def read(tmp_path: Path, content: str | bytes, name: str = "p") -> PromptSet:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_prompts(path)


ADVBENCH = 'goal,target\nPick a lock,"Sure, here"\n"Pick, then ""open"" it",Sure\n'
HARMBENCH = (
    "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
    "Pick a lock,standard,illegal,,,pick_lock\n"
    'Explain it,contextual,illegal,context,"A lock\nhas pins.",explain\n'
)
HARMBENCH_JSON = {"pick_lock": [{"test_case": "Pick a lock", "generation": "No.", "label": 0}, "Open it"]}
JBB_CSV = "Index,Goal,Target,Behavior,Category,Source\n7,Pick a lock,Sure,Lock picking,Theft,Original\n"
JBB_ROW = {"index": 0, "goal": "Pick a lock", "behavior": "Lock picking", "category": "Theft", "prompt": None}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (ADVBENCH, [Request("Pick a lock"), Request('Pick, then "open" it')]),
        (ADVBENCH.replace("\n", "\n\n"), [Request("Pick a lock"), Request('Pick, then "open" it')]),
        (ADVBENCH.replace("\n", "\r\n"), [Request("Pick a lock"), Request('Pick, then "open" it')]),
        ("\ufeff" + ADVBENCH, [Request("Pick a lock"), Request('Pick, then "open" it')]),
        (
            HARMBENCH,
            [
                Request("Pick a lock", "illegal", "pick_lock"),
                Request("A lock\nhas pins.\n\n---\n\nExplain it", "illegal", "explain"),
            ],
        ),
        (json.dumps(HARMBENCH_JSON), [Request("Pick a lock", "", "pick_lock"), Request("Open it", "", "pick_lock")]),
        (JBB_CSV, [Request("Pick a lock", "Theft", "Lock picking")]),
        (json.dumps({"parameters": {}, "jailbreaks": [JBB_ROW]}), [Request("Pick a lock", "Theft", "Lock picking")]),
        (json.dumps([{**JBB_ROW, "prompt": "Please"}]), [Request("Please", "Theft", "Lock picking")]),
        (json.dumps(JBB_ROW, indent=1), [Request("Pick a lock", "Theft", "Lock picking")]),
        ('\n{"instruction": "a\u2028b", "id": 3}\n\n{"prompt": "b"}\r\n', [Request("a\u2028b", "", "3"), Request("b")]),
        ('["a", {"behavior": "Pick", "id": 3}]', [Request("a"), Request("Pick", "", "3")]),
        ("# mine\nPick a lock\r\n\n  Open, it  \n", [Request("Pick a lock"), Request("Open, it")]),
        ("[INST] hello\n{name}, hello\n", [Request("[INST] hello"), Request("{name}, hello")]),
    ],
)
def test_formats_are_told_from_their_content(tmp_path: Path, content: str, expected: list[Request]) -> None:
    assert list(read(tmp_path, content).requests) == expected


def test_advbench_as_published() -> None:
    found = read_prompts(shared() / "data" / "advbench_harmful_behaviors.csv")
    assert (found.name, len(found), found.built_in) == ("advbench_harmful_behaviors.csv", 520, False)
    assert all(r.text and not r.category and not r.id for r in found.requests)
    ours = {r.text.lower().rstrip(".") for r in built_in("harmful").requests}
    assert not ours & {r.text.lower().rstrip(".") for r in found.requests}


def test_instructions_as_published() -> None:
    found = read_prompts(shared() / "data" / "seed_tasks.jsonl")
    assert len(found) == 175
    assert found.requests[0].id == "seed_task_0"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds no prompts"),
        ("# only\n\n# comments\n", "holds no prompts"),
        ("goal,target\n", "holds no prompts"),
        (b"good\nb\xe9d\n", "line 2 is not UTF-8"),
        ("goal,target\na,b\nc, d, e\n", "line 3 has more cells"),
        ("goal,target\na,b\n,e\n", "line 3 has no prompt"),
        ('goal,target\na,b\n"c,d\n\n', "line 3 is not CSV"),
        ('goal,target\n"a\na",b\n"c"d,e\n', "line 4 is not CSV"),
        ('goal,"target\na,b\n', "line 1 is not CSV"),
        ("goal,target\n" + "x" * 200_000 + ",y\n", "line 2 is not CSV"),
        ('{"goal": "a"}\n{"goal": \n', "line 2 is not JSON"),
        ('{"goal": "a"}\n{"target": "b"}\n', "line 2 has no prompt"),
        ('{"goal": "a"}\n{"goal": 3}\n', "line 2 has a prompt that is no text"),
        ('{"goal": "a"}\n7\n', "line 2 has a value that is neither a text nor an object"),
        ('{"goal": "a",\n "b": }', "line 2 is not JSON"),
        ('{"weights": {"a": 1}}', "row 1 has no prompt; its columns are weights; name the column"),
        ('{"a": [{"generation": "x"}]}', "a, case 1 has no prompt"),
        ('["a", "  "]', "row 2 has a prompt that is no text"),
        (r'["\ud800"]', "row 1 has half of a character"),
        ("[" * 100_000, "nested too deeply"),
        ('["a", ' + "1" * 10_000 + "]", "numbers too long"),
        ("x" * 100_001, "more than 100,000 characters"),
    ],
)
def test_bad_files_are_named_by_line(tmp_path: Path, content: str | bytes, problem: str) -> None:
    with pytest.raises(DataFileError) as caught:
        read(tmp_path, content)
    message = str(caught.value)
    assert problem in message
    assert str(tmp_path / "p") in message
    assert "\n" not in message
    assert len(message) < 600


def test_what_is_read_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MAX_PROMPTS", 3)
    assert len(read(tmp_path, "a\nb\nc\n")) == 3
    with pytest.raises(DataFileError, match="more than 3 prompts"):
        read(tmp_path, "a\nb\nc\nd\n")
    monkeypatch.setattr(prompts, "MAX_BYTES", 2**20)
    with pytest.raises(DataFileError, match="larger than 1,048,576 bytes"):
        read(tmp_path, "a\n" * 2**19 + "b")


@pytest.mark.parametrize("name", ["none.csv", "no/such.csv", "no/such.JSONL", ".", "a/b/c", "x" * 5_000, "a\0b"])
def test_a_file_that_is_not_there(name: str) -> None:
    with pytest.raises(DataFileError):
        read_prompts(name)


@settings(max_examples=examples(300))
@given(
    st.one_of(
        st.binary(max_size=80),
        st.text(max_size=80).map(lambda t: t.encode("utf-8", "surrogatepass")),
        st.text('{}[]",:\n ae0\\u', max_size=40).map(str.encode),
        st.text('goal,"\n\r\0x', max_size=30).map(lambda t: ("goal,id\n" + t).encode()),
    )
)
def test_no_file_raises_anything_else(tmp_path: Path, content: bytes) -> None:
    try:
        found = read(tmp_path, content)
    except S3LoRAError:
        return
    assert all(request.text.strip() == request.text != "" for request in found.requests)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)


@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_what_is_written_is_read_again(tmp_path: Path, texts: list[str]) -> None:
    requests = [Request(text, "kind", f"id{n}") for n, text in enumerate(texts)]
    done = [Completion(request, "said: " + request.text, n % 2 == 0) for n, request in enumerate(requests)]
    plain = [Request(request.text, "", request.id) for request in requests]
    assert list(read(tmp_path, harmbench(done)).requests) == plain
    assert list(read(tmp_path, jailbreakbench(done)).requests) == requests
    lines = "".join(json.dumps({"prompt": text}, ensure_ascii=False) + "\n" for text in texts)
    assert read(tmp_path, lines).sha256 == read(tmp_path, harmbench(done)).sha256


def test_written_forms() -> None:
    done = [
        Completion(Request("Pick", "theft", "lock"), "No.", False),
        Completion(Request("Open", "theft", "lock"), "Sure", True),
        Completion(Request("Other"), "", True),
    ]
    cases = json.loads(harmbench(done))
    assert cases["lock"] == [
        {"test_case": "Pick", "generation": "No.", "label": 0},
        {"test_case": "Open", "generation": "Sure", "label": 1},
    ]
    assert len(cases) == 2
    rows = json.loads(jailbreakbench(done))["jailbreaks"]
    assert [(r["index"], r["goal"], r["behavior"], r["response"], r["jailbroken"]) for r in rows] == [
        (0, "Pick", "lock", "No.", False),
        (1, "Open", "lock", "Sure", True),
        (2, "Other", "", "", True),
    ]


def test_built_in_prompts() -> None:
    harmful, benign = built_in("harmful"), built_in("benign")
    assert (len(harmful), len(benign)) == (48, 48)
    assert harmful.built_in
    assert benign.built_in
    assert len({r.category for r in harmful.requests}) == 10
    assert sorted(r.category for r in benign.requests) == ["everyday"] * 24 + ["look-alike"] * 24
    everything = [*harmful.requests, *benign.requests]
    assert len({r.text for r in everything}) == len({r.id for r in everything}) == 96
    assert all(len(r.text) < 100 and "\n" not in r.text for r in everything)


def test_a_draw_is_seeded_nested_and_in_order() -> None:
    everything = built_in("harmful")
    order = {request: n for n, request in enumerate(everything.requests)}
    for seed in range(5):
        small, large = everything.take(10, seed), everything.take(20, seed)
        assert small == everything.take(10, seed)
        assert len(small) == 10
        assert set(small.requests) <= set(large.requests)
        positions = [order[request] for request in large.requests]
        assert positions == sorted(set(positions))
    assert everything.take(10, 0) != everything.take(10, 1)
    assert everything.take(10, 0).sha256 != everything.sha256
    assert everything.take(None) is everything.take(48) is everything.take(1000) is everything
    for limit in (0, -1):
        with pytest.raises(UsageError):
            everything.take(limit)


def test_data_sets_load_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "owner" / "bench"
    folder.mkdir(parents=True)
    (folder / "harmful.csv").write_text(JBB_CSV)
    (folder / "benign.csv").write_text(JBB_CSV.replace("Pick", "Paint"))
    header = "---\nconfigs:\n- config_name: behaviors\n  data_files:\n"
    splits = "".join(f"  - split: {s}\n    path: {s}.csv\n" for s in ("harmful", "benign"))
    (folder / "README.md").write_text(f"{header}{splits}---\n")
    found = read_prompts("owner/bench:behaviors:benign")
    assert found == PromptSet("owner/bench:behaviors:benign", (Request("Paint a lock", "Theft", "Lock picking"),))
    with pytest.raises(DataFileError, match="splits harmful, benign; name one, as in owner/bench::harmful"):
        read_prompts("owner/bench")


def test_data_sets_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(DataFileError, match=r"cannot be loaded .* local file where there is no network") as caught:
        read_prompts("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_data_sets_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match="pip install"):
        read_prompts("nobody/nothing")
