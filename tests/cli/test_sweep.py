"""`s3lora sweep` from the command line to its files on the tiny model; killed, interrupted and run twice at once."""

from __future__ import annotations

import csv
import io
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from s3lora.evaluate.store import FILE_NAME, AnswerStore
from tests.cli.measured import SHORT, Heard, contents, found_in, heard, is_clean, one_line, validated
from tests.command import PROGRESS, Result, call, environment
from tests.tiny_adapters import MODULES, tiny_adapter
from tests.watched import PATIENCE
from tests.watched import start as started

__all__ = ["heard"]

Capture = pytest.CaptureFixture[str]
FILES = ["curve.png", "report.html", "sweep.csv", "sweep.json"]
#: Six points beside the base and the adapter: all pruned is the base, whichever ranking says so.
GRID = ("--methods", "mas-svd,random", "--index", "ssi", "--top", "0,2,100%", "--control-seeds", "2")
ARGUMENTS = (*GRID, "--suite", "safety,planning-loss", *SHORT)


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tiny, tmp_path_factory.mktemp("sweep") / "adapter", 1)


def words(tiny: Path, adapter: Path, folder: Path, *more: object) -> list[object]:
    """Return a command whose answers are kept in `folder`, and whose results are written there."""
    places = ("--cache", folder / "cache", "--output", folder / "out")
    return ["sweep", adapter, "--base", tiny, *ARGUMENTS, *places, *more]


def rows(folder: Path) -> int:
    with AnswerStore(folder / "cache" / FILE_NAME) as store:
        return len(store)


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a sweep that nothing happened to, in a process of its own."""
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(words(tiny, adapter, folder))
    assert process.communicate(timeout=PATIENCE)[1] == ""
    assert process.returncode == 0
    return folder


def test_all_forms_and_files(
    tiny: Path, adapter: Path, undisturbed: Path, tmp_path: Path, capsys: Capture, heard: Heard
) -> None:
    def run(form: str) -> Result:
        result = call(capsys, *words(tiny, adapter, tmp_path, "--format", form))
        assert (result.status, result.err) == (0, "")
        assert is_clean(result, tmp_path / "out", tmp_path, tiny.parent, Path.home())
        return result

    printed, out = run("json"), tmp_path / "out"
    first = contents(out)
    assert [path.name for path in first] == FILES
    assert printed.out == (out / "sweep.json").read_text()
    document = validated("sweep", printed.out)
    assert [(p["ranking"], p["top"], p["seed"]) for p in document["points"]] == [
        (name, top, seed)
        for top in (2, len(MODULES))
        for name, seed in (("ssi (mas-svd)", None), ("random", 0), ("random", 1))
    ]
    assert (document["safety"], document["utility"]) == (["safety", "asr"], ["planning-loss", "loss"])
    for point in document["points"][3:]:
        assert point["metrics"] == document["base"]["metrics"]
    # Another cache in another process, and the same bytes.
    assert list(contents(undisturbed / "out").values()) == list(first.values())
    # What is known is not asked again.
    passes, kept = heard.passes, rows(tmp_path)
    table = run("csv").out
    text = " ".join(run("text").out.split())
    assert (heard.passes, rows(tmp_path)) == (passes, kept)
    assert contents(out) == first
    assert table == (out / "sweep.csv").read_text()
    found = list(csv.DictReader(io.StringIO(table)))
    assert {row["kind"] for row in found} == {"base", "unpruned", "pruned"}
    assert "2 of 6 pruned" in text
    assert "random ×2" in text
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    # Answers to harmful prompts are nowhere: not in the cache, and not in the files.
    said = {answer for answer in heard.answers if len(answer) > 7}
    assert len(said) >= 4
    assert found_in(said, tmp_path, undisturbed) == set()


def test_nothing_to_prune(tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture) -> None:
    """`--top 0` measures the base and the adapter alone, and every file is still written."""
    result = call(capsys, *words(tiny, adapter, tmp_path, "--top", "0"))
    assert (result.status, result.err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    document = validated("sweep", (tmp_path / "out" / "sweep.json").read_text())
    assert (document["points"], document["pareto"]) == ([], [])
    assert "no adapter" in result.out


def test_safety_alone(tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture) -> None:
    result = call(capsys, *words(tiny, adapter, tmp_path, "--suite", "safety", "--top", "50%"))
    assert (result.status, result.err) == (0, "")
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["utility"] is None
    assert len(contents(tmp_path / "out")) == len(FILES)


ERRORS = {
    "no base": (("{adapter}",), "--base is not given"),
    "no such model": (("{adapter}", "--base", "./nowhere"), "nowhere: no model folder or .gguf file is there"),
    "no such adapter": (("/no/such/adapter", "--base", "{tiny}"), "/no/such/adapter"),
    "suite": (("{adapter}", "--base", "{tiny}", "--suite", "danger"), "no suite danger"),
    "no safety": (("{adapter}", "--base", "{tiny}", "--suite", "planning-loss"), "no suite measures safety"),
    "method": (("{adapter}", "--base", "{tiny}", "--methods", "qr"), "no method or index qr; choose from mas-svd"),
    "index": (("{adapter}", "--base", "{tiny}", "--index", "sharp"), "no method or index sharp; choose from"),
    "match": (("{adapter}", "--base", "{tiny}", "--match", "sharp"), "sharp"),
    "top": (("{adapter}", "--base", "{tiny}", "--top", "ten"), "--top ten is no number of modules; write 10, 25%"),
    "no top": (("{adapter}", "--base", "{tiny}", "--top", ","), "--top names no number of modules"),
    "too many": (("{adapter}", "--base", "{tiny}", "--top", "7"), "--top 7 is more than the 6 modules"),
    "share": (("{adapter}", "--base", "{tiny}", "--top", "101%"), "--top 101% is more than the 6 modules"),
    "output": (("{adapter}", "--base", "{tiny}", "-o", "{adapter}"), "is an adapter"),
    "no output": (("{adapter}", "--base", "{tiny}", "-o", " "), "--output has no name"),
    "cache": (
        ("{adapter}", "--base", "{tiny}", "--cache", "{adapter}/adapter_config.json"),
        "cannot be used as a cache",
    ),
}


def test_an_adapter_smaller_than_the_default_numbers(tiny: Path, adapter: Path, capsys: Capture) -> None:
    """Ten of six modules cannot go, and nobody asked for it."""
    given = ("--methods", "svd", "--index", "ssi", "--suite", "safety", *SHORT, "--no-cache", "--format", "json")
    document = json.loads(call(capsys, "sweep", adapter, "--base", tiny, *given).out)
    assert [point["top"] for point in document["points"]] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str, tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture) -> None:
    arguments, says = ERRORS[case]
    given = [text.format(tiny=tiny, adapter=adapter) for text in arguments]
    before = contents(adapter)
    quick = ["--cache", tmp_path / "cache"] if "--cache" not in given else []
    assert one_line(call(capsys, "sweep", *given, "--limit", "1", *quick), says)
    assert contents(adapter) == before


def test_without_resvg(tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture, heard: Heard) -> None:
    """It is missed before hours are spent, and only where a curve is to be drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "resvg_py", None)
        result = call(capsys, *words(tiny, adapter, tmp_path))
        assert one_line(result, r"package resvg_py, which is not installed; run: pip install ")
        assert heard.passes == 0
        given = (*ARGUMENTS, "--top", "2", "--suite", "safety", "--no-cache")
        assert call(capsys, "sweep", adapter, "--base", tiny, *given).status == 0


