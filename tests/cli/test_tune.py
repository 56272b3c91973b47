"""`s3lora tune` from the command line to its files, on the tiny model."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.cli.measured import Heard, contents, found_in, heard, is_clean, one_line, validated
from tests.command import Result, call
from tests.tiny_adapters import MODULES, tiny_adapter

__all__ = ["heard"]

Capture = pytest.CaptureFixture[str]
FILES = ["report.html", "tuning.csv", "tuning.json"]
#: Fewer than ten items tell nothing.
SHORT = ("--limit", "12", "--tokens", "12")


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tiny, tmp_path_factory.mktemp("tune") / "adapter", 1)


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the adapter be of use: without a module of it, every reference is half as likely a token again."""
    monkeypatch.setattr(
        "s3lora.evaluate.local.LocalModel.losses",
        lambda model, prompts, texts: [(10.0 + len(t) + 5 * (not model.loaded().modules), 5) for t in texts],
    )


@pytest.mark.usefixtures("learned")
def test_all_forms_and_files(tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture, heard: Heard) -> None:
    def run(form: str, name: str, *more: object) -> Result:
        places = ("--output", tmp_path / name, "--format", form, *(more or ("--cache", tmp_path / "cache")))
        result = call(capsys, "tune", adapter, "--base", tiny, *SHORT, *places)
        assert result.status == 0
        [said] = result.err.splitlines()
        assert said.startswith("Before the trials: ")
        assert is_clean(result, tmp_path / name, tmp_path, tiny.parent, Path.home())
        return result

    first_run = run("json", "one")
    printed = first_run.out
    passes = heard.passes
    table, text = run("csv", "two").out, run("text", "three").out
    assert heard.passes == passes
    run("text", "four", "--no-cache")
    assert heard.passes == 2 * passes
    first = contents(tmp_path / "one")
    assert [path.name for path in first] == FILES
    for name in ("two", "three", "four"):
        assert list(contents(tmp_path / name).values()) == list(first.values())
    assert printed == (tmp_path / "one" / "tuning.json").read_text()
    assert table == (tmp_path / "one" / "tuning.csv").read_text()
    page = run("html", "five").out
    assert page == (tmp_path / "one" / "report.html").read_text()
    assert "These data cannot tell whether anything is worth pruning by ssi (mas-svd)" in page
    document = validated("tune", printed)
    assert document["forecast"] == first_run.err.strip()
    # A model of noise refuses nothing, with and without modules: there is no refusal to give back.
    assert (document["top"], document["confirmed"], document["modules_total"]) == (0, None, len(MODULES))
    assert (document["outcome"], document["tried"]) == ("cannot tell", [])
    assert document["sentence"].startswith("These data cannot tell whether anything is worth pruning by ssi (mas-svd)")
    assert (document["safety"], document["utility"]) == (["safety", "asr"], ["planning-loss", "loss"])
    assert document["sentence"][:40] in " ".join(text.split())
    assert "cannot tell what to prune" in text
    kinds = {row["kind"] for row in csv.DictReader(io.StringIO(table))}
    assert kinds == {"tuning base", "tuning unpruned", "held-out base", "held-out unpruned"}
    said = {answer for answer in heard.answers if len(answer) > 7}
    assert len(said) >= 4
    assert found_in(said, tmp_path) == set()


