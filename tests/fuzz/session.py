"""One target under a fuzzer for some seconds: what is tried, counted, kept and found."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.fuzz.contract import check, emptied, work_folder
from tests.fuzz.mutate import mutated
from tests.fuzz.target import Target, has_atheris

CORPUS = Path(__file__).with_name("corpus")
#: Most bytes of address space, so that what asks for all memory fails, and the machine does not.
SPACE = 16 * 1024**3
#: Seconds between two notes of the counts.
EVERY = 5.0


@dataclass
class Counts:
    """What was done for a target so far: inputs tried, and how they came out; seconds of the processor, since
    what else the machine does is not counted; inputs kept."""

    executions: int = 0
    accepted: int = 0
    refused: int = 0
    broken: int = 0
    died: int = 0
    seconds: float = 0.0
    corpus: int = 0
    found: list[str] = field(default_factory=list)


def read_counts(folder: Path) -> Counts:
    """Return the counts of a target, zeros where it was never run."""
    file = folder / "counts.json"
    return Counts(**json.loads(file.read_text())) if file.exists() else Counts()


def write_counts(folder: Path, counts: Counts) -> None:
    """Write the counts of a target, whole or not at all."""
    partial = folder / "counts.partial"
    partial.write_text(json.dumps(asdict(counts)) + "\n")
    partial.replace(folder / "counts.json")


def known(target: Target) -> list[bytes]:
    """Return the inputs to begin with: seeds, and what was found once."""
    found = sorted((CORPUS / target.name).glob("*")) if (CORPUS / target.name).is_dir() else []
    return [*target.seeds(), *(path.read_bytes() for path in found)]


class Session:
    """Runs one target until the time is over; its counts and what it found lie in `state`."""

    def __init__(self, target: Target, state: Path, seconds: float, work: Path) -> None:
        self.target = target
        self.folder = state / target.name
        for name in ("corpus", "found"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.counts = read_counts(self.folder)
        self._work = work
        self._start = self._noted = time.process_time()
        self._before = self.counts.seconds
        self._seconds = seconds

    def keep(self, data: bytes) -> None:
        """Put an input into the corpus."""
        path = self.folder / "corpus" / hashlib.sha256(data).hexdigest()[:20]
        if not path.exists():
            path.write_bytes(data)

    def attempt(self, data: bytes) -> bool:
        """Try one input, count it, and write down what breaks the contract; return whether time is left."""
        now = time.process_time()
        if now - self._start >= self._seconds:
            self.note(now)
            return False
        if now - self._noted > EVERY:
            self.note(now)
        self.counts.executions += 1
        try:
            if check(self.target, data, emptied(self._work / "input")):
                self.counts.accepted += 1
            else:
                self.counts.refused += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.counts.broken += 1
            self._found(data, error)
        return True

    def note(self, now: float) -> None:
        """Write the counts."""
        self._noted = now
        self.counts.seconds = round(self._before + now - self._start, 1)
        self.counts.corpus = sum(1 for _ in (self.folder / "corpus").iterdir())
        self.counts.found = sorted(path.stem for path in (self.folder / "found").glob("*.txt"))
        write_counts(self.folder, self.counts)

    def _found(self, data: bytes, error: BaseException) -> None:
        """Keep the smallest input for each place at which the contract was broken, with the traceback."""
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if "/s3lora/" in f.filename or "fuzz" in f.filename
        ]
        last = next((f for f in reversed(frames) if "/s3lora/" in f.filename), frames[-1])
        path = self.folder / "found" / f"{type(error).__name__}-{Path(last.filename).stem}-{last.lineno}"
        if not path.exists() or path.stat().st_size > len(data):
            path.write_bytes(data)
            path.with_name(f"{path.name}.txt").write_text(
                "".join(traceback.format_exception(error)), "utf-8", "replace"
            )


def run_plain(session: Session, seed: int) -> None:
    """Mutate what is known, and what was accepted or refused as nothing before, until the time is over."""
    target = session.target
    corpus = [*known(target), *(path.read_bytes() for path in sorted((session.folder / "corpus").iterdir()))]
    for data in corpus:
        if not session.attempt(data):
            return
    draw = random.Random(f"{seed} {target.name} {session.counts.executions}")
    while True:
        data = mutated(draw, corpus, target.words)
        accepted = session.counts.accepted
        if not session.attempt(data):
            return
        if session.counts.accepted > accepted and draw.random() < 0.02:
            session.keep(data)
            corpus.append(data)


def run_guided(session: Session, seed: int) -> None:
    """Let atheris choose the inputs by what they reach; never returns."""
    import atheris

    target = session.target
    inputs = known(target)
    for data in inputs:
        session.keep(data)
    dictionary = session.folder / "words"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if word))

    def one(data: bytes) -> None:
        if not session.attempt(data):
            os._exit(0)

    longest = max(4096, *(len(data) + 256 for data in inputs))
    options = [
        f"-max_len={longest}", f"-dict={dictionary}", f"-seed={seed + 1}", "-len_control=0", "-timeout=300",
        f"-artifact_prefix={session.folder}/found/died-", "-rss_limit_mb=8192",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(session.folder / "corpus")], one)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\x{c:02x}" for c in word)


def in_process_of_its_own(target: Target, state: Path, seconds: float, seed: int) -> None:
    """Run a target for some seconds in a child, which may die of it; what it counted and found is in `state`."""
    folder = state / target.name
    folder.mkdir(parents=True, exist_ok=True)
    with work_folder() as work:  # removed by the parent, for the child may die
        child = os.fork()
        if child == 0:
            try:
                _child(Session(target, state, seconds, work), seed)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
    if status != 0:
        counts = read_counts(folder)
        counts.died += 1
        write_counts(folder, counts)


def _child(session: Session, seed: int) -> None:
    log = os.open(session.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    (run_guided if has_atheris() else run_plain)(session, seed)
