"""Python that comes with a task is read before it is imported: does it run what a model writes?"""

from __future__ import annotations

from pathlib import Path

import pytest

from s3lora.evaluate.harness.execution import runs_code

RUNNING = [
    "exec(answer)",
    "score = eval(answer)",
    "import os\nos.system(answer)",
    "import builtins\nbuiltins.exec(answer)",
    "import subprocess",
    "from subprocess import run",
    "import pickle",
    "from sympy.parsing.sympy_parser import parse_expr",
    "import sympy\nsympy.sympify(answer)",
    "import evaluate\npass_at_k = evaluate.load('code_eval')",
    "def broken(:",
]
HARMLESS = [
    "import re\n\ndef f(doc): return re.compile(doc)",
    "model.eval()",
    "# exec(answer)\ntext = 'eval(answer)'",
    "def execute(): pass",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "utils.py").write_text("")
    return tmp_path


def config(root: Path) -> dict[str, object]:
    """Return what lm-eval's table has of a task whose metric is a function."""
    return {"task": "x", "metric_list": [{"metric": f"{root}/task/utils.f"}], "doc_to_text": "exec(x) {{q}}"}


@pytest.mark.parametrize("source", RUNNING)
def test_what_runs_a_text(source: str, root: Path) -> None:
    assert not runs_code(config(root), root)
    (root / "task" / "utils.py").write_text(source)
    assert runs_code(config(root), root)


@pytest.mark.parametrize("source", HARMLESS)
def test_what_only_looks_like_it(source: str, root: Path) -> None:
    (root / "task" / "utils.py").write_text(source)
    assert not runs_code(config(root), root)


@pytest.mark.parametrize("line", ["from grader import f", "import grader", "from lm_eval.tasks.task.grader import f"])
def test_also_in_what_it_imports(line: str, root: Path) -> None:
    (root / "task" / "utils.py").write_text(line)
    (root / "task" / "grader.py").write_text("import utils")
    assert not runs_code(config(root), root)
    (root / "task" / "grader.py").write_text("exec(answer)")
    assert runs_code(config(root), root)


def test_the_mark_and_what_names_no_file(root: Path) -> None:
    assert runs_code({"task": "x", "unsafe_code": True}, root)
    assert not runs_code({"task": "x", "doc_to_text": "/a/b.c", "process_docs": "/no/such/module.f"}, root)
