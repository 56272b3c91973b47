"""Blocks of the documentation that are not run: each is held against the program that it is for, by its language.

`sh` is what a reader types outside of s3lora: it must be a shell's syntax, and each program and what it is given must
exist. `yaml` and `toml` are files for others, and are validated by the schema of the one whose keys they have.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from s3lora.errors import S3LoRAError
from s3lora.evaluate.harness.definitions import read_definitions
from s3lora.gate.policy import OWN_FILE, SHARED_FILE, read_policy
from tests import vendored
from tests.pages import ROOT, Block, read_blocks
from tests.program import parsed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+|\.)(?:\[(?P<extras>[\w,-]+)\])?(?:==(?P<version>[\w.]+))?")


def check_shell(block: Block) -> None:
    """Fail unless every command of a block could be typed: its program, targets, files, extras and pins exist."""
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, f"{block.where}: {done.stderr}"
    for words in shell_commands(block.text):
        program, arguments = words[0], words[1:]
        assert program != "s3lora", f"{block.where}: nobody runs {shlex.join(words)}; mark the block as ```console"
        if program in PROGRAMS:
            PROGRAMS[program](block, arguments)
        elif "/" in program:
            assert program.startswith(".venv/") or (ROOT / program).is_file(), f"{block.where}: there is no {program}"
        else:
            known = shutil.which(program) or canonical(program) in installed_by(block)
            assert known, f"{block.where}: no program {program}; show first how it is installed by pip"


def shell_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command, without assignments before it."""
    joined = text.replace("\\\n", " ")
    for line in re.split(r"\n|&&|\|\||;", joined):
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words.pop(0)
        if words:
            yield words


