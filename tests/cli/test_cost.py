"""`--max-cost` of every command that measures, and what long work says on standard error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from s3lora.choose import select
from s3lora.cli import progress
from s3lora.cli.main import run
from s3lora.cli.measuring import progress_bar
from s3lora.cli.progress import EVERY, Heartbeat, progress_line
from s3lora.fleet.results.dataset import first_errors
from tests.command import call
from tests.measure.test_cost import claimed
from tests.support import make_adapter

Capture = pytest.CaptureFixture[str]
MODULES = {f"model.layers.{i}.self_attn.q_proj": (12 + i, 8, 2) for i in range(4)}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "small", MODULES)


@pytest.mark.parametrize(
    "words",
    [
        ["scan", "A"],
        ["scan", "A", "--rule", "null", "--draws", "100"],
        ["scan", "A", "--format", "json"],
        ["scan", "A", "--fail-on", "ssi > 2"],
        ["prune", "A", "--top", "1", "-o", "OUT"],
        ["card", "A", "--print"],
        ["compare", "A", "A"],
        ["compose", "A", "A"],
    ],
)
def test_the_number_given_lets_it_pass(words: list[str], small: Path, tmp_path: Path, capsys: Capture) -> None:
    given = [str({"A": small, "OUT": tmp_path / "out"}.get(word, word)) for word in words]
    refused = call(capsys, *given, "--max-cost", "1e3")
    assert (refused.status, refused.out) == (2, "")
    assert len(refused.err.splitlines()) == 1
    found = re.search(r"; 1e3 are allowed; give --max-cost (\S+) to have it done$", refused.err)
    assert found is not None, refused.err
    assert not (tmp_path / "out").exists()
    assert call(capsys, *given, "--max-cost", found[1]).status == 0


def test_it_is_refused_at_once(tmp_path: Path, capsys: Capture) -> None:
    huge = claimed(tmp_path / "huge", (40_000, 40_000, 16_000))  # reading it alone would take long
    result = call(capsys, "scan", huge, "--fail-on", "ssi > 0.5", "--format", "sarif")
    assert result.status == 2
    assert "takes some 1.1e14 operations, 6.1 hours of one core, most of them for rank 16000" in result.err
    assert "max-cost 1.2e14" in result.out, "the result names the error as well"


def test_one_of_several_adapters(small: Path, tmp_path: Path, capsys: Capture) -> None:
    result = call(capsys, "scan", claimed(tmp_path / "huge", (40_000, 40_000, 16_000)), small, "--quiet")
    assert result.status == 2
    assert result.err.count("s3lora: ") == 1, "the other one is measured"


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "much"])
def test_a_limit_that_cannot_be_meant(limit: str, small: Path, capsys: Capture) -> None:
    result = call(capsys, "scan", small, "--max-cost", limit)
    assert result.status == 2
    assert "max-cost" in result.err or "max_cost" in result.err


def test_a_policy_has_it(small: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "s3lora.toml").write_text("max-cost = 1000\n")
    refused = call(capsys, "scan", small, "--policy", tmp_path / "s3lora.toml")
    assert refused.status == 2
    assert "1e3 are allowed" in refused.err
    assert call(capsys, "scan", small, "--policy", tmp_path / "s3lora.toml", "--max-cost", "1e12").status == 0


def test_a_fleet_has_an_error_for_it_and_tries_again(small: Path, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("pyarrow")
    claimed(tmp_path / "huge", (40_000, 40_000, 16_000))
    out = tmp_path / "out"
    given = ("fleet", "scan", small, tmp_path / "huge", "--out", out, "--workers", "1", "--format", "json")
    assert call(capsys, *given).status == 0
    (error,) = first_errors(out)
    assert "6.1 hours of one core" in str(error)
    assert call(capsys, *given, "--no-resume", "--max-cost", "1e3").status == 2
    assert call(capsys, *given).status == 0, "more is allowed than before, and the small one is measured"
    (error,) = first_errors(out)
    assert "6.1 hours of one core" in str(error)


def test_restoring_a_part_scans_again(small: Path, tmp_path: Path, capsys: Capture) -> None:
    assert call(capsys, "prune", small, "--top", "2", "-o", tmp_path / "pruned").status == 0
    gone = call(capsys, "scan", tmp_path / "pruned", "--format", "json").out
    path = next(path for path in MODULES if path not in gone)
    given = ("restore", tmp_path / "pruned", "--from", small, "-o", tmp_path / "restored", "--module", path)
    refused = call(capsys, *given, "--max-cost", "1e3")
    assert refused.status == 2
    assert not (tmp_path / "restored").exists()
    assert call(capsys, *given).status == 0


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heartbeat]:
    """Return what says how far a command `scan` is, each time that it is asked."""
    heart = Heartbeat()
    monkeypatch.setattr(progress, "HEART", heart)
    monkeypatch.setattr(heart, "start", lambda: None)
    with click.Context(click.Command("scan"), info_name="scan"):
        yield heart


def beaten(heart: Heartbeat, times: int = 1) -> None:
    """Let the time between lines pass so often, and the work end then."""
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) > times

    beating = Heartbeat(wait)
    beating.now = heart.now
    beating.beat()
    assert waited == [EVERY] * (times + 1)
    assert EVERY == 30


def test_a_line_of_what_is_done(command: Heartbeat, capsys: Capture) -> None:
    count = progress_line("\x1b[31mmy-adapter")
    assert count is not None
    beaten(command)
    count(1_200, 36_864)
    beaten(command, 2)
    count(36_864, 36_864)
    beaten(command)
    assert capsys.readouterr().err.splitlines() == [
        "s3lora: scan \ufffd[31mmy-adapter: none of its modules is done yet",
        "s3lora: scan \ufffd[31mmy-adapter: 1,200 of 36,864 modules",
        "s3lora: scan \ufffd[31mmy-adapter: 1,200 of 36,864 modules",
    ]


def test_what_follows_takes_its_place(command: Heartbeat, capsys: Capture) -> None:
    first, then = progress_line("a"), progress_line("by null 0.99", "shapes")
    assert first is not None
    assert then is not None
    first(1, 2)
    beaten(command)
    first(2, 2)
    then(3, 1500)
    beaten(command)
    assert capsys.readouterr().err.splitlines() == [
        "s3lora: scan a: 1 of 2 modules",
        "s3lora: scan by null 0.99: 3 of 1,500 shapes",
    ]


def test_a_rule_that_simulates_nothing_says_nothing(
    command: Heartbeat, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(select, "_candidates", lambda scan, *_: beaten(command) or list(scan.modules))
    assert run(["scan", str(small)]) == 0
    assert capsys.readouterr().err == ""
    assert run(["scan", str(small), "--rule", "null"]) == 0
    assert capsys.readouterr().err == "s3lora: scan by null 0.99: none of its shapes is done yet\n"


def test_quiet_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    context = click.Context(click.Command("scan"), info_name="scan")
    context.params["quiet"] = True
    with context:
        assert progress_line("adapter") is None


def test_the_share_of_an_evaluation(command: Heartbeat, capsys: Capture) -> None:
    with progress_bar() as advance:
        beaten(command)
        advance(0.25, "3 pruned by mas-svd")
        beaten(command)
    assert capsys.readouterr().err.splitlines() == [
        "s3lora: scan: 0% done, looking at what is to be measured",
        "s3lora: scan: 25% done, 3 pruned by mas-svd",
    ]


def test_a_scan_within_an_evaluation_does_not_end_its_lines(command: Heartbeat, capsys: Capture) -> None:
    with progress_bar() as advance:
        count = progress_line("my-adapter")
        assert count is not None
        beaten(command)
        count(2, 2)
        advance(0.0, "loading the model")
        beaten(command)
    assert capsys.readouterr().err.splitlines() == [
        "s3lora: scan my-adapter: none of its modules is done yet",
        "s3lora: scan: 0% done, loading the model",
    ]


def test_it_ends_with_the_command(small: Path, capsys: Capture) -> None:
    assert call(capsys, "scan", small).err == ""
    assert progress.HEART._thread is None
