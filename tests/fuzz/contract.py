"""What must hold for every input, whatever its bytes: the contract of all targets.

An input is accepted, or refused by an S3LoRAError whose sentence is one printable line. Nothing else is raised, not
even a warning; it takes bounded time and memory; no file changes that was there; nothing is executed and no socket
opened.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from s3lora.cli.main import run
from s3lora.errors import S3LoRAError
from tests.fuzz.target import Target

#: Seconds of this process that one input may take, and bytes by which it may raise the peak of its memory.
SECONDS = 10.0
MEMORY = 256 * 1024 * 1024
LONGEST_SENTENCE = 2000
#: What a reader of files never does, by the names of Python's audit events.
FORBIDDEN = (
    "os.exec", "os.fork", "os.posix_spawn", "os.system", "subprocess.Popen", "pickle.find_class",
    "socket.bind", "socket.connect", "socket.getaddrinfo",
)  # fmt: skip


class BrokenContract(BaseException):
    """Something happened that no input may bring about."""


def check(target: Target, data: bytes, folder: Path) -> bool:
    """Try one input in an empty folder, which lies in a `work_folder`; return whether it was accepted.

    Raises whatever breaks the contract.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with _watched(), _timed(), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            target.fuzz(data, folder)
            accepted = True
        except S3LoRAError as error:
            check_sentence(error)
            accepted = False
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > MEMORY:
        raise BrokenContract(f"took {grown:,} bytes of memory")
    return accepted


def check_sentence(error: S3LoRAError) -> None:
    """Raise unless the error is told in one printable line of sane length."""
    for sentence in (str(error), error.located()):
        if not sentence.strip() or not sentence.isprintable() or len(sentence) > LONGEST_SENTENCE:
            raise BrokenContract(f"is no sentence: {sentence[:300]!r}")


@contextlib.contextmanager
def refusable() -> Iterator[None]:
    """Let a step after the first be refused as well."""
    try:
        yield
    except S3LoRAError as error:
        check_sentence(error)


@contextlib.contextmanager
def never_refused(why: str) -> Iterator[None]:
    """Raise BrokenContract if a step is refused, which must not be for the reason given."""
    try:
        yield
    except S3LoRAError as error:
        raise BrokenContract(f"{why}: {error}") from error


@contextlib.contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Raise BrokenContract if a file of the folder changes, goes or comes."""
    before = _state(folder)
    yield
    after = _state(folder)
    if after != before:
        names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        raise BrokenContract(f"changed {names}")


def _state(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def command(*words: object) -> tuple[int, str]:
    """Run the command line in this process; return its status and what it wrote to standard output."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    os.environ["S3LORA_DEBUG"] = "1"  # an internal error comes out as what it is
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run([str(word) for word in words])
    finally:
        del os.environ["S3LORA_DEBUG"]
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if status not in (0, 1, 2, 3):
        raise BrokenContract(f"ended with status {status}")
    if status in (2, 3) and not err.getvalue().strip():
        raise BrokenContract(f"ended with status {status} and without a word")
    for stream in (out, err):
        check_lines(stream.getvalue())
    return status, out.getvalue()


def check_lines(text: str) -> None:
    """Raise if a text would send a terminal anything but lines of printable characters."""
    for line in text.split("\n"):
        if not line.isprintable() and not line.replace("\t", "").replace("\r", "").isprintable():
            raise BrokenContract(f"prints {line[:300]!r}")


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """Give a folder for the files of inputs, in memory where the system has such a place."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=shm if os.access(shm, os.W_OK) else None) as name:
        _ours.append(os.path.realpath(name))
        yield Path(name)


def emptied(folder: Path) -> Path:
    """Remove what an input left and return the folder, made if it is not there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


#: Folders that may be written to.
_ours: list[str] = []
_watching = False
_hooked = False


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Raise BrokenContract at whatever is forbidden, and at a file elsewhere that is opened for writing."""
    global _watching, _hooked
    if not _hooked:
        sys.addaudithook(_hook)  # for ever: Python takes none back
        _hooked = True
    _watching = True
    try:
        yield
    finally:
        _watching = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or threading.current_thread() is not threading.main_thread():
        return
    if event in FORBIDDEN:
        raise BrokenContract(f"does {event}{arguments!r:.200}")
    if event == "open" and isinstance(arguments[0], str) and _writes(*arguments[1:]):
        path = os.path.realpath(arguments[0])
        caches = path.endswith(".pyc") or "__pycache__" in path or path == os.devnull
        if not caches and not path.startswith(tuple(_ours)):
            raise BrokenContract(f"writes to {path}")


def _writes(mode: str | None, flags: int) -> bool:
    return (mode is not None and bool(set(mode) & set("wax+"))) or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


@contextlib.contextmanager
def _timed() -> Iterator[None]:
    """Raise BrokenContract after so many seconds of this process: what else the machine does is not counted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(_: int, frame: FrameType | None) -> None:
        raise BrokenContract(f"took more than {SECONDS:g} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