@pytest.mark.usefixtures("learned")
def test_a_gain_is_confirmed(
    tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that knows what the model says of itself with few modules, and a loss that does not mind."""
    monkeypatch.setattr("s3lora.evaluate.judges.openings.OpeningsJudge.refused", lambda _, text: text.startswith("No"))

    def obliging(model: object, prompts: list[object], decoding: object, batches: list[list[int]]) -> object:
        from s3lora.evaluate.chat import Generation

        text = "Yes" if model.loaded().modules > 2 else "No"  # type: ignore[attr-defined]
        yield from ((i, Generation(text, 1, True)) for batch in batches for i in batch)

    monkeypatch.setattr("s3lora.evaluate.local.LocalModel.generate", obliging)
    given = (
        "--limit",
        "12",
        "--cache",
        tmp_path / "cache",
        "--format",
        "json",
        "--index",
        "magnitude",
        "--floor",
        "0.2",
    )
    document = validated("tune", call(capsys, "tune", adapter, "--base", tiny, *given).out)
    # Four is the fewest that leave no more than two; all six would leave the base alone, and lose what was learned.
    assert (document["top"], document["floor"], document["ranking"]) == (4, 0.2, "magnitude (mas-svd)")
    assert document["outcome"] == "confirmed"
    assert "confirms that asr falls and that less than 20 % of what was learned is lost" in document["sentence"]
    assert document["confirmed"]["top"] == 4
    text = " ".join(call(capsys, "tune", adapter, "--base", tiny, *given[:4], *given[6:]).out.split())
    assert "4 of 6 modules by magnitude (mas-svd)" in text
    assert "held-out half" in text


def test_what_cannot_be_tuned_by_is_an_error(tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture) -> None:
    """Noise has learned nothing that could be lost; and of two items nobody can tell."""
    cache = ("--tokens", "2", "--cache", tmp_path / "cache")
    for limit, says in (
        ("12", "the adapter is worse than the base: it has learned nothing that could be lost"),
        ("2", "give at least 10 items for each half"),
    ):
        result = call(capsys, "tune", adapter, "--base", tiny, "--limit", limit, *cache)
        assert one_line(result, says)
        assert "nothing can be tuned: planning-loss loss: " in result.err


@pytest.mark.usefixtures("learned")
def test_the_page_alone(tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture) -> None:
    given = (*SHORT, "--no-cache", "--format", "html", "-o", tmp_path / "page.html")
    result = call(capsys, "tune", adapter, "--base", tiny, *given)
    assert (result.status, result.out) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


ERRORS = {
    "no base": (("{adapter}",), "--base is not given"),
    "no such model": (("{adapter}", "--base", "./nowhere"), "nowhere: no model folder or .gguf file is there"),
    "no such adapter": (("/no/such/adapter", "--base", "{tiny}"), "/no/such/adapter"),
    "no safety": (
        ("{adapter}", "--base", "{tiny}", "--suite", "planning-loss"),
        "a suite for safety and one for utility",
    ),
    "no utility": (("{adapter}", "--base", "{tiny}", "--suite", "safety"), "a suite for safety and one for utility"),
    "suite": (("{adapter}", "--base", "{tiny}", "--suite", "danger"), "no suite danger"),
    "output": (("{adapter}", "--base", "{tiny}", "-o", "{adapter}"), "is an adapter"),
    "one prompt": (("{adapter}", "--base", "{tiny}", "--harmful", "{file}"), "one item cannot be cut into two parts"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str, tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file.txt").write_text("Only this?\n")
    arguments, says = ERRORS[case]
    given = [text.format(tiny=tiny, adapter=adapter, file=tmp_path / "file.txt") for text in arguments]
    assert one_line(call(capsys, "tune", *given, "--limit", "1", "--cache", tmp_path / "cache"), says)


@pytest.mark.parametrize(
    ("option", "value"), [("--floor", "0"), ("--floor", "1.5"), ("--method", "qr"), ("--index", "sharp")]
)
def test_values_that_an_option_does_not_take(option: str, value: str, tmp_path: Path, capsys: Capture) -> None:
    result = call(capsys, "tune", tmp_path, option, value)
    assert (result.status, result.out) == (2, "")
    assert result.err.splitlines()[-1].startswith(f"Error: Invalid value for '{option}'")


@pytest.mark.usefixtures("learned")
def test_it_is_written_as_it_is_printed(tiny: Path, adapter: Path, tmp_path: Path, capsys: Capture) -> None:
    """Also where nothing is kept, and with another seed another split is told."""
    sets = []
    for seed in ("0", "1"):
        given = ("--limit", "10", "--tokens", "2", "--no-cache", "--format", "json", "--seed", seed)
        document = json.loads(call(capsys, "tune", adapter, "--base", tiny, *given).out)
        assert document["setup"]["seed"] == int(seed)
        sets.append([data["sha256"] for suite in document["suites"] for data in suite["data"]])
    assert sets[0] != sets[1]
