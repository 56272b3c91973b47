"""One kind on a bench: its files, its updates, and running a command on them."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.open import open_adapter
from s3lora.cli.main import run
from tests.command import PROGRESS
from tests.kinds.kind import HIDDEN, INNER, LAYERS, VOCABULARY, Array, Kind, Stored, Updates, base_weights, write

#: Of updates in float32, relative to their size.
TOLERANCE = 2e-5
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
}

#: Of a base whose layers have experts.
EXPERTS = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": INNER,
    "head_dim": 8,
}


class WrongError(Exception):
    """A command ended otherwise than it should: a trace, an unknown status, or a wrong result."""


@dataclass(frozen=True)
class Cell:
    """How a command ended: `yes`, `partly`, `refused` or `none` (not applicable), why, and what it printed."""

    verdict: str
    why: str = ""
    said: str = ""


@dataclass
class Bench:
    """A kind in a folder: `first` and `second` are two adapters of it, `base` a model that they are for."""

    kind: Kind
    folder: Path
    models: Path
    updates: Updates = field(default_factory=list)
    others: Updates = field(default_factory=list)
    weights: Stored = field(default_factory=dict)

    @property
    def first(self) -> Path:
        return self.folder / "first"

    @property
    def second(self) -> Path:
        return self.folder / "second"

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def read(self) -> bool:
        """Return whether this kind has updates, so that commands can be right or wrong about it."""
        return bool(self.updates)

    def new(self, name: str) -> Path:
        """Return a place where nothing is."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        return place


def set_up(kind: Kind, folder: Path, models: Path) -> Bench:
    """Make two adapters of the kind, and its base."""
    bench = Bench(kind, folder, models)
    made = []
    for number, place in enumerate((bench.first, bench.second)):
        place.mkdir(parents=True)
        made.append(kind.make(place, np.random.default_rng([zlib.crc32(kind.title.encode()), number])))
    bench.updates, bench.others = made
    bench.base.mkdir()
    bench.weights = base_weights(kind.names or {})
    write(bench.base, "model.safetensors", bench.weights)
    mixture = any(".experts." in name for name in bench.weights)
    (bench.base / "config.json").write_text(json.dumps(CONFIG | EXPERTS if mixture else CONFIG))
    return bench


def call(*words: object) -> tuple[int, str, str]:
    """Run a command in this process; a trace is a fault."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("S3LORA_DEBUG", "1")
        try:
            status = run([str(word) for word in words])
        except Exception as error:
            raise WrongError(f"{type(error).__name__}: {error}") from error
    out.seek(0)
    return status, out.read(), PROGRESS.sub("", err.getvalue())


def refusal(status: int, err: str, places: Iterable[Path]) -> str:
    """Return what a refusal said, without places on this disk; a status without a sentence is a fault."""
    lines = [line for line in err.splitlines() if line.startswith("s3lora: ")] or err.splitlines()
    if status not in (1, 2, 3) or not lines:
        raise WrongError(f"status {status}: {err!r}")
    said = lines[-1].removeprefix("s3lora: ").removeprefix("error: ")
    for place in places:
        said = (
            said.replace(f"{place}/", "").replace(f"{place}: ", "").replace(f"{place} ", "").replace(str(place), "PATH")
        )
        said = re.sub(rf"^{place.name}(: | )", "", said)
    return said


def updates_of(path: Path, *options: str) -> Updates:
    """Return s·B·A of every module as the program reads the files, which is held against the kinds elsewhere."""
    found = []
    with open_adapter(path, *options[1:]) as adapter:
        for module in adapter.modules:
            b, a = (np.asarray(factor.array()).astype(np.float64) for factor in (module.B, module.A))
            found.append(module.scaling.value * b @ a)
    return found


def close(one: Array, other: Array, tolerance: float = TOLERANCE) -> bool:
    return one.shape == other.shape and bool(
        np.linalg.norm(one - other) <= tolerance * max(np.linalg.norm(one), np.linalg.norm(other))
    )


def unmatched(found: Updates, wanted: Updates, tolerance: float = TOLERANCE) -> tuple[Updates, Updates]:
    """Return what of both has no partner in the other."""
    left, rest = [], list(wanted)
    for one in found:
        at = next((i for i, other in enumerate(rest) if close(one, other, tolerance)), None)
        if at is None:
            left.append(one)
        else:
            del rest[at]
    return left, rest


def same(found: Updates, wanted: Updates, tolerance: float = TOLERANCE) -> None:
    """Raise WrongError unless both hold the same matrices."""
    left, rest = unmatched(found, wanted, tolerance)
    if left or rest:
        raise WrongError(f"{len(left)} updates are no right ones, {len(rest)} right ones are missing")


def same_numbers(found: Sequence[float], wanted: Sequence[float], what: str) -> None:
    if len(found) != len(wanted) or not np.allclose(sorted(found), sorted(wanted), rtol=1e-5, atol=1e-12):
        raise WrongError(f"{what}: {sorted(found)} instead of {sorted(wanted)}")


def norms(updates: Updates) -> list[float]:
    return [float(np.linalg.norm(update)) for update in updates]


def labelled(said: str, table: Sequence[tuple[str, str]]) -> str:
    """Return the few words for a sentence; one without is a fault, so that none is passed over."""
    for pattern, words in table:
        if re.search(pattern, said):
            return words
    raise WrongError(f"no words for: {said}")


Column = Callable[[Bench], Cell]


def columns(module: Any) -> Iterator[tuple[str, Column]]:
    """Yield the columns of a module, by title."""
    yield from module.COLUMNS.items()
