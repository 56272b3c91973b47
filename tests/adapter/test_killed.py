"""Two runs that write to one place at once, what killed runs leave there, and folders of any depth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3lora import open_adapter, read_provenance, restore
from s3lora.adapter.companions import held_back
from s3lora.adapter.folder import copy_companions
from s3lora.files import locked, settle, write_whole
from s3lora.partial import is_left, moved_away, new_partial_file, remove_tree
from tests.command import Result, call, environment
from tests.planning import prune_to
from tests.support import make_adapter
from tests.watched import PATIENCE, start

PATHS = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(3) for p in "qv"]
PRUNE = ("--force-flat", "--format", "csv")
#: Stops, before what is written takes its place, until it is sent a line.
WAITS = """
import sys
from s3lora import files

def waiting(real):
    def at_the_end(*arguments):
        print("written", file=sys.stderr, flush=True)
        sys.stdin.readline()
        return real(*arguments)
    return at_the_end

files._take, files._swap, files._mode = map(waiting, (files._take, files._swap, files._mode))
from s3lora.cli.main import run
sys.exit(run(sys.argv[1:]))
"""
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "source", dict.fromkeys(PATHS, (24, 16, 4)))


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def beside(folder: Path) -> set[str]:
    return {path.name for path in folder.parent.iterdir()}


def waiting(*words: object) -> subprocess.Popen[str]:
    """Start a command, and return when all is written and nothing in its place."""
    pipes = dict.fromkeys(("stdin", "stderr"), subprocess.PIPE)
    options = {"stdout": subprocess.DEVNULL, "text": True, "env": environment(), **pipes}
    process = start([sys.executable, "-c", WAITS, *words], **options)
    assert process.stderr.readline() == "written\n"
    return process


def ended(process: subprocess.Popen[str]) -> Result:
    _, errors = process.communicate("\n", timeout=PATIENCE)
    return Result(process.returncode, "", errors)


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("empty", [False, True])
def test_of_runs_that_prune_to_one_place_the_first_succeeds(source: Path, tmp_path: Path, empty: bool) -> None:
    out = tmp_path / "out"
    if empty:
        out.mkdir()
    running = [waiting("prune", source, "-o", out, "--top", top, *PRUNE) for top in (1, 2, 3)]
    for process in running:  # all at once
        process.stdin.write("\n")
        process.stdin.flush()
    done = [ended(process) for process in running]
    assert sorted(result.status for result in done) == [0, 2, 2]
    winner = next(i for i, result in enumerate(done) if result.status == 0)
    assert len(read_provenance(out).modules) == winner + 1
    prune_to(source, tmp_path / "alike", [module.path for module in read_provenance(out).modules])
    assert listing(out).keys() == listing(tmp_path / "alike").keys()
    said = f"s3lora: {out}: was written by another run meanwhile; give -o a new folder, or --force to replace it\n"
    assert {result.err for result in done if result.status} == {said}
    assert beside(out) == {"source", "out", "alike"}


@pytest.mark.thorough
def test_of_two_runs_that_restore_to_one_place_the_first_succeeds(source: Path, tmp_path: Path) -> None:
    one = prune_to(source, tmp_path / "one", PATHS[:2])
    words = ("restore", one, "--from", source, "-o", tmp_path / "out")
    first, second, some = waiting(*words), waiting(*words), waiting(*words, "--module", PATHS[0])
    assert ended(first) == Result(0, "", "")
    whole = listing(tmp_path / "out")
    for loser in (second, some):
        assert ended(loser).status == 2
    assert listing(tmp_path / "out") == whole == listing(source)
    assert beside(one) == {"source", "one", "out"}


def test_with_force_the_last_of_two_replaces_the_first(source: Path, tmp_path: Path) -> None:
    words = ("prune", source, "-o", tmp_path / "out", "--force", *PRUNE)
    first, second = waiting(*words, "--top", "1"), waiting(*words, "--top", "2")
    assert ended(first) == Result(0, "", "")
    assert ended(second) == Result(0, "", "")
    assert len(read_provenance(tmp_path / "out").modules) == 2
    assert beside(source) == {"source", "out"}


def test_the_next_run_removes_what_a_killed_one_left_and_nothing_of_a_live_one(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    words = ("prune", source, "-o", out, "--top", "1", *PRUNE)
    live = waiting(*words)
    (kept,) = beside(out) - {"source"}
    killed(waiting(*words))
    assert len([name for name in beside(out) if is_left(name)]) == 2
    assert call(capsys, *words).status == 0
    assert beside(out) == {"source", "out", kept}
    assert ended(live).status == 2
    assert beside(out) == {"source", "out"}


def test_files_that_killed_runs_left_go_too(source: Path, tmp_path: Path, capsys: Capture) -> None:
    report = tmp_path / "report.json"
    words = ("scan", source, "--format", "json", "-o", report)
    live = waiting(*words)
    (kept,) = beside(report) - {"source"}
    killed(waiting(*words))
    assert call(capsys, *words).status == 0
    assert beside(report) == {"source", "report.json", kept}
    assert ended(live) == Result(0, "", "")
    assert beside(report) == {"source", "report.json"}


def test_what_killed_runs_left_beside_a_card_does_not_come_along(source: Path, tmp_path: Path) -> None:
    killed(waiting("card", source))
    assert any(map(is_left, listing(source)))
    out = prune_to(source, tmp_path / "out", PATHS[:1])
    assert not any(map(is_left, listing(out)))


def test_what_only_looks_like_it_stays(source: Path, tmp_path: Path) -> None:
    names = [".out.partial", ".out.s3lora-.partial", ".out.s3lora-abcdefghi.partial", ".out.s3lora-abcdefgh.partial~"]
    names += [".other.s3lora-abcdefgh.partial", ".out.x.s3lora-abcdefgh.partial", "out.s3lora-abcdefgh.partial"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("")
    (tmp_path / ".out.s3lora-link0000.partial").symlink_to("elsewhere")
    (tmp_path / ".out.s3lora-file0000.old").write_text("")  # what is moved away is a folder
    os.mkfifo(tmp_path / ".out.s3lora-pipe0000.partial")
    before = sorted(map(str, tmp_path.rglob("*")))
    settle(tmp_path / "out")
    assert sorted(map(str, tmp_path.rglob("*"))) == before
    (tmp_path / ".out.s3lora-abcdefgh.partial").mkdir()
    out = prune_to(source, tmp_path / "out", PATHS[:1])
    remove_tree(out)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_removing_a_link_leaves_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "deep" / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "link", tmp_path / "folder" / "link"):
        place.symlink_to(tmp_path / "mine")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "file", "mine"]


def test_an_old_folder_that_was_moved_away_comes_back(source: Path, tmp_path: Path, capsys: Capture) -> None:
    out = prune_to(source, tmp_path / "out", PATHS[:1])
    old = listing(out)
    away = tmp_path / ".out.s3lora-abcdefgh.old"
    out.rename(away)
    result = call(capsys, "prune", source, "-o", out, "--top", "2", *PRUNE)
    assert (result.status, "exists and is not empty" in result.err) == (2, True)
    assert listing(out) == old
    # Where the new one has come to its place, the old one is what is left.
    prune_to(source, away, PATHS[:2])
    settle(out)
    assert beside(out) == {"source", "out"}
    assert listing(out) == old
    # The input itself, that the next run would read.
    source.rename(tmp_path / ".source.s3lora-abcdefgh.old")
    assert call(capsys, "prune", source, "-o", source, "--force", "--top", "1", *PRUNE).status == 0
    assert beside(out) == {"source", "out"}


def test_an_old_folder_that_a_live_run_moved_away_stays(source: Path, tmp_path: Path) -> None:
    out = prune_to(source, tmp_path / "out", PATHS[:1])
    with moved_away(out, tmp_path) as old:
        settle(out)
        assert beside(out) == {"source", old.name}
    settle(out)
    assert beside(out) == {"source", "out"}


def test_names_as_long_as_the_system_takes(source: Path, tmp_path: Path) -> None:
    out = prune_to(source, tmp_path / ("é" * 127), PATHS[:1])
    assert len(read_provenance(out).modules) == 1
    write_whole(tmp_path / ("x" * 255), b"content")
    path, descriptor, lock = new_partial_file(tmp_path / ("x" * 255))
    os.close(descriptor)
    assert lock is not None
    settle(tmp_path / ("x" * 255))
    assert path.exists()
    os.close(lock)
    settle(tmp_path / ("x" * 255))
    assert not path.exists()


def test_a_lock_that_was_removed_is_none(tmp_path: Path) -> None:
    first = locked(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        locked(tmp_path / "lock")
    (tmp_path / "lock").unlink()
    first.close()
    locked(tmp_path / "lock").close()


@pytest.fixture(params=[(1300, "d", 15), (40, "d" * 200, 10)], ids=["deep", "long"])
def deep(source: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return an adapter with folders nested deeper than Python, or than the names of the system, a file in each."""
    here = os.getcwd()
    os.chdir(source)
    for _ in range(request.param[0]):
        os.mkdir(request.param[1])
        os.chdir(request.param[1])
        Path("f").write_text("")
    os.chdir(here)
    yield source
    for folder in tmp_path.iterdir():
        remove_tree(folder)