def canonical(name: str) -> str:
    """Return the name of a distribution, however it is spelled."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_by(block: Block) -> set[str]:
    """Return the distributions that the page of a block tells to install."""
    found = set()
    for other in read_blocks(block.page):
        if other.language == "sh":
            for words in shell_commands(other.text):
                if words[0] == "pip":
                    found |= {canonical(match["name"]) for word in words[2:] if (match := REQUIREMENT.match(word))}
    return found


def _make(block: Block, arguments: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [word for word in arguments if "=" not in word]
    assert set(named) <= set(targets), f"{block.where}: make knows {', '.join(targets)}"


def _pip(block: Block, arguments: list[str]) -> None:
    assert arguments[0] in ("install", "wheel"), f"{block.where}: pip {arguments[0]}?"
    pins = dict(re.findall(r"([\w-]+)==([\w.]+)", (ROOT / "Makefile").read_text(encoding="utf-8")))
    for word in (word for word in arguments[1:] if not word.startswith("-")):
        match = REQUIREMENT.fullmatch(word)
        assert match is not None, f"{block.where}: pip takes no {word}"
        if match["name"] in (PROJECT["name"], "."):
            unknown = {*(match["extras"] or "").split(",")} - {"", *PROJECT["optional-dependencies"]}
            assert not unknown, f"{block.where}: there is no extra {unknown}"
        elif match["version"]:
            assert pins.get(match["name"]) == match["version"], f"{block.where}: the Makefile installs another {word}"


def _python(block: Block, arguments: list[str]) -> None:
    if arguments[0] == "-m":
        # As Python would find it at the root of the checkout, without importing what is on the way.
        module = ROOT.joinpath(*arguments[1].split("."))
        there = module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()
        assert there or find_spec(arguments[1].split(".")[0]), f"{block.where}: there is no module {arguments[1]}"
        assert there or not module.parent.is_dir() or "." not in arguments[1], f"{block.where}: no {arguments[1]}"
        files = [word for word in arguments[2:] if re.fullmatch(r"[\w/]+\.py", word)]
    else:
        files = arguments[:1]
    for name in files:
        assert (ROOT / name).is_file(), f"{block.where}: there is no {name}"


def _script(block: Block, arguments: list[str]) -> None:
    assert (ROOT / arguments[0]).is_file(), f"{block.where}: there is no {arguments[0]}"


PROGRAMS: dict[str, Callable[[Block, list[str]], None]] = {
    "make": _make,
    "pip": _pip,
    "python": _python,
    ".venv/bin/python": _python,
    "bash": _script,
}


def check_text(block: Block) -> None:
    """Fail if a block that only shows something holds a command."""
    for line in block.lines:
        stray = re.match(r"(\$ |s3lora |pip |python |make )", line)
        assert stray is None, f"{block.where}: nobody runs {line!r}; mark the block as ```console or ```sh"


def check_json(block: Block) -> None:
    """Fail unless the block is JSON."""
    try:
        json.loads(block.text)
    except ValueError as error:
        raise AssertionError(f"{block.where}: {error}") from None


def check_toml(block: Block) -> None:
    """Fail unless the block is a policy that s3lora reads."""
    try:
        content = tomllib.loads(block.text)
    except tomllib.TOMLDecodeError as error:
        raise AssertionError(f"{block.where}: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / (SHARED_FILE if "tool" in content else OWN_FILE)
        file.write_text(block.text, encoding="utf-8")
        try:
            read_policy(file)
        except S3LoRAError as error:
            raise AssertionError(f"{block.where}: {error}") from None


def schema_of(content: Any) -> str | None:
    """Return the schema of what a YAML file is for, by its keys; None for a pre-commit configuration, which has none.

    A file that nobody knows fails.
    """
    if isinstance(content, dict):
        if "repos" in content:
            return None
        for key, schema in (("jobs", "github-workflows"), ("runs", "github-actions")):
            if key in content:
                return schema
        if any(isinstance(job, dict) and "script" in job for job in content.values()):
            return "gitlab-ci"
    raise AssertionError("nobody knows what file this is")


def _configures_pre_commit(text: str) -> None:
    """Fail unless pre-commit takes the text for a configuration."""
    pytest.importorskip("pre_commit")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / ".pre-commit-config.yaml"
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "pre_commit", "validate-config", file]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check_yaml(block: Block) -> None:
    """Fail unless a block is a workflow, an action, a task or a pre-commit configuration, and what it calls exists."""
    yaml = pytest.importorskip("ruamel.yaml")
    try:
        content = yaml.YAML(typ="safe", pure=True).load(block.text)
        if "output_type" in content:
            _check_task(block, content)
            return
        schema = schema_of(content)
        if schema is None:
            _configures_pre_commit(block.text)
        else:
            vendored.check(block.text, schema)
    except (yaml.error.YAMLError, jsonschema.ValidationError, AssertionError) as error:
        raise AssertionError(f"{block.where}: {error}") from None
    jobs = list((content.get("jobs") or content).values())
    for job in (job for job in jobs if isinstance(job, dict)):
        for script in (*(step.get("run", "") for step in job.get("steps", ())), *job.get("script", ())):
            _check_script(block, script)
        for step in job.get("steps", ()):
            _check_action(block, step)
    for repository in content.get("repos", ()):
        _check_hooks(block, repository)


def _check_task(block: Block, content: dict[str, Any]) -> None:
    """Fail unless a task of lm-evaluation-harness is one that we read."""
    with tempfile.TemporaryDirectory() as folder:
        for name in content["dataset_kwargs"]["data_files"].values():
            (Path(folder) / name).touch()
        path = Path(folder) / "task.yaml"
        path.write_text(block.text)
        try:
            read_definitions(path, lambda _: True)
        except S3LoRAError as error:
            raise AssertionError(f"{block.where}: {error}") from None


def _check_script(block: Block, script: str) -> None:
    """Fail unless the commands of s3lora in a script can be parsed."""
    for words in shell_commands(script):
        if words[0] == "s3lora":
            try:
                with parsed(words[1:]):
                    pass
            except click.ClickException as error:
                raise AssertionError(f"{block.where}: {error.message}") from None


def _check_action(block: Block, step: dict[str, Any]) -> None:
    """Fail unless our action knows the inputs that a step gives it."""
    if re.search(r"(^|/)s3lora@|^\./$", step.get("uses", "")):
        yaml = pytest.importorskip("ruamel.yaml")
        action = yaml.YAML(typ="safe", pure=True).load((ROOT / "action.yml").read_text(encoding="utf-8"))
        unknown = set(step.get("with", {})) - set(action["inputs"])
        assert not unknown, f"{block.where}: the action has no input {unknown}"


def _check_hooks(block: Block, repository: dict[str, Any]) -> None:
    """Fail unless our hooks are called by their names."""
    if repository["repo"].removesuffix(".git").endswith("s3lora"):
        known = re.findall(r"^- id: *([\w-]+)", (ROOT / ".pre-commit-hooks.yaml").read_text(), re.MULTILINE)
        named = [hook["id"] for hook in repository["hooks"]]
        assert set(named) <= set(known), f"{block.where}: the hooks are {known}"


CHECKS: dict[str, Callable[[Block], None]] = {
    "sh": check_shell,
    "text": check_text,
    "json": check_json,
    "toml": check_toml,
    "yaml": check_yaml,
}
