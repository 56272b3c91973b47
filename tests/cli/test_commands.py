"""`prune`, `restore`, `compare`, `demo`, help, and what is common to all commands."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

import s3lora
from s3lora.cli import main, scan_measuring
from tests.command import Result, call, process
from tests.hostile import bad_files as bad
from tests.hostile.test_bad_adapters import state
from tests.support import make_adapter

LAYERS = {f"model.layers.{i}.self_attn.{name}": (16, 12, 4) for i in range(6) for name in ("q_proj", "v_proj")}
COMMANDS = ("scan", "prune", "resize", "restore", "compare", "compose", "demo")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter", LAYERS)


def pruned_modules(folder: Path) -> dict[str, str]:
    """Return what `s3lora.json` says was done to each module."""
    return {module.path: module.action for module in s3lora.read_provenance(folder).modules}


def kept(folder: Path) -> int:
    with s3lora.open_adapter(folder) as opened:
        return len(opened.modules)


def test_prune(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(adapter)
    result = call(capsys, "prune", adapter, "-o", tmp_path / "out")
    assert (result.status, result.err) == (0, "")
    words = " ".join(result.out.split())
    assert words.startswith("wrote ")
    assert "6 removed; " in words
    assert " verified by reading it again top 10 by ssi took 6 of 12 modules" in words
    old, new = ((folder / "adapter_model.safetensors").stat().st_size for folder in (adapter, tmp_path / "out"))
    assert f" {old / 1000:.1f} kB → {new / 1000:.1f} kB," in words
    assert "50.0% of LoRA parameters" in words
    assert all(len(line) <= 80 and line == line.rstrip() for line in result.out.splitlines())
    assert kept(tmp_path / "out") == 6
    assert state(adapter) == before


def test_prune_as_json_is_its_provenance(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "prune", adapter, "-o", tmp_path / "out", "--format", "json", "--top", "2")
    assert result.err == ""
    printed = json.loads(result.out)
    assert printed == json.loads((tmp_path / "out" / "s3lora.json").read_text())
    assert len(printed["plan"]["chosen"]) == 2
    assert re.fullmatch("[0-9a-f]{64}", printed["source"]["sha256"])


def test_prune_as_csv_has_a_row_for_each_chosen_module(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = call(capsys, "prune", adapter, "-o", tmp_path / "out", "--format", "csv", "--top", "2")
    record = json.loads((tmp_path / "out" / "s3lora.json").read_text())
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert [(row["path"], float(row["value"])) for row in rows] == [
        (m["path"], m["value"]) for m in record["plan"]["chosen"]
    ]
    assert {row["action"] for row in rows} == {"removed"}


@pytest.mark.parametrize(
    ("options", "action", "modules"),
    [
        (("--mode", "zero"), "zeroed", 12),
        (("--mode", "clip", "--clip-to", "3"), "clipped", 12),
        (("--mode", "scale", "--factor", "0.25"), "scaled", 12),
        (("--loader", "vllm"), "removed", 10),
        (("--loader", "llamacpp"), "removed", 10),
        (("--bake-scaling",), "removed", 10),
        (("--index", "frobenius"), "removed", 10),
    ],
)
def test_prune_options(
    options: tuple[str, ...], action: str, modules: int, adapter: Path, tmp_path: Path, capsys: Any
) -> None:
    assert call(capsys, "prune", adapter, "-o", tmp_path / "out", "--top", "2", *options).status == 0
    assert list(pruned_modules(tmp_path / "out").values()) == [action] * 2
    assert kept(tmp_path / "out") == modules


def test_prune_bakes_the_scaling(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "prune", adapter, "-o", tmp_path / "out", "--top", "1", "--bake-scaling").status == 0
    assert {module.scaling for module in s3lora.scan(tmp_path / "out").modules} == {1.0}


def test_prune_of_a_flat_index_needs_force(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    result = call(capsys, "prune", adapter, "-o", out, "--rank", "1")
    assert result.status == 2
    assert re.fullmatch(r"s3lora: .*ssi does not discriminate.*--force-flat\n", result.err)
    assert not out.exists()
    assert call(capsys, "prune", adapter, "-o", out, "--rank", "1", "--force-flat").status == 0


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (("--top", "0"), 3, "chooses no module, so there is nothing to prune"),
        (("--threshold", "2"), 3, "chooses no module"),
        (("--fraction", "1"), 2, "removes every module"),
        (("--only", "nowhere"), 3, "no module passes the filter"),
        (("--factor", "2", "--mode", "scale"), 2, "factor 2.0 is not between 0 and 1"),
        (("--factor", "nan", "--mode", "scale"), 2, "factor nan is not between 0 and 1"),
        (("--top", "1", "--rule", "gap"), 2, "exclude each other"),
        (("--clip-to", "3"), 2, "s3lora: --clip-to does nothing without --mode clip\n"),
        (("--mode", "scale", "--clip-to", "2"), 2, "s3lora: --clip-to does nothing without --mode clip\n"),
        (("--mode", "zero", "--factor", "0.5"), 2, "s3lora: --factor does nothing without --mode scale\n"),
        (("--z", "2"), 2, "s3lora: --z does nothing without --rule outlier\n"),
    ],
)
def test_prune_that_cannot_be(
    options: tuple[str, ...], status: int, says: str, adapter: Path, tmp_path: Path, capsys: Any
) -> None:
    result = call(capsys, "prune", adapter, "-o", tmp_path / "out", *options)
    assert (result.status, result.out) == (status, "")
    assert says in result.err
    assert result.err[:-1].isprintable()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["zero", "clip", "scale"])
def test_no_compute_is_said_to_be_saved_by_modules_that_stay(
    mode: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "of LoRA compute" in " ".join(call(capsys, "prune", adapter, "-o", tmp_path / "removed").out.split())
    result = call(capsys, "prune", adapter, "-o", tmp_path / "out", "--mode", mode)
    assert "of Frobenius energy." in " ".join(result.out.split())
    assert "LoRA compute" not in " ".join(result.out.split())


def test_prune_then_restore(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, back, partly = tmp_path / "out", tmp_path / "back", tmp_path / "partly"
    assert call(capsys, "prune", adapter, "-o", out, "--top", "3").status == 0
    result = call(capsys, "restore", out, "--from", adapter, "-o", back)
    assert (result.status, result.err) == (0, "")
    assert "3 modules back" in " ".join(result.out.split())
    assert state(back) == state(adapter), "byte by byte"
    first = next(iter(pruned_modules(out)))
    result = call(capsys, "restore", out, "--from", adapter, "-o", partly, "--module", first)
    assert "1 module back" in " ".join(result.out.split())
    assert kept(partly) == 10
    result = call(capsys, "restore", out, "--from", adapter, "-o", tmp_path / "x", "--module", "no.such")
    assert result.status == 2
    assert "no.such was not pruned" in result.err


def test_restore_from_another_adapter(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_adapter(tmp_path / "other", LAYERS, seed=5)
    assert call(capsys, "prune", adapter, "-o", tmp_path / "out").status == 0
    result = call(capsys, "restore", tmp_path / "out", "--from", other, "-o", tmp_path / "back")
    assert result.status == 2
    assert "is not the adapter that was pruned" in result.err
    result = call(capsys, "restore", adapter, "--from", adapter, "-o", tmp_path / "back")
    assert result.status == 2
    assert "only what s3lora pruned or repaired can be restored" in result.err
    assert not (tmp_path / "back").exists()


def test_compare(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert call(capsys, "prune", adapter, "-o", out, "--mode", "scale", "--top", "2").status == 0
    text = call(capsys, "compare", adapter, out)
    assert (text.status, text.err) == (0, "")
    assert text.out.splitlines()[0] == "adapter → out  12 modules in both, 2 changed"
    assert text.out.count("self_attn") == 2, "what did not change is not listed"
    assert all(len(line) <= 80 and line == line.rstrip() for line in text.out.splitlines())
    content = json.loads(call(capsys, "compare", adapter, out, "--format", "json").out)
    changed = {module["path"]: module["net_distance"] for module in content["modules"] if module["net_distance"]}
    assert changed == dict.fromkeys(pruned_modules(out), pytest.approx(0.5))
    rows = list(csv.DictReader(io.StringIO(call(capsys, "compare", adapter, out, "--format", "csv").out)))
    assert {row["path"]: float(row["distance"]) for row in rows if float(row["distance"] or 0)} == changed
    assert call(capsys, "compare", adapter, out, "--method", "svd", "-o", tmp_path / "report").out == ""
    assert "2 changed" in (tmp_path / "report").read_text()


def test_compare_of_equals_and_of_strangers(adapter: Path, tmp_path: Path, capsys: Any) -> None:
    same = call(capsys, "compare", adapter, adapter)
    assert same.out == "adapter → adapter  12 modules in both, 0 changed\nnothing but LoRA in both\n"
    stranger = make_adapter(tmp_path / "stranger", {"h.0.c_attn": (4, 4, 2)})
    result = call(capsys, "compare", adapter, stranger)
    assert (result.status, result.err) == (3, "s3lora: adapter and stranger have no module in common\n")
    broken = bad.weights(bad.POINTER)(tmp_path / "broken")
    result = call(capsys, "compare", adapter, broken)
    assert result.status == 2
    assert result.err.startswith(f"s3lora: {broken}/{bad.WEIGHTS}: is a Git LFS pointer"), "which of the two it is"


def test_compare_tells_what_only_one_has(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "prune", adapter, "-o", tmp_path / "out", "--top", "4").status == 0
    result = call(capsys, "compare", adapter, tmp_path / "out")
    assert "note only in adapter: 4 modules (model.layers." in result.out
    assert "not in every adapter" not in result.out, "nothing is said twice"
    found = json.loads(call(capsys, "compare", tmp_path / "out", adapter, "--format", "json").out)["modules"]
    assert [module["shape"][0] for module in found].count(None) == 4
    twin = adapter.rename(tmp_path / "elsewhere")
    (tmp_path / "twins").mkdir()
    (tmp_path / "out").rename(tmp_path / "twins" / "elsewhere")
    result = call(capsys, "compare", twin, tmp_path / "twins" / "elsewhere")
    assert "note only in A: 4 modules (model.layers." in result.out, "both have one name"


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if not (Path(s3lora.__file__).parent / "data" / "demo-adapter").is_dir():
        pytest.skip("the demonstration adapter is not in this tree")
    monkeypatch.chdir(tmp_path)
    result = call(capsys, "demo")
    assert (result.status, result.err) == (0, "")
    assert "SmolLM2-135M-Instruct" in result.out
    assert "would prune 10 of" in result.out
    assert all(len(line) <= 80 and line == line.rstrip() for line in result.out.splitlines())
    assert len(pruned_modules(tmp_path / "s3lora-demo")) == 10
    assert call(capsys, "demo").status == 0, "an earlier demo is replaced"
    assert call(capsys, "demo", "-o", "elsewhere").status == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    assert call(capsys, "demo", "-o", "mine").status == 2, "but nothing that is no adapter"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]


def test_a_demo_replaces_nothing_that_was_made_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy, mine = tmp_path / "copy", tmp_path / "mine"
    assert call(capsys, "demo", "--copy", copy).status == 0
    assert call(capsys, "prune", copy, "--mode", "scale", "--factor", "0.5", "-o", mine).status == 0
    assert call(capsys, "demo", "-o", mine).status == 2


@pytest.mark.parametrize("words", [("-o",), ("--copy",), ("--lost", "-o")])
def test_a_demo_replaces_no_adapter_of_others(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = make_adapter(tmp_path / "mine", {"model.layers.0.self_attn.q_proj": (8, 8, 2)})
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    result = call(capsys, "demo", *words, mine)
    assert result.status == 2
    assert result.err == f"s3lora: {mine}: holds something else than an earlier demo; give -o a new folder\n"
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before
    for first in ("-o", "--copy"):
        there = tmp_path / f"demo{first}"
        assert call(capsys, "demo", first, there).status == 0
        assert call(capsys, "demo", *words, there).status == 0, "an earlier demo is replaced by any other"


def test_the_other_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(capsys, "demo", "--lost", "-o", "lost")
    assert (result.status, result.err) == (0, "")
    assert "lost" in result.out
    assert "--base demo-aligned" in result.out
    shipped = Path(s3lora.__file__).parent / "data" / "demo-lost"
    written = {path.name: path.read_bytes() for path in (tmp_path / "lost").iterdir()}
    assert written == {path.name: path.read_bytes() for path in shipped.iterdir()}
    assert call(capsys, "demo", "--lost", "-o", "lost").status == 0, "an earlier demo is replaced"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    assert call(capsys, "demo", "--lost", "-o", "mine").status == 2, "but nothing that is no adapter"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_narrow_and_has_an_example(command: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = call(capsys, command, "--help")
    assert (text.status, text.err) == (0, "")
    assert max(map(len, text.out.splitlines())) <= 100
    assert re.search(rf"^  s3lora {command}", text.out, re.MULTILINE), "an example"
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, call(capsys, command, "-h").out.splitlines())) <= 80
    assert not re.search(r"^ +--?\S+( \S+)?$\n(?=  -|\Z)", text.out, re.MULTILINE), "every option is explained"


def test_the_group(capsys: pytest.CaptureFixture[str]) -> None:
    listing = call(capsys, "--help").out
    assert all(re.search(rf"^  {command} ", listing, re.MULTILINE) for command in COMMANDS)
    assert call(capsys, "--version") == Result(0, f"s3lora {s3lora.__version__}\n", "")
    for arguments in ((), ("no-such-command",), ("--no-such-option",)):
        result = call(capsys, *arguments)
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith("Usage: s3lora [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "out of memory"),
        (PermissionError(13, "Permission denied", "some/file"), 2, "some/file: Permission denied"),
        (OSError(28, "No space left on device"), 2, "standard output: No space left on device"),
        (BrokenPipeError(32, "Broken pipe"), 2, None),
        (
            ValueError("\x1b[2J a bug"),
            2,
            "internal error (ValueError: \ufffd[2J a bug); set S3LORA_DEBUG=1 and report the trace",
        ),
    ],
)
def test_everything_else_becomes_a_status(
    raised: BaseException, status: int, line: str | None, adapter: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(scan_measuring, "scans_with", fail)
    monkeypatch.delenv("S3LORA_DEBUG", raising=False)
    assert main.run(["scan", str(adapter)]) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "" if line is None else f"s3lora: {line}\n")


def test_internal_errors_are_shown_when_asked(adapter: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(scan_measuring, "scans_with", fail)
    with pytest.raises(ValueError, match="a bug"):
        call(capsys, "scan", adapter)


def test_the_module_runs(adapter: Path) -> None:
    result = process("scan", adapter, "--format", "json", "--fail-on", "selected")
    assert result.status == 1
    assert len(json.loads(result.out)["modules"]) == 12
    assert result.err == f"s3lora: {adapter}: finding: selected is 6, rule selected > 0\n"
    assert process("scan", adapter / "nowhere").status == 2
    assert process("--version").out == f"s3lora {s3lora.__version__}\n"
