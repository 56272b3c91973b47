"""`--where` and `--prompt-field`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s3lora.errors import UsageError
from s3lora.evaluate.data.choice import RowChoice, RowCondition, choices
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.prompts import read_prompts
from s3lora.evaluate.suites import SuiteSettings

ROWS = [
    {"prompt": "a", "Label": "unsafe", "tags": ["x", "y"], "n": 1, "is_safe": False, "of": {"theft": True}},
    {"prompt": "b", "Label": "safe", "tags": [], "n": 2, "is_safe": True, "of": {"theft": False}},
    {"prompt": "c", "Label": "Unsafe ", "tags": ["y"], "n": 3, "is_safe": None, "of": {}},
    {"prompt": "d", "Label": "", "n": 4},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    return file


@pytest.mark.parametrize(
    ("where", "texts"),
    [
        (["label=unsafe"], "ac"),
        (["LABEL = unsafe"], "ac"),
        (["label!=unsafe"], "bd"),
        (["label="], "d"),
        (["label!="], "abc"),
        (["tags=x"], "a"),
        (["tags=y"], "ac"),
        (["tags!=y"], "bd"),
        (["n=2"], "b"),
        (["n=1", "n=2"], "ab"),
        (["n!=1", "n!=2"], "cd"),
        (["n!=1", "label=unsafe"], "c"),
        (["is_safe=false"], "a"),
        (["is_safe=True"], "b"),
        (["of.theft=true"], "a"),
        (["prompt=a"], "a"),
    ],
)
def test_conditions(where: list[str], texts: str, path: Path) -> None:
    found = read_prompts(path, choices(where, [], ["harmful"])["harmful"])
    assert "".join(r.text for r in found.requests) == texts
    # What was asked for is in the report.
    assert found.notes[0].startswith("p.jsonl: only rows with ")


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        (["labl=safe"], r"p\.jsonl: has no column labl; its columns are prompt, Label, tags, n, is_safe, of; where"),
        (["labl!=safe"], "has no column labl"),
        (["label=toxic"], r"has no row with label=toxic: label is unsafe, safe, Unsafe, \"\"; where takes one"),
        (["n=1", "label=safe"], "has no row with n=1 and label=safe: n is 1, 2, 3, 4; label is"),
        (["of.arson=true"], "has no row with of.arson=true"),
    ],
)
def test_conditions_that_leave_nothing(where: list[str], problem: str, path: Path) -> None:
    with pytest.raises(DataFileError, match=problem):
        read_prompts(path, choices(where, [], ["harmful"])["harmful"])


def test_many_values_are_not_all_listed(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,n\n" + "".join(f"a,{n}\n" for n in range(3_000)))
    with pytest.raises(DataFileError) as caught:
        read_prompts(tmp_path / "p.csv", choices(["n=x"], [], ["harmful"])["harmful"])
    assert len(str(caught.value)) < 500


def test_an_option_is_for_one_input_or_for_all() -> None:
    found = choices(
        ["label=unsafe", "benign:label=safe", "tasks!=1"], ["harmful:wording", "benign:text"], ["harmful", "benign"]
    )
    for_all = (RowCondition("label", "unsafe"), RowCondition("tasks", "1", False))
    assert found["harmful"] == RowChoice("wording", for_all)
    assert found["benign"] == RowChoice("text", (for_all[0], RowCondition("label", "safe"), for_all[1]))


@pytest.mark.parametrize(
    ("where", "fields", "problem"),
    [
        (["label"], [], "where=label cannot be read; write COLUMN=VALUE"),
        (["=safe"], [], "where==safe cannot be read"),
        (["tasks:a=b"], [], "where=tasks:a=b does nothing without tasks="),
        ([], ["tasks:q"], "prompt_fields=tasks:q does nothing without tasks="),
        ([], [" "], "names no column"),
        ([], ["a", "b"], "names no column, or a second one for harmful"),
    ],
)
def test_options_that_cannot_be_meant(where: list[str], fields: list[str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        choices(where, fields, ["harmful"])


def test_settings_refuse_what_is_for_no_file() -> None:
    for settings in ({"where": ("a=b",)}, {"prompt_fields": ("a",)}):
        with pytest.raises(UsageError, match="does nothing without a file of one's own"):
            SuiteSettings(**settings)  # type: ignore[arg-type]
    settings = SuiteSettings(harmful="x.csv", where=("a=b",))
    assert settings.choice("harmful").conditions == (RowCondition("a", "b"),)
    assert settings.choice("benign") == RowChoice()
