"""`--adapter NAME` of what measures a model: of two adapters in one file the named one takes part, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.open import open_adapter
from tests.cli.measured import SHORT
from tests.command import call
from tests.repair.subjects import made
from tests.support import write_safetensors
from tests.tiny_adapters import learned_adapter, tiny_adapter

Capture = pytest.CaptureFixture[str]
#: A sweep in a few seconds.
SWEEP = ("--methods", "mas-svd", "--index", "ssi", "--top", "2", "--suite", "planning-loss,safety", *SHORT)


def together(folder: Path, **adapters: Path) -> Path:
    """Write adapters of one configuration into one file, each under its name."""
    folder.mkdir()
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name, path in adapters.items():
        with open_adapter(path) as adapter:
            (folder / "adapter_config.json").write_bytes(adapter.config_raw or b"")
            for file in adapter.files:
                for key, tensor in file.tensors.items():
                    tensors[key.replace(".weight", f".{name}.weight")] = np.array(tensor.array())
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    return folder


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("names")
    return {name: tiny_adapter(tiny, folder / name, seed) for seed, name in enumerate(("first", "second"), 1)}


@pytest.fixture(scope="module")
def both(alone: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return together(tmp_path_factory.mktemp("both") / "both", **alone)


def test_sweep(tiny: Path, alone: dict[str, Path], both: Path, tmp_path: Path, capsys: Capture) -> None:
    """One cache for both: the answers of one are never taken for those of the other."""

    def run(path: Path, *more: object) -> Any:
        words = ("sweep", path, "--base", tiny, *SWEEP, "--cache", tmp_path / "cache", "--format", "json", *more)
        return json.loads(call(capsys, *words).out)

    whole = {name: run(both, "--adapter", name) for name in alone}
    for name, path in alone.items():
        mine = run(path)
        assert whole[name]["adapter"]["adapter"] == name
        for part in ("unpruned", "base"):
            assert whole[name][part]["metrics"] == mine[part]["metrics"]
        assert whole[name]["points"] == mine["points"]
    assert whole["first"]["points"] != whole["second"]["points"]
    for words, says in (((), "--adapter first"), (("--adapter", "third"), "it holds first, second")):
        told = call(capsys, "sweep", both, "--base", tiny, *SWEEP, "--no-cache", *words)
        assert (told.status, says in told.err) == (2, True)


def test_eval_takes_one_name_for_each(tiny: Path, both: Path, tmp_path: Path, capsys: Capture) -> None:
    names = ("--adapter", "first", "--adapter", "second")
    words = ("--base", tiny, "--suite", "planning-loss", "--no-prune", "--no-cost", "--no-cache", *SHORT)
    made = json.loads(call(capsys, "eval", both, both, *names, *words, "--format", "json").out)
    measured = [one for one in made["variants"] if one["kind"] == "adapter"]
    assert [one["adapter"]["adapter"] for one in measured] == ["first", "second"]
    assert measured[0]["metrics"] != measured[1]["metrics"]
    text = call(capsys, "eval", both, both, *names, *words).out
    assert "both, both" in text
    told = call(capsys, "eval", both, *names, *words)
    assert (told.status, "2 names for 1 adapters" in told.err) == (2, True)


def test_tune(tiny: Path, alone: dict[str, Path], tmp_path: Path, capsys: Capture) -> None:
    learned = learned_adapter(tiny, tmp_path / "learned")
    other = tiny_adapter(tiny, tmp_path / "other", 1, lora_alpha=1)
    folder = together(tmp_path / "both", useful=learned, other=other)
    words = ("tune", "--base", tiny, "--limit", "12", "--tokens", "12", "--no-cache", "--format", "json")
    named = json.loads(call(capsys, *words, folder, "--adapter", "useful").out)
    mine = json.loads(call(capsys, *words, learned).out)
    assert named["adapter"]["adapter"] == "useful"
    assert (named["outcome"], named["tried"]) == (mine["outcome"], mine["tried"])


def test_repair_writes_the_named_one_alone(tmp_path: Path, capsys: Capture) -> None:
    base, folder = made(tmp_path, scale=0.1)
    both = together(tmp_path / "both", wanted=folder, other=tiny_adapter(base, tmp_path / "other", 5))
    letters = [chr(i) for i in range(33, 127) if chr(i) not in "]Yf"]
    (tmp_path / "letters.json").write_text(json.dumps({"name": "letters", "version": "1", "prefixes": letters}))
    loose = ("--max-utility-loss", "90%", "--max-over-refusal", "0.9", "--method", "shrink", "--parts", "16,16,20")
    words = ("--base", base, "--refusals", tmp_path / "letters.json", "--no-cache", *loose, "--format", "json")
    done = call(capsys, "repair", both, "--adapter", "wanted", "-o", tmp_path / "out", *words)
    assert done.out, done.err
    document = json.loads(done.out)
    assert (document["outcome"], document["source"]["adapter"]) == ("repaired", "wanted")
    with open_adapter(tmp_path / "out") as repaired, open_adapter(folder) as before:
        assert len(repaired.modules) == len(before.modules)
        for one, other in zip(repaired.modules, before.modules, strict=True):
            assert one.B.array() == pytest.approx(other.B.array() * (1 - document["strength"]), abs=1e-6)
    assert call(capsys, "restore", tmp_path / "out", "--from", both, "-o", tmp_path / "back").status == 0
    back, original = (path / "adapter_model.safetensors" for path in (tmp_path / "back", both))
    assert back.read_bytes() == original.read_bytes()
