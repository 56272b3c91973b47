"""What is no regular file, in the place of every file that any command reads or writes: an error, and no waiting.

A pipe without a writer makes whoever opens it wait, for ever and beyond SIGTERM where a library written in C does it.
So the commands run in a process of their own, which tells what it begins and can be killed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from s3lora.cli.main import cli, run
from tests.command import environment
from tests.hostile import bad_files as bad

for package in ("pyarrow", "duckdb"):
    pytest.importorskip(package)

#: Seconds for all cases of one command, after which one of them hangs.
PATIENCE = 300
#: What a parameter names, by its metavar: files and folders, or anything else.
FILES = {"FILE", "FOLDER", "DIR", "PATH", "PATH...", "ADAPTER", "[ADAPTER]...", "A B [C...]",
         "A B [C...] | RUN | SERIES", "PRUNED", "ORIGINAL", "INPUT...", "MODEL", "LABELLED", "TEXT|FILE",
         "JUDGE", "BASE"}  # fmt: skip
OTHERS = {"N", "M", "K", "F", "R", "X", "Z", "Q", "S", "INDEX", "A-B", "NAME", "NAMES", "LIST", "REGEX", "RULE", "URL",
          "SPEC", "ADDRESS", "W,W...", "[SQL]", "HOST", "NAME[: REASON]", "JSON", "VALUE",
          "COLUMN=VALUE", "N,N,N", "SHARE", "RATE", "T", "NAME[=VERSION]",
          "[peft|vllm|sglang|llamacpp][=VERSION]"}  # fmt: skip
#: Of those of `FILES`, what names a module.
MODULES = {("restore", "only")}
#: Parameters that are written to.
WRITTEN = ("output", "out", "reports", "report", "sarif", "cache", "copy")

MEASURING = ("eval", "sweep", "tune")
#: These need a model.
MODELLED = (*MEASURING, "repair")
MEASURED = {"path": "adapter", "base": "base", "suite": "safety", "limit": "1", "tokens": "2"}
#: Command → what it is given besides the parameter in question.
GIVEN: dict[str, dict[str, Any]] = {
    "scan": {"paths": "adapter"},
    "check": {"path": "adapter"},
    "prune": {"path": "adapter", "output": "new"},
    "resize": {"path": "adapter", "output": "new", "rank": "1"},
    "convert": {"path": "adapter", "to": "peft", "output": "new"},
    "restore": {"pruned": "pruned", "original": "adapter", "output": "new"},
    "compare": {"paths": ("adapter", "other")},
    "compose": {"paths": ("adapter", "other")},
    "eval": {"paths": "adapter"} | {key: value for key, value in MEASURED.items() if key != "path"},
    "sweep": MEASURED,
    "tune": MEASURED,
    "repair": {"path": "adapter", "base": "base", "output": "new", "parts": "10,10,10"},
    "report": {"result": "scan.json"},
    "card": {"path": "adapter"},
    "bom": {"path": "adapter"},
    "judge-check": {"labelled": "labelled.jsonl"},
    "demo": {},
    "fleet scan": {"inputs": "adapter", "out": "results"},
    "fleet report": {"folder": "results"},
    "fleet query": {"folder": "results", "saved": "errors"},
    "fleet reference build": {"folder": "results", "output": "new.parquet"},
    "fleet reference show": {"file": "ref.parquet"},
}
#: What some parameters need beside them.
NEEDED: dict[tuple[str, str], dict[str, Any]] = {
    ("scan", "evaluation"): {"form": "html"},
    ("convert", "base"): {"to": "gguf"},
    ("fleet report", "reports"): {"output": "page.html"},
    ("repair", "unaligned"): {"method": "subspace"},
    **{(name, "documents"): {"tasks": "tasks.jsonl", "suite": "planning"} for name in MEASURING},
    **{(name, "tasks"): {"suite": "planning"} for name in MEASURING},
    **{(name, "references"): {"suite": "summarisation"} for name in MEASURING},
    **{(name, "maths"): {"suite": "maths"} for name in MEASURING},
    **{(name, "code"): {"suite": "code-loss"} for name in MEASURING},
}

SPECIAL: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "pipe.parquet": os.mkfifo,
    "pipe-behind-a-link": lambda path: path.symlink_to("pipe"),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "empty-folder": Path.mkdir,
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
}
PIPES = ("pipe", "pipe.parquet", "pipe-behind-a-link")
NAMES = (*SPECIAL, "/dev/zero", "missing", "missing/file", "pipe/file", "loop/file", "null\0character", "x" * 300)

DRIVER = """
import contextlib, io, json, sys, traceback
from s3lora.cli.main import run
with open(sys.argv[1]) as file:
    cases = json.load(file)