def test_folders_nested_too_deep_stay_behind(
    deep: Path, tmp_path: Path, capsys: Capture, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "out"
    result = call(capsys, "prune", deep, "-o", out, "--top", "1", "--force-flat")
    assert (result.status, result.err) == (0, "")
    assert "left behind" in result.out
    assert len(list(out.rglob("f"))) == request.node.callspec.params["deep"][2]
    assert restore(out, deep, tmp_path / "back") is not None


def test_what_stays_behind_is_named(deep: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    written = {"adapter_model.safetensors", "adapter_config.json"}
    with open_adapter(deep) as adapter:
        (left,) = copy_companions(deep, tmp_path / "out", written=written, held=held_back(adapter))
    assert left.endswith("/ (nested too deep)")


def test_a_folder_of_any_depth_is_replaced(deep: Path, tmp_path: Path, capsys: Capture) -> None:
    result = call(capsys, "prune", deep, "-o", deep, "--force", "--top", "1", *PRUNE)
    assert (result.status, result.err) == (0, "")
    assert beside(deep) == {"source"}


def test_a_configuration_nested_deep_is_one_sentence(source: Path, tmp_path: Path, capsys: Capture) -> None:
    config = (source / "adapter_config.json").read_text()
    for depth in (98, 99, 500, 980, 985, 990, 100_000):
        value = "[" * depth + "]" * depth
        (source / "adapter_config.json").write_text(f'{config[:-1]}, "more": {value}}}')
        for i, words in enumerate((("scan", source), ("prune", source, "-o", tmp_path / f"{depth}", *PRUNE))):
            result = call(capsys, *words)
            assert result.status == (0 if depth < 100 else 2), (depth, result)
            assert result.err.count("\n") == (depth >= 100), i
