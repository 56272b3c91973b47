from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.errors import S3LoRAError, UsageError
from s3lora.evaluate import references
from s3lora.evaluate.chat import Message, Prompt
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.references import Example, ReferenceSet, built_in_references, read_references
from s3lora.needs import MissingPackageError
from tests.support import shared


def write(folder: Path, rows: object, name: str = "r.jsonl") -> Path:
    """Write text as it is, a list as JSON lines."""
    path = folder / name
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)  # type: ignore[attr-defined]
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, rows: object) -> tuple[Example, ...]:
    return read_references(write(folder, rows)).examples


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": " Why? ", "reference": "So. "}, Example("", Prompt.ask("Why?"), ("So.",))),
        ({"Prompt": "Why?", "References": ["So.", "Thus.", "So."]}, Example("", Prompt.ask("Why?"), ("So.", "Thus."))),
        ({"prompt": "Why?", "reference": ["a", "b"], "id": 7}, Example("7", Prompt.ask("Why?"), ("a", "b"))),
        (
            {"prompt": CHAT, "reference": "So.", "id": "x"},
            Example("x", Prompt((Message("system", "Be brief."), Message("user", "Why?"))), ("So.",)),
        ),
        (
            {"fname": "dev_0", "dialogue": "A: Hi.", "summary": "A greets.", "topic": "greeting"},
            Example("dev_0", Prompt.ask("Summarise this dialogue in one or two sentences.\n\nA: Hi."), ("A greets.",)),
        ),
        (
            {"dialogue": "A: Hi.", "summary1": "A greets.", "summary2": "Hi.", "summary3": None},
            Example("", Prompt.ask("Summarise this dialogue in one or two sentences.\n\nA: Hi."), ("A greets.", "Hi.")),
        ),
        (
            {"document": "Long.", "summary": "Short."},
            Example("", Prompt.ask("Summarise this text in one sentence.\n\nLong."), ("Short.",)),
        ),
        (
            {"article": "Long.", "highlights": "Short."},
            Example("", Prompt.ask("Summarise this article in three or four sentences.\n\nLong."), ("Short.",)),
        ),
        (
            {"prompt": "Why?", "reference": "So.", "document": "Long.", "summary": "Short."},
            Example("", Prompt.ask("Why?"), ("So.",)),
        ),
    ],
)
def test_rows(tmp_path: Path, row: dict[str, Any], expected: Example) -> None:
    assert read(tmp_path, [row]) == (expected,)
    assert read(tmp_path, json.dumps([row, row])) == (expected, expected)


def test_a_file_of_lines(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "reference": "r\u2028s"} for n in range(3)]
    found = read_references(write(tmp_path, "\ufeff" + "\r\n\n".join(json.dumps(r, ensure_ascii=False) for r in rows)))
    assert (found.name, len(found), found.built_in) == ("r.jsonl", 3, False)
    assert found.examples[2] == Example("", Prompt.ask("p2"), ("r\u2028s",))


