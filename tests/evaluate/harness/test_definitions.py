"""A YAML file is read as data: what in it would run code, fetch or unpickle is refused. lm-eval is not needed."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from s3lora.errors import UsageError
from s3lora.evaluate.harness.definitions import MAX_BYTES, Spec, read_definitions
from s3lora.evaluate.harness.package import HarnessError
from tests.evaluate.harness.local_tasks import task, write, write_tasks

METRICS = {"acc", "acc_norm", "f1", "mcc", "brier_score", "exact_match", "perplexity"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tasks(tmp_path / "tasks")


def read(path: Path) -> tuple[str, list[Spec]]:
    return read_definitions(path, METRICS.__contains__)


def test_a_task_finds_its_data_beside_itself(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, [told] = read(folder / "choices.yaml")
    assert isinstance(told, dict)
    assert name == told["task"] == "choices"
    assert told["dataset_kwargs"] == {"data_files": {"test": str(folder / "docs.json")}}
    assert told["metric_list"] == task("choices")["metric_list"]
    # Else in the working folder, where lm-eval looks.
    (folder / "docs.json").rename(tmp_path / "docs.json")
    monkeypatch.chdir(tmp_path)
    assert read(folder / "choices.yaml")[1][0]["dataset_kwargs"] == {  # type: ignore[index]
        "data_files": {"test": str(tmp_path / "docs.json")}
    }


def test_what_is_included_stands_behind_what_includes_it(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "docs.json").write_text("{}")
    write(folder / "inner" / "mine.yaml", {"include": "../choices.yaml", "task": "mine", "num_fewshot": 3})
    name, [told] = read(folder / "inner" / "mine.yaml")
    assert isinstance(told, dict)
    assert (name, told["task"], told["num_fewshot"], told["doc_to_choice"]) == ("mine", "mine", 3, "choices")
    assert "include" not in told


def test_groups(folder: Path) -> None:
    name, specs = read(folder / "both.yaml")
    assert (name, [told["task"] for told in specs]) == ("both", ["choices", "likely"])  # type: ignore[index]
    inner = {"group": "inner", "task": ["sums", {"task": "own", **task("likely", task="own")}]}
    write(
        folder / "outer.yaml",
        {
            "group": "outer",
            "num_fewshot": 1,
            "task": [
                "both",
                inner,
                {"task": "choices", "num_fewshot": 4},
                "elsewhere",
                {"task": "gsm8k", "repeats": 2},
            ],
        },
    )
    _, specs = read(folder / "outer.yaml")
    named = [(told["task"], told["num_fewshot"]) for told in specs if isinstance(told, dict)]
    assert named == [
        *(("choices", 1), ("likely", 1), ("sums", 1), ("own", 1)),
        *(("choices", 4), ("elsewhere", 1), ("gsm8k", 1)),
    ]
    # A task of another's that nothing is changed of is its name alone.
    write(folder / "plain.yaml", {"group": "plain", "task": ["gsm8k"]})
    assert read(folder / "plain.yaml") == ("plain", ["gsm8k"])


#: What would run code, fetch from somewhere or unpickle: the changed keys, and what is said of them.
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "class": ({"class": "os.system"}, "has the key class, which is not read from a file"),
    "process docs": ({"process_docs": "utils.f"}, "the key process_docs"),
    "process results": ({"process_results": "utils.f"}, "the key process_results"),
    "custom data": ({"custom_dataset": "utils.f"}, "the key custom_dataset"),
    "prompt": ({"use_prompt": "prompts.yaml:x"}, "the key use_prompt"),
    "images": ({"doc_to_image": "x"}, "the key doc_to_image"),
    "remote code": (
        {"dataset_kwargs": {"data_files": "docs.json", "trust_remote_code": True}},
        r"the key dataset_kwargs\.trust_remote_code",
    ),
    "storage": ({"dataset_kwargs": {"storage_options": {}}}, r"dataset_kwargs\.storage_options"),
    "custom generation": (
        {"generation_kwargs": {"custom_generate": "owner/name", "trust_remote_code": True}},
        r"the key generation_kwargs\.custom_generate",
    ),
    "few shots": ({"fewshot_config": {"process_docs": "f"}}, r"the key fewshot_config\.process_docs"),
    "script as metric": ({"metric_list": [{"metric": "./evil.py"}]}, r"the metric ./evil\.py is none of lm-eval's own"),
    "metric of evaluate": ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "the metric acc is none"),
    "metric without a name": ({"metric_list": [{"name": "acc"}]}, "the metric None is none"),
    "pickles": ({"dataset_path": "pandas"}, "takes its data from pandas; use json, csv, text, parquet, or owner/name"),
    "script of data": ({"dataset_path": "./evil.py"}, r"takes its data from ./evil\.py"),
    "folder of data": ({"dataset_path": "../tasks"}, r"takes its data from \.\./tasks"),
    "data from anywhere": (
        {"dataset_kwargs": {"data_files": {"test": "http://127.0.0.1:1/x.json"}}},
        "has data at http://127.0.0.1:1/x.json, which is no local file",
    ),
    "data in an archive": (
        {"dataset_kwargs": {"data_files": ["zip://a.json::x.zip"]}},
        "which is no local file",
    ),
    "data of a data set anywhere": (
        {"dataset_path": "owner/name", "dataset_kwargs": {"data_files": "ftp://host.test/x"}},
        "which is no local file",
    ),
    "unsafe": ({"unsafe_code": True}, "runs code that the model writes, and s3lora runs none"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_file_must_not_say(case: str, folder: Path) -> None:
    changed, says = HOSTILE[case]
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    path = write(folder / "task.yaml", task("choices", **changed))
    with pytest.raises(HarnessError, match=says):
        read(path)
    # Nor behind an include, nor in a group.
    including = write(folder / "including.yaml", {"include": "task.yaml", "task": "x"})
    group = write(folder / "group.yaml", {"group": "g", "task": ["likely", dict(task("choices", **changed))]})
    for one in (including, group):
        with pytest.raises(HarnessError, match=says):
            read(one)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "task: x\nprocess_docs: !function utils.f\n",
        "task: x\nmetric_list:\n- metric: !function utils.f\n",
        "include: [inner.yaml]\n",
        "task: !!python/object/apply:os.system ['touch ran']\n",
        "!function utils.f: 1\ntask: x\n",
    ],
)
def test_no_tag_is_followed(text: str, folder: Path) -> None:
    (folder / "utils.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\ndef f(): pass\n")
    write(folder / "inner.yaml", "task: x\nclass: !function utils.f\n")
    path = write(folder / "task.yaml", text)
    with pytest.raises(HarnessError, match=r"holds the tag \S+, and s3lora runs no code that a file names"):
        read(path)
    assert not (folder / "ran").exists()


BROKEN = {
    "no YAML": ("task: [", r"is not YAML that can be read at line \d"),
    "no text": ("\x00\x01", "is not YAML that can be read"),
    "a list": ("- task\n", "is not a task: a mapping of keys to values"),
    "numbers": ("1: 2\n", "is not a task"),
    "no name": ("dataset_path: json\n", "names neither a task nor a group; give it `task: NAME`"),
    "includes itself": ("include: task.yaml\ntask: x\n", "includes itself"),
    "includes nothing": ("include: absent.yaml\ntask: x\n", r"absent\.yaml: cannot be read \(No such file"),
    "includes a number": ("include: 3\ntask: x\n", "includes what is no file name"),
    "no group": ("group: g\n", "is a group without tasks"),
    "a group of numbers": ("group: g\ntask: [3]\n", "is a group of what is no task"),
    "a group in itself": ("group: g\ntask: [h]\n", "holds groups that hold each other"),
    "no list": ("task: x\nmetric_list: acc\n", "has no list of mappings as metric_list"),
    "no mapping": ("task: x\ndataset_kwargs: [1]\n", "has no mapping as dataset_kwargs"),
    "no file": ("task: x\ndataset_path: json\n", "reads json and names no file; give dataset_kwargs.data_files"),
    "an absent file": (
        "task: x\ndataset_path: json\ndataset_kwargs: {data_files: absent.json}\n",
        r"absent\.json: its data cannot be read \(No such file",
    ),
    "files that are none": (
        "task: x\ndataset_path: json\ndataset_kwargs: {data_files: [3]}\n",
        "has data files that are no names",
    ),
    "aliases that grow": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n" for a, b in pairwise("abcdefghi")),
        "holds too much for a task",
    ),
    "an alias of itself": ("task: &a [*a]\n", "holds too much for a task"),
    "too deep": (f"task: {'[' * 3000}{']' * 3000}\n", "YAML|too deep"),
    "too large": ("#" * (MAX_BYTES + 1), "larger than"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_files_that_are_no_tasks(case: str, folder: Path) -> None:
    text, says = BROKEN[case]
    write(folder / "h.yaml", "group: h\ntask: [g]\n")
    with pytest.raises(UsageError, match=says):
        read(write(folder / "task.yaml", text))


def test_pipes_are_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    with pytest.raises(UsageError, match="not a regular file"):
        read(folder / "pipe.yaml")
    (folder / "docs.json").unlink()
    os.mkfifo(folder / "docs.json")
    with pytest.raises(UsageError, match=r"its data cannot be read \(not a regular file"):
        read(folder / "choices.yaml")
    with pytest.raises(UsageError, match=r"is not called \.yaml"):
        read(write(folder / "task.txt", task("choices")))


def test_groups_that_multiply_end(folder: Path) -> None:
    for number in range(18):
        (folder / f"g{number}.yaml").write_text(f"group: g{number}\ntask: [g{number + 1}, g{number + 1}]\n")
    (folder / "g18.yaml").write_text("group: g18\ntask: [hellaswag]\n")
    with pytest.raises(UsageError, match="names other files more than 2,000 times"):
        read_definitions(folder / "g0.yaml", lambda name: True)