for words in cases:
    print(json.dumps(words), flush=True)
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = run(words)
        except BaseException:
            status = traceback.format_exc()
    print(json.dumps([status, err.getvalue()]), flush=True)
"""


def outcomes(cases: Sequence[Sequence[str]], folder: Path) -> list[tuple[Any, str]]:
    """Run commands one after another in a process; return (status, standard error), and fail where one hangs."""
    (folder / "cases.json").write_text(json.dumps(cases))
    try:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, "cases.json"],
            cwd=folder,
            env=environment({"S3LORA_DEBUG": "1", "XDG_CACHE_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as ended:
        begun = (ended.stdout or b"").decode().splitlines()
        pytest.fail(f"hangs: {begun[-1]}")
    assert done.returncode == 0, done.stderr.decode()
    return [tuple(json.loads(line)) for line in done.stdout.decode().splitlines()[1::2]]


def commands(group: click.Group = cli, *words: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)
        else:
            yield " ".join((*words, name)), command


COMMANDS = dict(commands())


def meaning(parameter: click.Parameter, context: click.Context) -> str:
    return parameter.metavar or parameter.make_metavar(context)


def names_files(name: str, command: click.Command) -> Iterator[click.Parameter]:
    """Yield the parameters that name a file or folder; fail for one of which this is not known."""
    context = click.Context(command, info_name=name)
    for parameter in command.params:
        flag = isinstance(parameter, click.Option) and parameter.is_flag
        if flag or isinstance(parameter.type, click.Choice):
            continue
        what = meaning(parameter, context)
        assert what in FILES | OTHERS, f"{name}: is {parameter.name} {what} a file? say so in FILES or OTHERS"
        if what in FILES and (name, parameter.name) not in MODULES:
            yield parameter


def words_of(name: str, command: click.Command, given: dict[str, Any]) -> list[str]:
    """Return a command line."""
    words, last = name.split(), []
    for parameter in command.params:
        value = given.get(parameter.name or "")
        if value is None:
            continue
        values = [value] if isinstance(value, str) else list(value)
        if isinstance(parameter, click.Argument):
            last += values
        else:
            words += [word for one in values for word in (parameter.opts[0], one)]
    return [*words, "--", *last]


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an adapter, one that was pruned, and a dataset with its reference."""
    folder = tmp_path_factory.mktemp("ordinary")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        bad.good(folder / "adapter")
        bad.good(folder / "other")
        (folder / "labelled.jsonl").write_text('{"answer": "No.", "label": "refusal"}\n')
        (folder / "tasks.jsonl").write_text('{"question": "How long is the Bramen?", "answer": "120"}\n')
        for words in (
            ("prune", "adapter", "-o", "pruned", "--top", "1"),
            ("scan", "adapter", "--format", "json", "-o", "scan.json"),
            ("fleet", "scan", "adapter", "--out", "results", "--quiet", "--workers", "1"),
            ("fleet", "reference", "build", "results", "-o", "ref.parquet"),
        ):
            assert run(words) == 0
    return folder


