"""Where results may not be written: each in one sentence, before anything is changed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.command import call
from tests.hostile import bad_files as bad
from tests.hostile.test_bad_adapters import state


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with an adapter, another, and things that are in the way."""
    monkeypatch.chdir(tmp_path)
    bad.good(tmp_path / "adapter")
    bad.good(tmp_path / "other")
    bad.good(tmp_path / "parent" / "inner")
    bad.good(tmp_path / "parent" / "inner" / "checkpoint-1")
    (tmp_path / "file").write_text("keep me")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("keep me")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("other")
    return tmp_path


@pytest.mark.parametrize(
    ("out", "options", "says"),
    [
        ("file", (), r"file: is not a folder; give -o a new folder"),
        ("file", ("--force",), r"file: is not a folder"),
        ("file/inner", (), r"(cannot be written|cannot be looked into)"),
        ("other", (), r"other: exists and is not empty; .*--force"),
        ("notes", (), r"notes: exists and is not empty"),
        ("notes", ("--force",), r"notes: holds no adapter, so --force will not replace it"),
        ("adapter", (), r"adapter: is the input itself; .*--force"),
        ("adapter/inner", (), r"adapter/inner: lies in adapter, which is read"),
        ("adapter/a/b", ("--force",), r"lies in adapter, which is read"),
        ("link", ("--force",), r"link: is not a folder"),
        ("loop", (), r"loop: is not a folder"),
        ("loop/x", (), r"loop/x: "),
        ("gone", (), r"gone: is not a folder"),
        ("/proc/nowhere", (), r"/proc/nowhere: cannot be written"),
        ("x" * 300, (), r"x…: cannot be (written|looked into) \(File name too long\)"),
        ("", (), r"has no name"),
        (".", ("--force",), r"has no name"),
    ],
)
def test_prune_refuses_the_output(
    out: str, options: tuple[str, ...], says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(place)
    result = call(capsys, "prune", "adapter", "-o", out, *options)
    assert (result.status, result.out) == (2, "")
    assert re.fullmatch(rf"s3lora: .*{says}.*\n", result.err), result.err
    assert state(place) == before


def test_prune_never_replaces_what_holds_its_input(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(place)
    result = call(capsys, "prune", "parent/inner/checkpoint-1", "-o", "parent/inner", "--force")
    assert result.status == 2
    assert "parent/inner: holds parent/inner/checkpoint-1, which is read" in result.err
    assert call(capsys, "prune", f"adapter/{bad.WEIGHTS}", "-o", "adapter", "--force").status == 2
    assert state(place) == before


def test_restore_refuses_the_output(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "prune", "adapter", "-o", "pruned").status == 0
    before = state(place)
    for out in ("pruned", "pruned/inner", "adapter/inner", "notes", "file", ""):
        result = call(capsys, "restore", "pruned", "--from", "adapter", "-o", out)
        assert (result.status, result.out) == (2, ""), out
        assert re.fullmatch(r"s3lora: .*\n", result.err), out
    assert state(place) == before
    assert call(capsys, "restore", "pruned", "--from", "adapter", "-o", "pruned", "--force").status == 0


def test_prune_makes_the_folders_above(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "prune", "adapter", "-o", "a/b/c").status == 0
    assert sorted(os.listdir(place / "a" / "b")) == ["c"]
    assert call(capsys, "prune", "adapter", "-o", "adapter", "--force").status == 0
    assert (place / "adapter" / "s3lora.json").exists()


@pytest.mark.parametrize("command", [("scan", "adapter"), ("compare", "adapter", "other")])
@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("notes", r"notes: is a folder"),
        ("nowhere/x.json", r"nowhere/x\.json: cannot be written \(no such folder\)"),
        ("file/x.json", r"file/x\.json: cannot be written"),
        ("x" * 300, r"File name too long"),
        ("", r"--output has no name"),
        (f"adapter/{bad.WEIGHTS}", r"safetensors: is part of an adapter"),
        (f"other/{bad.CONFIG}", r"adapter_config\.json: is part of an adapter"),
    ],
)
def test_output_files_that_cannot_be(
    command: tuple[str, ...], output: str, says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(place)
    result = call(capsys, *command, "--format", "json", "--output", output)
    assert (result.status, result.out) == (2, "")
    assert re.fullmatch(rf"s3lora: .*{says}.*\n", result.err), result.err
    assert state(place) == before


def test_output_goes_through_links_and_into_devices(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link keeps leading where it led, and /dev/null stays a device, also for root."""
    (place / "real.json").write_text("old")
    (place / "alias.json").symlink_to("real.json")
    assert call(capsys, "scan", "adapter", "--format", "json", "-o", "alias.json").status == 0
    assert (place / "alias.json").is_symlink()
    assert json.loads((place / "real.json").read_text())["modules"]
    assert call(capsys, "scan", "adapter", "-o", os.devnull).status == 0
    assert not Path(os.devnull).is_file()


def test_output_respects_the_umask(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = os.umask(0o027)
    try:
        assert call(capsys, "scan", "adapter", "-o", "report.txt").status == 0
    finally:
        os.umask(mask)
    assert (place / "report.txt").stat().st_mode & 0o777 == 0o640
