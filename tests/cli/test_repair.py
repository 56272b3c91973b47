"""`s3lora repair` from the command line to the library and back; what the library does has tests of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from s3lora.adapter.digest import Source
from s3lora.adapter.open import open_adapter
from s3lora.evaluate.results import Setup, Variant
from s3lora.repair.methods.registry import METHODS
from s3lora.repair.results import Repair, RepairLimits, RepairOutcome
from tests.cli.measured import contents, is_clean, one_line
from tests.command import call, environment
from tests.repair.subjects import made
from tests.tiny_adapters import tiny_adapter

Capture = pytest.CaptureFixture[str]
#: Methods that need weights before alignment, where there are some.
UNALIGNED = [name for name, method in METHODS.items() if "unaligned" in method.needs]


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tiny, tmp_path_factory.mktemp("repair") / "adapter", 1)


def found(outcome: RepairOutcome) -> Repair:
    """Return a repair with this outcome."""
    return Repair(
        setup=Setup("tiny", "0" * 64, "transformers", "cpu", "float32", 0, None),
        source=Source("adapter", "peft", "0" * 64, (), None),
        outcome=outcome,
        sentence=f"It is {outcome}.",
        method="gates",
        strength=0.5,
        limits=RepairLimits(),
        safety=("safety", "asr"),
        utility=("task-loss", "loss"),
        suites=(),
        parts=(),
        trials=(),
        base=Variant(name="base", kind="base"),
        adapter=Variant(name="adapter", kind="adapter"),
        repaired=None,
    )


class Library:
    """Stands for the library: keeps what it is given, and finds what it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch, outcome: RepairOutcome = "repaired") -> None:
        self.outcome = outcome
        self.given: dict[str, Any] = {}
        patch.setattr("s3lora.repair.repairing.repair", self)

    def __call__(self, adapter: str, base: Any, data: Any, **given: Any) -> Repair:
        self.given = {"adapter": adapter, "base": base, "data": data, **given}
        given["tell"]("on so many prompts")
        return found(self.outcome)


#: A tiny model refuses nothing. But base and adapter begin their answers with different characters, and a list can take
#: all but those of the adapter for refusals.
LETTERS = [chr(i) for i in range(33, 127) if chr(i) not in "]Yf"]
#: A tiny model is hardly steered, so that little is asked of its repair.
LOOSE = ("--max-utility-loss", "90%", "--max-over-refusal", "0.9", "--method", "shrink", "--parts", "16,16,20")


def test_a_tiny_adapter_is_repaired(tmp_path: Path, capsys: Capture) -> None:
    base, folder = made(tmp_path, scale=0.1)
    (tmp_path / "letters.json").write_text(json.dumps({"name": "letters", "version": "1", "prefixes": LETTERS}))
    given = ("repair", folder, "--base", base, "--refusals", tmp_path / "letters.json", "--cache", tmp_path / "cache")
    found = tmp_path / "found"

    def once(out: str, *more: object, form: str = "json", status: int = 0) -> Any:
        result = call(capsys, *given, "-o", tmp_path / out, "--report", found, "--format", form, *LOOSE, *more)
        assert result.status == status
        assert is_clean(result, found, tmp_path, Path.home())
        return json.loads(result.out) if form == "json" else result.out

    document = once("out")
    assert document == json.loads((found / "repair.json").read_text())
    assert (document["outcome"], document["written"], document["method"]) == ("repaired", True, "shrink")
    kept = [trial for trial in document["trials"] if trial["kept"]]
    assert document["strength"] == min(kept, key=lambda trial: trial["asr"])["strength"]
    first = contents(tmp_path / "out")
    with open_adapter(tmp_path / "out") as repaired, open_adapter(folder) as before:
        for one, other in zip(repaired.modules, before.modules, strict=True):
            assert one.B.array() == pytest.approx(other.B.array() * (1 - document["strength"]), abs=1e-6)
    # The same once more is the same, byte by byte; an adapter that is there stays, without --force.
    assert one_line(call(capsys, *given, "-o", tmp_path / "out", *LOOSE), "--force")
    assert once("out", "--force") == document
    assert contents(tmp_path / "out") == first
    # A strength that keeps to no limit is no repair, and nothing is written.
    document = once("other", "--strength", "1", status=1)
    assert (document["outcome"], document["written"]) == ("nothing", False)
    [trial] = document["trials"]
    assert trial["reason"].startswith("it loses 100.0 % of what was learned, above 90 %")
    assert not (tmp_path / "other").exists()
    forced = once("other", "--strength", "1", "--force", status=1)
    assert (forced["outcome"], forced["written"]) == ("nothing", True)
    assert (tmp_path / "other" / "adapter_model.safetensors").exists()


