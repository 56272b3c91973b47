"""Tasks in the form of lm-evaluation-harness, with their data in JSON, as a user writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

#: Questions with three choices; the answers are found in words of several lengths.
DOCS = [
    {
        "q": f"What is {i} + {2 * i}?",
        "choices": [str(3 * i), f"{3 * i + 1}, perhaps", "I do not know"],
        "answer": i % 3,
        "sum": str(3 * i),
    }
    for i in range(24)
]
COMMON: dict[str, Any] = {
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "docs.json"}},
    "test_split": "test",
    "doc_to_text": "Question: {{q}}\nAnswer:",
}
TASKS: dict[str, dict[str, Any]] = {
    "choices": {
        "output_type": "multiple_choice",
        "doc_to_target": "answer",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "mcc"}, {"metric": "brier_score"}],
    },
    "sums": {
        "output_type": "generate_until",
        "doc_to_target": "{{sum}}",
        "num_fewshot": 2,
        "generation_kwargs": {"until": ["\n", "e"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
        "filter_list": [
            {"name": name, "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}]}
            for name, pattern in (("any", "([a-z0-9])"), ("strict", r"(\d+)"))
        ],
    },
    "likely": {
        "output_type": "loglikelihood",
        "doc_to_target": " {{sum}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{q}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
    },
}  # fmt: skip


def task(name: str, **changed: Any) -> dict[str, Any]:
    """Return a task, with keys changed, or left out by None."""
    told = {"task": name, **COMMON, **TASKS[name], **changed}
    return {key: value for key, value in told.items() if value is not None}


def write(path: Path, told: Any) -> Path:
    path.write_text(told if isinstance(told, str) else yaml.safe_dump(told, sort_keys=False))
    return path


def write_tasks(folder: Path) -> Path:
    """Write every task as NAME.yaml, a group `both` and their data, and return the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "docs.json").write_text("\n".join(map(json.dumps, DOCS)))
    for name in TASKS:
        write(folder / f"{name}.yaml", task(name))
    write(folder / "both.yaml", {"group": "both", "task": ["choices", "likely"]})
    return folder
