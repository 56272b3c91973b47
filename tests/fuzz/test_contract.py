"""The contract itself: each way to break it is noticed, so that a target that holds it says something."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from s3lora.errors import AdapterFileError
from tests.fuzz import contract
from tests.fuzz.contract import BrokenContract, check, refusable, untouched, work_folder
from tests.fuzz.draw import Draw
from tests.fuzz.measuring import put, shown
from tests.fuzz.session import Session, read_counts, run_plain
from tests.fuzz.target import Target


def toy(fuzz: Callable[[bytes, Path], object]) -> Target:
    return Target("toy", "made up", fuzz, lambda: (b"ab", b"cd"), (b"xyz",))


def attempt(fuzz: Callable[[bytes, Path], object]) -> bool:
    with work_folder() as work:
        return check(toy(fuzz), b"", work)


def test_what_is_accepted_and_what_is_refused() -> None:
    def refuse(_: bytes, __: Path) -> None:
        raise AdapterFileError("is broken", file="x")

    assert attempt(lambda data, folder: (folder / "x").write_bytes(data))
    assert not attempt(refuse)


def _change(_: bytes, folder: Path) -> None:
    (folder / "x").write_bytes(b"1")
    with untouched(folder):
        (folder / "x").write_bytes(b"2")


def _swallowing(_: bytes, __: Path) -> None:
    try:
        subprocess.run([sys.executable, "-c", ""], check=True)
    except Exception:
        return


def _unprintable(_: bytes, __: Path) -> None:
    with refusable():
        raise AdapterFileError("line\nbreak")


BROKEN: dict[str, Callable[[bytes, Path], object]] = {
    "changes-input": _change,
    "runs-a-process": _swallowing,
    "runs-a-shell": lambda _, __: os.system("true"),
    "unpickles": lambda _, __: pickle.loads(pickle.dumps(AdapterFileError)),
    "connects": lambda _, __: socket.create_connection(("127.0.0.1", 9)),
    "writes-elsewhere": lambda _, __: Path("elsewhere").write_bytes(b""),
    "two-lines": _unprintable,
    "escape": lambda _, __: contract.check_lines("a\x1b[2J"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_contract(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrokenContract):
        attempt(BROKEN[name])
    assert not list(tmp_path.iterdir())


def test_whatever_else_is_raised_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        attempt(lambda _, __: 1 // 0)
    with pytest.raises(UserWarning):
        attempt(lambda _, __: warnings.warn("careful", stacklevel=1))


def test_time_and_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(_: bytes, __: Path) -> None:
        while True:
            pass

    monkeypatch.setattr(contract, "SECONDS", 0.05)
    with pytest.raises(BrokenContract, match="took more than"):
        attempt(forever)
    monkeypatch.setattr(contract, "MEMORY", -1)  # for what this process took before cannot be known
    with pytest.raises(BrokenContract, match="bytes of memory"):
        attempt(lambda _, __: None)


def test_a_number_that_json_has_not_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import s3lora

    with work_folder() as work:
        measured = s3lora.scan(put(work / "in"))
    shown(measured)
    monkeypatch.setattr("tests.fuzz.measuring.to_json", lambda document: '{"a": NaN}')
    with pytest.raises(BrokenContract, match="NaN"):
        shown(measured)


def test_the_same_bytes_are_the_same_choices() -> None:
    data = np.random.default_rng(0).bytes(400)
    document = {"a": [1, 2, {"b": "c"}], "d": 0.5}
    first, again = Draw(data), Draw(data)
    assert [first.value() for _ in range(9)] == [again.value() for _ in range(9)]
    assert first.edited(document) == again.edited(document)
    assert Draw(b"").edited(document) == document, "nothing to draw from changes nothing"
    assert Draw(b"\3\1\1\1" * 9).edited(document) != document


def test_a_session_counts_and_goes_on_where_it_was(tmp_path: Path) -> None:
    def fuzz(data: bytes, _: Path) -> None:
        if b"xyz" in data:
            raise AdapterFileError("is broken")
        if data.startswith(b"a") and len(data) > 1:
            raise KeyError(data)

    with work_folder() as work:
        run_plain(Session(toy(fuzz), tmp_path, 0.2, work), seed=0)
        first = read_counts(tmp_path / "toy")
        run_plain(Session(toy(fuzz), tmp_path, 0.2, work), seed=0)
    second = read_counts(tmp_path / "toy")
    assert first.executions == first.accepted + first.refused + first.broken > 0
    assert second.executions > first.executions
    assert second.seconds > first.seconds
    (found,) = second.found
    assert found.startswith("KeyError-")
    assert len((tmp_path / "toy" / "found" / found).read_bytes()) == 2, "the smallest is kept"
    assert "KeyError" in (tmp_path / "toy" / "found" / f"{found}.txt").read_text()