# What happens to a sweep from outside


#: Says when an answer has been kept, and goes on when it is sent a line: it never ends before the test says so.
TELLS = """
import sys
from s3lora.evaluate.store import AnswerStore
put = AnswerStore.put
def telling(store, items):
    put(store, items)
    print("kept", flush=True)
    sys.stdin.readline()
AnswerStore.put = telling
from s3lora.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def start(arguments: Sequence[object], *, tells: bool = False) -> subprocess.Popen[str]:
    program = ["-c", TELLS] if tells else ["-m", "s3lora"]
    return started(
        [sys.executable, *program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment({"PYTHONWARNINGS": "ignore"}),
    )


def stopped_after(answers: int, seconds: float, number: signal.Signals, arguments: Sequence[object]) -> Result:
    """Run a sweep, and send it a signal after it has kept so many answers, somewhere on the way to the next."""
    process = start(arguments, tells=True)
    assert process.stdout is not None
    assert process.stdin is not None
    for _ in range(answers):
        assert process.stdout.readline() == "kept\n"
        process.stdin.write("\n")
        process.stdin.flush()
    time.sleep(seconds)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    return Result(process.returncode, out, err)


@pytest.mark.thorough
def test_killed_at_any_moment_it_goes_on(
    tiny: Path, adapter: Path, undisturbed: Path, tmp_path: Path, capsys: Capture, heard: Heard
) -> None:
    """Twice by a signal that cannot be caught, once by Ctrl-C: what comes out in the end is the same, byte for byte."""
    moments = random.Random(7)
    given = words(tiny, adapter, tmp_path)
    kept = [0]
    for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGINT):
        answers = moments.randint(1, 6)
        result = stopped_after(answers, moments.uniform(0, 0.1), number, given)
        assert list((tmp_path / "out").iterdir()) == []
        kept.append(rows(tmp_path))
        assert kept[-1] >= kept[-2] + answers
    assert (result.status, result.err) == (130, "s3lora: interrupted\n")
    assert set(result.out.splitlines()) <= {"kept"}
    assert kept[-1] < rows(undisturbed)
    assert call(capsys, *given).status == 0
    assert heard.passes > 0
    assert rows(tmp_path) == rows(undisturbed)
    first = contents(tmp_path / "out")
    assert [path.name for path in first] == FILES
    assert list(first.values()) == list(contents(undisturbed / "out").values())


@pytest.mark.thorough
def test_two_at_once_on_one_cache(tiny: Path, adapter: Path, undisturbed: Path, tmp_path: Path) -> None:
    both = [start(words(tiny, adapter, tmp_path, "-o", tmp_path / name)) for name in ("one", "two")]
    told = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert [PROGRESS.sub("", err) for _, err in told] == ["", ""]
    expected = list(contents(undisturbed / "out").values())
    assert list(contents(tmp_path / "one").values()) == list(contents(tmp_path / "two").values()) == expected
    assert rows(tmp_path) == rows(undisturbed)