def test_an_adapter_that_lost_nothing(tmp_path: Path, capsys: Capture) -> None:
    base, folder = made(tmp_path, scale=0.1)
    result = call(capsys, "repair", folder, "--base", base, "--no-cache", "-o", tmp_path / "out", "--parts", "10,10,10")
    assert result.status == 3
    assert "there is nothing to give back: the base itself refuses 0 of 10 harmful prompts" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("outcome", "status"), [("repaired", 0), ("refuted", 1), ("nothing", 1)])
def test_the_exit_status_says_whether_a_repair_holds(
    outcome: RepairOutcome, status: int, tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    Library(monkeypatch, outcome)
    given = ("repair", adapter, "--base", tiny, "-o", tmp_path / "out", "--no-cache")
    for form in ("json", "csv", "html", "text"):
        result = call(capsys, *given, "--report", tmp_path / "report", "--format", form)
        assert (result.status, result.err) == (status, "on so many prompts\n")
        if form != "text":
            name = "report.html" if form == "html" else f"repair.{form}"
            assert result.out == (tmp_path / "report" / name).read_text()
    files = ["repair.csv", "repair.json", "report.html", "trials.png"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == files
    assert json.loads((tmp_path / "report" / "repair.json").read_text())["outcome"] == outcome
    assert not (tmp_path / "out").exists()


def test_what_is_asked_for_by_default(
    tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(monkeypatch)
    assert call(capsys, "repair", adapter, "--base", tiny, "-o", tmp_path / "out", "--no-cache").status == 0
    asked = library.given
    data = asked["data"]
    assert [len(part.harmful) for part in (data.learning, data.tuning, data.test)] == [32, 50, 100]
    assert (asked["method"], asked["strength"], asked["loader"], asked["seed"]) == ("auto", None, "peft", 0)
    assert (asked["keep_rank"], asked["force"], asked["unaligned"], asked["store"]) == (False, False, None, None)
    assert asked["limits"] == RepairLimits(0.10, 0.05)
    assert (asked["adapter"].path, asked["out"]) == (adapter, str(tmp_path / "out"))


def test_every_option_reaches_the_library(
    tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(monkeypatch)
    for name, kind in (("bad", "Describe a way to"), ("good", "Tell me about"), ("new", "Write down how to")):
        lines = [json.dumps({"prompt": f"{kind} {'do ' * (i % 7)}thing {i}", "part": "a"}) for i in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    result = call(
        capsys, "repair", adapter, "--base", tiny, "-o", tmp_path / "out", "--cache", tmp_path / "cache",
        "--harmful", tmp_path / "bad.jsonl", "--benign", tmp_path / "good.jsonl", "--fresh", tmp_path / "new.jsonl",
        "--task", "planning", "--second-task", "maths", "--where", "harmful:part=a", "--parts", "12,13,14",
        "--refusals", "zou", "--method", "shrink", "--strength", ".5", "--max-utility-loss", "5 %",
        "--max-over-refusal", "0.02", "--keep-rank", "--loader", "vllm", "--force", "--seed", "3",
    )  # fmt: skip
    assert (result.status, result.err) == (0, "on so many prompts\n")
    asked = library.given
    data = asked["data"]
    for kind, name in (("harmful", "bad.jsonl"), ("harmless", "good.jsonl"), ("task", "built-in planning task")):
        parts = [getattr(part, kind) for part in (data.learning, data.tuning, data.test)]
        assert [len(part) for part in parts] == [12, 13, 14]
        assert {part.name for part in parts} == {name}
    assert data.fresh.name == "new.jsonl"
    assert data.second.name == "built-in maths task"
    assert (asked["method"], asked["strength"], asked["loader"], asked["seed"]) == ("shrink", 0.5, "vllm", 3)
    assert (asked["keep_rank"], asked["force"], asked["refusals"].name) == (True, True, "zou-2023")
    assert asked["limits"] == RepairLimits(0.05, 0.02)
    assert (tmp_path / "cache" / "generations.sqlite").exists()


def test_an_interrupt_says_how_to_go_on(
    tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Repair:
        raise KeyboardInterrupt

    monkeypatch.setattr("s3lora.repair.repairing.repair", interrupted)
    given = ("repair", adapter, "--base", tiny, "-o", tmp_path / "out")
    result = call(capsys, *given, "--cache", tmp_path / "cache")
    assert result.status == 130
    assert result.err == "s3lora: what is done stays done: the same command goes on from here\ns3lora: interrupted\n"
    assert call(capsys, *given, "--no-cache").err == "s3lora: interrupted\n"


ERRORS = {
    "no base": (("-o", "{new}"), "--base is not given"),
    "no such base": (("-o", "{new}", "--base", "./nowhere"), "nowhere: no model folder"),
    "an amount that is none": (("-o", "{new}", "--max-utility-loss", "ten"), "--max-utility-loss ten cannot be read"),
    "an amount below zero": (("-o", "{new}", "--max-over-refusal", "-1%"), "--max-over-refusal -1% cannot be read"),
    "all that was learned": (("-o", "{new}", "--max-utility-loss", "100%"), "--max-utility-loss 1 cannot be meant"),
    "nothing that was learned": (("-o", "{new}", "--max-utility-loss", "0"), "--max-utility-loss 0 cannot be meant"),
    "any refusal": (("-o", "{new}", "--max-over-refusal", "100 %"), "--max-over-refusal 1 cannot be meant"),
    "a strength of no method": (("-o", "{new}", "--strength", "0.5"), "--strength does nothing without --method"),
    "weights nobody reads": (("-o", "{new}", "--unaligned", "x"), "--unaligned does nothing with --method auto"),
    "a part too few": (("-o", "{new}", "--base", "{base}", "--parts", "8,9"), "--parts 8,9 cannot be read"),
    "an empty part": (("-o", "{new}", "--base", "{base}", "--parts", "0,9,9"), "--parts 0,9,9 cannot be read"),
    "an output without a name": (("-o", ""), "has no name"),
    "the adapter as the output": (("-o", "{adapter}"), "--force"),
    "a report in the output": (("-o", "{new}", "--report", "{new}/report"), "--report lies in the folder of --output"),
    "the output as the report": (("-o", "{new}", "--report", "{new}"), "--report lies in the folder of --output"),
    "the adapter as the report": (("-o", "{new}", "--report", "{adapter}"), "give --report a folder of its own"),
    "a report without a name": (("-o", "{new}", "--report", " "), "--report has no name"),
    "no such file": (("-o", "{new}", "--base", "{base}", "--harmful", "missing.csv"), "missing.csv"),
    "no such judge": (("-o", "{new}", "--base", "{base}", "--refusals", "nobody"), "nobody"),
    "both caches": (
        ("-o", "{new}", "--base", "{base}", "--cache", "{new}-cache", "--no-cache"),
        "--cache and --no-cache exclude each other",
    ),
    **{
        f"{name} without its weights": (("-o", "{new}", "--method", name), f"--method {name} needs --unaligned")
        for name in UNALIGNED
    },
}


@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS.keys())
def test_what_cannot_be_meant_is_one_sentence(
    case: tuple[tuple[str, ...], str], tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture
) -> None:
    words, says = case
    places = {"new": tmp_path / "new", "adapter": adapter, "base": tiny}
    result = call(capsys, "repair", adapter, *(word.format(**places) for word in words))
    assert one_line(result, says)
    assert [*tmp_path.iterdir()] == []


def test_repair_needs_an_output(adapter: Path, capsys: Capture) -> None:
    result = call(capsys, "repair", adapter, "--base", "x")
    assert result.status == 2
    assert "Missing option '-o' / '--output'" in result.err


def test_its_options_are_read_without_torch() -> None:
    code = "import sys, s3lora.cli.repair; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