@pytest.fixture
def desk(ordinary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that folder, with what is special beside it."""
    desk = tmp_path / "desk"
    shutil.copytree(ordinary, desk)
    monkeypatch.chdir(desk)
    for name, make in SPECIAL.items():
        make(desk / name)
    return desk


def kinds(folder: Path) -> dict[str, int]:
    return {name: (folder / name).lstat().st_mode for name in SPECIAL}


def cases_of(name: str, command: click.Command) -> Iterator[tuple[list[str], bool]]:
    """Yield command lines with something special in the place of each file, and whether that is written to."""
    for parameter in names_files(name, command):
        if (name, parameter.name) == ("fleet scan", "inputs"):  # all at once, below: each run starts a process
            continue
        more = NEEDED.get((name, parameter.name or ""), {})
        writes = parameter.name in WRITTEN
        for value in NAMES:
            # A result goes into a pipe, and waits for a reader as it should.
            if not (writes and value in PIPES and parameter.metavar == "FILE"):
                yield words_of(name, command, {**GIVEN[name], **more, parameter.name or "": value}), writes


def check(commands: Sequence[str], desk: Path) -> None:
    before = kinds(desk), (desk / "adapter" / bad.WEIGHTS).read_bytes()
    cases = [case for name in commands for case in cases_of(name, COMMANDS[name])]
    for (words, writes), (status, err) in zip(cases, outcomes([words for words, _ in cases], desk), strict=True):
        assert status in ((0, 2, 3) if writes else (2, 3)), (words, status, err)
        assert status == 0 or err or words[:2] == ["fleet", "scan"], words
        assert "internal error" not in err, (words, err)
    assert (kinds(desk), (desk / "adapter" / bad.WEIGHTS).read_bytes()) == before


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in MODELLED])
def test_every_file_that_a_command_names(name: str, desk: Path) -> None:
    check([name], desk)


@pytest.mark.parametrize("name", MODELLED)
def test_every_file_that_measuring_names(name: str, desk: Path) -> None:
    pytest.importorskip("peft")
    from tests.tiny_adapters import tiny_base

    tiny_base(desk / "base")
    check([name], desk)


def test_every_input_of_a_fleet_is_an_error(desk: Path) -> None:
    names = [name for name in NAMES if "\0" not in name]
    command = ["fleet", "scan", "--workers", "1", "--quiet", "--out", "new", "--format", "json", "--", *names]
    ((status, _),) = outcomes([command], desk)
    assert status == 2
    counts = json.loads((desk / "new" / "fleet.json").read_text())["counts"]
    assert (counts["adapters"], sum(counts["errors"].values())) == (0, len(names))


PART = "parts/000000"
WITHIN = ("fleet.json", "parts", PART, f"{PART}/adapters.parquet", f"{PART}/modules.parquet", f"{PART}/errors.parquet")


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "loop"])
def test_what_lies_in_a_dataset(kind: str, desk: Path) -> None:
    cases = []
    for number, inside in enumerate((*WITHIN, ".lock")):
        for words in (
            ["fleet", "report", "--format", "json", f"report-{number}"],
            ["fleet", "query", "--saved", "errors", f"query-{number}"],
            ["fleet", "reference", "build", "-o", f"{number}.parquet", f"reference-{number}"],
            ["fleet", "scan", "adapter", "--workers", "1", "--quiet", "--out", f"scan-{number}"],
        ):
            folder = desk / words[-1]
            shutil.copytree(desk / "results", folder)
            remove(folder / inside)
            SPECIAL[kind](folder / inside)
            # Of the others, a command may not need the one that is spoilt.
            fails = words[1] == ("scan" if inside == ".lock" else "report")
            cases.append((words, fails))
    for (words, fails), (status, err) in zip(cases, outcomes([words for words, _ in cases], desk), strict=True):
        assert status in ((2,) if fails else (0, 2, 3)), (words, status, err)
        assert "internal error" not in err, (words, err)


def test_what_lies_in_a_model_and_in_a_cache(desk: Path) -> None:
    pytest.importorskip("peft")
    from tests.tiny_adapters import tiny_base

    base = tiny_base(desk / "base")
    cases = []
    for inside in sorted(path.name for path in base.iterdir()):
        shutil.copytree(base, desk / f"base-{inside}")
        (desk / f"base-{inside}" / inside).unlink()
        os.mkfifo(desk / f"base-{inside}" / inside)
        cases.append(["eval", "adapter", "--base", f"base-{inside}", "--suite", "safety", "--limit", "1"])
    (desk / "kept").mkdir()
    os.mkfifo(desk / "kept" / "generations.sqlite")
    cases.append(["eval", "adapter", "--base", "base", "--suite", "safety", "--cache", "kept"])
    for words, (status, err) in zip(cases, outcomes(cases, desk), strict=True):
        assert status == 2, (words, status, err)
        assert len(err.splitlines()) == 1, (words, err)


@pytest.mark.parametrize("name", ["pyproject.toml", "s3lora.toml"])
def test_a_policy_that_waits_is_an_error(name: str, desk: Path) -> None:
    os.mkfifo(desk / name)
    ((status, err),) = outcomes([["scan", "adapter"]], desk)
    assert (status, err) == (2, f"s3lora: {name}: cannot be read (not a regular file)\n")


def test_a_result_goes_into_a_pipe(desk: Path) -> None:
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append((desk / "pipe").read_bytes()))
    reader.start()
    ((status, err),) = outcomes([["scan", "adapter", "--format", "csv", "-o", "pipe"]], desk)
    assert (status, err) == (0, "")
    reader.join()
    assert heard[0].startswith(b"adapter,")
    assert stat.S_ISFIFO((desk / "pipe").lstat().st_mode)


def test_a_socket_is_neither_replaced_nor_written(desk: Path) -> None:
    ((status, err),) = outcomes([["scan", "adapter", "-o", "socket"]], desk)
    assert (status, err) == (2, "s3lora: socket: is neither a file nor a pipe\n")
    assert stat.S_ISSOCK((desk / "socket").lstat().st_mode)
