"""An adapter is opened once, hashed once and scanned from there; what PEFT is given is what was opened."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

import s3lora
from s3lora.errors import AdapterFileError, UnsupportedAdapterError
from s3lora.evaluate.evaluation import evaluate
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.sweeping import sweep
from s3lora.evaluate.tuning import tune
from tests.evaluate.stub_suites import Acting, first, logits, safety, usefulness
from tests.planning import tensors_of
from tests.tiny_adapters import tiny_adapter
from tests.tiny_model import torch

pytestmark = pytest.mark.usefixtures("few_resamples")
WEIGHTS = "adapter_model.safetensors"

_listeners: list[list[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _listeners:
        _listeners[-1].append(str(arguments[0]))


sys.addaudithook(_audit)


class Reads:
    """How often Python opened the weights of an adapter, and how often their SHA-256 was taken."""

    def __init__(self, weights: Path) -> None:
        self.weights = weights
        self.paths: list[str] = []
        self.hashed = 0

    @property
    def opened(self) -> int:
        return sum(path == str(self.weights) for path in self.paths)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Listen to every `open`, and to every digest that comes out as that of the file."""
        real = hashlib.sha256
        wanted = real(self.weights.read_bytes()).hexdigest()
        reads = self

        class Listening:
            def __init__(self, data: Any = b"") -> None:
                self.real = real(data)
                self.update = self.real.update

            def hexdigest(self) -> str:
                found = self.real.hexdigest()
                reads.hashed += found == wanted
                return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hashlib, "sha256", Listening)
            _listeners.append(self.paths)
            try:
                yield
            finally:
                _listeners.pop()


@pytest.fixture
def base(tiny: Path) -> LocalModel:
    return LocalModel(str(tiny))


@pytest.fixture
def adapter(tiny: Path, tmp_path: Path) -> Path:
    return tiny_adapter(tiny, tmp_path / "adapter", 1)


def danger(acting: Acting) -> list[float]:
    return first(5 + 5 * len(acting), 40)


def use(acting: Acting) -> list[float]:
    return [0.5 + len(acting) / 10 + i / 100 for i in range(40)]


def run_eval(adapter: Path, base: LocalModel) -> Any:
    return evaluate([adapter], base, [safety(danger)]).variants[1].adapter


def run_eval_unpruned(adapter: Path, base: LocalModel) -> Any:
    return evaluate([adapter], base, [safety(danger)], choose=None).variants[1].adapter


def run_sweep(adapter: Path, base: LocalModel) -> Any:
    return sweep(adapter, base, [safety(danger)], methods=["svd", "random"], indices=["ssi"], top=["2"]).adapter


def run_tune(adapter: Path, base: LocalModel) -> Any:
    suites = [safety(danger), usefulness(use)]
    return tune(adapter, base, suites, suites).adapter


@pytest.mark.parametrize("run", [run_eval, run_eval_unpruned, run_sweep, run_tune])
def test_one_open_and_one_hash(run: Callable[[Path, LocalModel], Any], adapter: Path, base: LocalModel) -> None:
    reads = Reads(adapter / WEIGHTS)
    with reads.counting():
        source = run(adapter, base)
    assert (reads.opened, reads.hashed) == (1, 1)
    assert source.sha256 == hashlib.sha256((adapter / WEIGHTS).read_bytes()).hexdigest()


def test_another_method_opens_nothing(adapter: Path, base: LocalModel) -> None:
    reads = Reads(adapter / WEIGHTS)
    with reads.counting():
        sweep(adapter, base, [safety(danger)], methods=["svd", "mas-svd", "spsvd"], indices=["ssi"], top=["2"])
    assert (reads.opened, reads.hashed) == (1, 1)


def test_what_is_measured_is_what_was_scanned(tiny: Path, adapter: Path, base: LocalModel, tmp_path: Path) -> None:
    """Other weights that take the place of the files between the scan and PEFT are an error."""
    other = tiny_adapter(tiny, tmp_path / "other", 2, lora_alpha=64)
    before = logits(base.adapters.model)
    with s3lora.open_adapter(adapter) as opened:
        measured = s3lora.scan(opened)
        for path in other.iterdir():
            path.replace(adapter / path.name)
        with pytest.raises(AdapterFileError, match="was changed while it was read; run this again"):
            base.attach(opened, measured.source)
    assert torch.equal(logits(base.adapters.model), before)
    base.use(base.attach(adapter))
    assert not torch.equal(logits(base.adapters.model), before)


def test_weights_in_shards(tiny: Path, adapter: Path, base: LocalModel, tmp_path: Path) -> None:
    """PEFT alone reads no index of shards."""
    tensors = tensors_of(adapter)
    parts = {"a.safetensors": list(tensors)[::2], "b.safetensors": list(tensors)[1::2]}
    sharded = shutil.copytree(adapter, tmp_path / "sharded", ignore=shutil.ignore_patterns(WEIGHTS))
    for name, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, sharded / name)
    index = {"weight_map": {key: name for name, keys in parts.items() for key in keys}}
    (sharded / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    base.use(base.attach(adapter))
    whole = logits(base.adapters.model)
    base.use(base.attach(sharded))
    assert torch.equal(logits(base.adapters.model), whole)


def test_weights_without_a_configuration(adapter: Path, base: LocalModel) -> None:
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(UnsupportedAdapterError, match=r"has no adapter_config\.json"):
        base.attach(adapter)
