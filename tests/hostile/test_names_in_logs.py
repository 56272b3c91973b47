"""Whatever names stand in a file: no line that s3lora prints is a command to a CI, and no cell of its CSV a formula."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.command import Result, call
from tests.support import factors, safetensors_bytes
from tests.test_outside import COMMANDS

#: What begins a command or a formula; a path made of these reads as one at many places where a line may be broken.
MARKS = (
    "::error::",
    "##vso[task.complete]",
    "##teamcity[x]",
    "##[error]",
    "section_start:1:",
    "=1+1",
    "@SUM",
    "-2",
    "＝3",
)
NAMES = st.lists(st.sampled_from((*MARKS, " ", "a;", "x" * 30, "q_proj", "0", "::")), min_size=1, max_size=4).map(
    "".join
)
FORMULA = re.compile(r"(?:^|;)\s*[=+@\-＝]")
NUMBER = re.compile(r"-?[0-9.]+(?:e[+-]?[0-9]+)?")


def write(folder: Path, names: list[str]) -> Path:
    """Write an adapter whose modules have these names, of a base of the first one."""
    folder.mkdir(parents=True)
    tensors = {}
    for at, name in enumerate(names):
        a, b = factors(8, 6, 2, seed=at)
        tensors |= {f"base_model.model.{name}.{at}.lora_{side}.weight": half for side, half in (("A", a), ("B", b))}
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "base_model_name_or_path": names[0],
        "target_modules": names,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def check(result: Result) -> None:
    """Check that no line of the output is a command."""
    for text in (result.out, result.err):
        for line in text.splitlines():
            found = COMMANDS.search(line)
            assert found is None, line[max(0, found.start() - 80) :][:160]


def check_cells(result: Result) -> None:
    """Check that no cell of a CSV is a formula."""
    check(result)
    for row in csv.reader(io.StringIO(result.out)):
        for cell in row:
            assert NUMBER.fullmatch(cell) or FORMULA.search(cell) is None, cell


#: Commands, with one adapter as `1`, another as `2`, and a folder that is not there as `out`.
COMMAND_LINES = (
    *("scan 1", "scan 1 --format csv", "scan 1 --format html", "scan 1 --format sarif", "scan 1 --format junit"),
    *("scan 1 --format json", "scan 1 2 --fail-on ssi>0", "scan 1 --only nothing", "scan 1 --only (", "scan 1 3"),
    *("scan 1 --format svg", "prune 1 -o out --top 1", "prune 1 -o out2 --top 1 --format csv", "prune 1 -o 2"),
    *("prune 1 -o out3 --top 1 --format json", "restore out 1 -o out4", "restore out 1 -o out5 --module nothing"),
    *("compare 1 2", "compare 1 2 --format csv", "compare 1 2 --format json", "compare 1 2 --format html"),
    *("compose 1 2", "compose 1 2 --format csv", "compose 1 2 --format json", "bom 1", "card 1 --print"),
    *("scan ::error::\n::error::", "scan 1 --layers ::error::\n##[x]", "::error::\n##vso[x]"),
)


@settings(max_examples=8, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=3), folder=st.sampled_from(MARKS))
def test_no_command_prints_a_command(names: list[str], folder: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as streams:
        patch.chdir(root)
        one, two = write(Path(folder), names), write(Path("2") / folder, names[::-1])
        (Path("3") / folder).mkdir(parents=True)
        (Path("3") / folder / "adapter_model.safetensors").write_bytes(b"nothing")
        given_as = {"1": f"./{one}", "2": str(two), "3": f"3/{folder}"}
        for line in COMMAND_LINES:
            capture = Capture(streams)
            result = call(capture, *(given_as.get(word, word) for word in line.split(" ")))  # type: ignore[arg-type]
            assert result.status in (0, 1, 2, 3), line
            (check_cells if "csv" in line else check)(result)


class Capture:
    """Catches what is printed, within one example of a property, as `capsys` does within one test."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.readouterr()

    def readouterr(self) -> Result:
        import sys

        streams = [getattr(sys, name) for name in ("stdout", "stderr")]
        told = [
            one.buffer.getvalue().decode() if isinstance(one, _Stream) and not one.flush() else "" for one in streams
        ]
        for name in ("stdout", "stderr"):
            self._patch.setattr(sys, name, _Stream(io.BytesIO(), "utf-8"))
        return Result(0, *told)


class _Stream(io.TextIOWrapper):
    pass
