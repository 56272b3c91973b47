"""Where results may not be written: each in one sentence, before anything is changed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from s3lora.errors import OutputError
from s3lora.files import write_whole
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


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("alias.json", "real.json"),  # an ordinary file
        ("scan.json", f"adapter/{bad.WEIGHTS}"),  # the input itself, under a harmless name
        ("scan.json", f"other/{bad.CONFIG}"),
        ("scan.json", "adapter"),
        ("gone.json", "nowhere.json"),
        ("a/b.json", "../real.json"),
    ],
)
@pytest.mark.parametrize("command", [("scan", "adapter"), ("compare", "adapter", "other"), ("bom", "adapter")])
def test_output_follows_no_link(
    command: tuple[str, ...], link: str, target: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "a").mkdir()
    (place / "real.json").write_text("old")
    (place / link).symlink_to(target)
    before = state(place)
    form = () if command[0] == "bom" else ("--format", "json")
    result = call(capsys, *command, *form, "-o", link)
    assert (result.status, result.out) == (2, "")
    real = os.path.relpath(os.path.realpath(place / link))
    advice = (
        "another file" if target.endswith((bad.WEIGHTS, bad.CONFIG)) else f"{real}, or another file"
    )  # a part of one is no output
    assert result.err == f"s3lora: {link}: is a link, and its target would be overwritten; give --output {advice}\n"
    assert (place / link).is_symlink()
    assert state(place) == before


def test_a_link_that_comes_during_the_work_is_not_followed(place: Path) -> None:
    (place / "real.json").write_text("old")
    (place / "late.json").symlink_to("real.json")
    with pytest.raises(OutputError, match=r"late\.json: is a link"):
        write_whole(place / "late.json", b"new")
    assert (place / "real.json").read_text() == "old"
    assert not [name for name in os.listdir(place) if name.endswith(".partial")]


def test_no_file_that_the_command_reads_is_overwritten(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = ("--fail-on", "ssi > 2")
    assert call(capsys, "scan", "adapter", *rule, "--format", "sarif", "-o", "known.sarif").status == 0
    (place / "s3lora.toml").write_text('fail-on = ["ssi > 2"]\n')
    (place / "folder").symlink_to(".")
    os.link(place / "known.sarif", place / "twin.sarif")
    before = state(place)
    for options, output in (
        (("--baseline", "known.sarif", *rule), "known.sarif"),
        (("--baseline", "known.sarif", *rule), "folder/known.sarif"),
        (("--baseline", "known.sarif", *rule), "twin.sarif"),
        (("--policy", "s3lora.toml"), "s3lora.toml"),
    ):
        result = call(capsys, "scan", "adapter", *options, "--format", "sarif", "-o", output)
        assert (result.status, result.out) == (2, "")
        assert result.err.endswith(f"s3lora: {output}: is read by this command; give --output another file\n")
    assert state(place) == before


def test_output_goes_into_devices(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """/dev/null stays a device, also for root, and also under another name."""
    (place / "null").symlink_to(os.devnull)
    for output in (os.devnull, "null"):
        assert call(capsys, "scan", "adapter", "-o", output).status == 0
    assert not Path(os.devnull).is_file()


def test_output_respects_the_umask(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = os.umask(0o027)
    try:
        assert call(capsys, "scan", "adapter", "-o", "report.txt").status == 0
    finally:
        os.umask(mask)
    assert (place / "report.txt").stat().st_mode & 0o777 == 0o640