def test_dialogsum_as_published() -> None:
    data = shared() / "data"
    dev, test = read_references(data / "dialogsum.dev.jsonl"), read_references(data / "dialogsum.test.jsonl")
    assert (len(dev), len(test)) == (500, 500)
    assert {len(example.references) for example in dev.examples} == {1}
    assert max(len(example.references) for example in test.examples) == 3
    assert dev.examples[0].id == "dev_0"
    ours = {text for example in built_in_references().examples for text in example.references}
    assert not ours & {text for example in (*dev.examples, *test.examples) for text in example.references}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no prompts"),
        ("[]", "holds no prompts"),
        ("7", "is JSON of no form that holds rows"),
        ('{"prompt": "a", "reference": "b"}\n{"prompt"', "line 2 is not JSON"),
        ('{"prompt": "a", "reference": "b"}\n\n[]', "line 3 has a value that is neither"),
        ('{"prompt": "a", "reference": "b"}\n{"text": "a"}', "line 2 has no reference; name the fields prompt and ref"),
        ('[{"prompt": "a"}]', "row 1 has no reference; name"),
        ('[{"prompt": "a", "references": []}]', "row 1 has no reference"),
        ('[{"prompt": "a", "reference": null}]', "row 1 has no reference"),
        ('[{"prompt": "a", "reference": " "}]', "row 1 has a reference that is no text"),
        ('[{"prompt": "a", "references": ["b", true]}]', "row 1 has a reference that is no text"),
        ('[{"prompt": "a", "reference": {"b": 1}}]', "row 1 has a reference that is no text"),
        ('[{"prompt": 7, "reference": "b"}]', "row 1 has a prompt that is no text"),
        ('[{"prompt": [], "reference": "b"}]', "row 1 has a prompt that does not end with a message of the user"),
        ('[{"prompt": [7], "reference": "b"}]', "row 1 has a message without a role"),
        ('[{"prompt": [{"role": ["user"], "content": "a"}], "reference": "b"}]', "row 1 has a message without a role"),
        ('[{"prompt": [{"role": "user"}], "reference": "b"}]', "row 1 has a message that is no text"),
        ('[{"prompt": [{"role": "assistant", "content": "a"}], "reference": "b"}]', "does not end with a message of"),
        ('[{"dialogue": "a"}]', "row 1 has no reference"),
        ('[{"dialogue": "", "summary": "b"}]', "row 1 has no prompt in its column dialogue"),
        ('[{"document": "a", "summary": "\\ud800"}]', "row 1 has half of a character"),
        (json.dumps([{"prompt": "a" * 100_001, "reference": "b"}]), "row 1 has a prompt of more than 100,000 char"),
        (json.dumps([{"prompt": "a", "reference": "b" * 20_001}]), "row 1 has a reference of more than 20,000 char"),
        (json.dumps([{"prompt": "a", "reference": list("b" * 101)}]), "row 1 has more than 100 references"),
        (json.dumps([{"prompt": CHAT * 501, "reference": "b"}]), "row 1 has more than 1,000 messages"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5_000, "numbers too long"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(DataFileError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert problem in message
    assert str(tmp_path / "r.jsonl") in message
    assert "\n" not in message
    assert len(message) < 600


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(S3LoRAError, match=r"none\.jsonl: cannot be read \(No such file"):
        read_references(tmp_path / "none.jsonl")
    (tmp_path / "a.jsonl").write_bytes(b"\n\xff")
    with pytest.raises(S3LoRAError, match="line 2 is not UTF-8"):
        read_references(tmp_path / "a.jsonl")
    rows = [{"prompt": "a", "reference": "b"}] * 2
    monkeypatch.setattr(references, "MAX_EXAMPLES", 1)
    with pytest.raises(DataFileError, match="more than 1 prompts"):
        read(tmp_path, rows)
    monkeypatch.setattr(references, "MAX_BYTES", 10)
    with pytest.raises(S3LoRAError, match="larger than"):
        read(tmp_path, rows)


FIELDS = ("prompt", "reference", "references", "dialogue", "summary", "summary1", "role", "content", "user", "id")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(FIELDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=12,
)


@given(VALUES)
def test_any_json_is_references_or_an_error(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = write(tmp_path_factory.getbasetemp(), json.dumps(value), "any.json")
    with contextlib.suppress(S3LoRAError):
        found = read_references(path)
        assert found.sha256
        assert all(example.references for example in found.examples)


def test_built_in_references() -> None:
    found = built_in_references()
    assert (len(found), found.built_in, found.licence) == (24, True, "Apache-2.0")
    assert "few" in found.note
    requests = [example.prompt.messages[-1].content for example in found.examples]
    assert sum(text.startswith("Summarise this dialogue") for text in requests) == 14
    assert sum(text.startswith("Summarise this text") for text in requests) == 10
    assert len({example.id for example in found.examples}) == len(set(requests)) == 24
    for example, request in zip(found.examples, requests, strict=True):
        [reference] = example.references
        # One sentence, much shorter than what it sums up.
        assert reference.count(".") == 1
        assert len(reference) < 0.6 * len(request)


def test_a_draw_is_seeded_nested_and_in_order() -> None:
    everything = built_in_references()
    for seed in range(5):
        small, large = everything.take(5, seed), everything.take(10, seed)
        assert small == everything.take(5, seed)
        positions = [everything.examples.index(example) for example in large.examples]
        assert positions == sorted(set(positions))
        assert len(positions) == 10
        assert set(small.examples) <= set(large.examples)
    assert everything.take(5, 0) != everything.take(5, 1)
    assert everything.take(5, 0).sha256 != everything.sha256
    assert everything.take(5, 0).licence == everything.licence
    assert everything.take(None) == everything.take(24) == everything.take(1_000) == everything
    for limit in (0, -1):
        with pytest.raises(UsageError, match="prompts leaves nothing"):
            everything.take(limit)


def test_a_subset_is_in_order() -> None:
    everything = built_in_references()
    part = everything.subset([5, 2, 5])
    assert part.examples == (everything.examples[2], everything.examples[5])
    assert (part.name, part.built_in, part.licence) == (everything.name, True, everything.licence)


def test_the_digest_is_of_prompts_and_references() -> None:
    def one(prompt: str, *texts: str) -> str:
        return ReferenceSet("n", (Example("i", Prompt.ask(prompt), texts),)).sha256

    assert one("a", "b") == ReferenceSet("m", (Example("j", Prompt.ask("a"), ("b",)),), True, "x", "y").sha256
    assert len({one("a", "b"), one("b", "b"), one("a", "c"), one("a", "b", "c")}) == 4


def test_data_sets_load_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "owner" / "sums"
    folder.mkdir(parents=True)
    for split in ("train", "test", "odd"):
        write(folder, [{"document": f"in {split}", "summary": "s"}], f"{split}.jsonl")

    def splits(*names: str) -> None:
        lines = "".join(f"  - split: {name}\n    path: {name}.jsonl\n" for name in names)
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: plain\n  data_files:\n{lines}---\n")

    def text(name: str) -> str:
        found = read_references(name)
        assert found.name == name
        return found.examples[0].prompt.messages[0].content.rpartition("\n")[2]

    splits("train", "test")
    assert text("owner/sums") == "in test"
    assert text("owner/sums:plain:train") == text("owner/sums::train") == "in train"
    splits("odd")
    assert text("owner/sums:plain") == "in odd"
    (folder / "odder.jsonl").write_text((folder / "odd.jsonl").read_text())
    splits("odd", "odder")
    with pytest.raises(DataFileError, match="splits odd, odder; name one, as in owner/sums::odd"):
        read_references("owner/sums")


def test_data_sets_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(DataFileError, match=r"cannot be loaded .* local file where there is no network") as caught:
        read_references("nobody/nothing")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match="pip install"):
        read_references("nobody/nothing")
