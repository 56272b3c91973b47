"""Undoing a pruning from the original."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from s3lora import (
    AdapterFileError,
    Clip,
    OutputError,
    Remove,
    UsageError,
    Zero,
    open_adapter,
    prune,
    read_provenance,
    restore,
    scan,
    select,
    write_pruned,
)
from tests.adapter.test_write import PATHS, beside, listing, sharded
from tests.planning import PREFIX, config_of, plan_of, prune_to, tensors_of
from tests.support import make_adapter

Q0, V0, Q1 = PATHS[:3]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = make_adapter(tmp_path / "source", dict.fromkeys(PATHS, (24, 16, 4)))
    (folder / "adapter_config.json").write_text(json.dumps(config_of(folder)) + "\n\n")  # spelled as nobody would
    return folder


@pytest.mark.parametrize("mode", [Remove(), Clip()])
def test_all_back_is_the_original_byte_by_byte(source: Path, tmp_path: Path, mode):
    original = listing(source)
    pruned = prune_to(source, tmp_path / "pruned", [Q0, V0], mode)
    (pruned / "notes.md").write_text("written after pruning")
    assert restore(pruned, source, tmp_path / "back") == (Q0, V0)
    assert listing(tmp_path / "back") == {**original, "notes.md": b"written after pruning"}
    restore(pruned, source, pruned, force=True)  # in place
    assert listing(pruned) == listing(tmp_path / "back")


def test_all_back_of_shards_and_of_a_renamed_torch_file(tmp_path: Path):
    torch = pytest.importorskip("torch")
    for source in (
        sharded(tmp_path / "shards", PATHS[:3]),
        make_adapter(tmp_path / "bin", {Q0: (8, 8, 2), Q1: (8, 8, 2)}),
    ):
        if source.name == "bin":
            tensors = {name: torch.from_numpy(value.copy()) for name, value in tensors_of(source).items()}
            (source / "adapter_model.safetensors").unlink()
            torch.save(tensors, source / "lora.bin")
        weights = source / "lora.bin" if source.name == "bin" else source
        pruned = prune_to(weights, tmp_path / f"{source.name}-pruned", [Q1])
        restore(pruned, weights, tmp_path / f"{source.name}-back")
        assert listing(tmp_path / f"{source.name}-back") == listing(source)


def test_some_back(source: Path, tmp_path: Path):
    pruned = prune_to(source, tmp_path / "pruned", [Q0, V0, Q1])
    assert restore(pruned, source, tmp_path / "back", modules=[V0]) == (V0,)
    assert listing(tmp_path / "back").keys() == listing(source).keys() | {"s3lora.json"}
    direct = prune_to(source, tmp_path / "direct", [Q0, Q1])
    before, after = tensors_of(source), tensors_of(tmp_path / "back")
    assert after.keys() == {name for name in before if Q0 not in name and Q1 not in name}
    assert all(np.array_equal(value, before[name]) for name, value in after.items())
    assert config_of(tmp_path / "back") == config_of(direct)
    record = read_provenance(tmp_path / "back")
    assert [(m.path, m.position, m.reason) for m in record.modules] == [(Q0, 1, "by hand"), (Q1, 3, "by hand")]
    assert record.plan.share.modules == 2
    restore(tmp_path / "back", source, tmp_path / "all")  # and again from there
    assert listing(tmp_path / "all") == listing(source)


def test_reasons_do_not_pile_up(tmp_path: Path):
    names = [f"model.layers.0.self_attn.{letter}_proj" for letter in "qkvo"]
    source = make_adapter(tmp_path / "source", dict.fromkeys(names, (8, 8, 2)))
    pruned = prune_to(source, tmp_path / "pruned", [names[0], names[3]], loader="sglang")
    restore(pruned, source, tmp_path / "back", modules=[names[3]])
    (first, _), (again,) = read_provenance(pruned).modules, read_provenance(tmp_path / "back").modules
    assert "zeroed because it is fused" in first.reason
    assert again.reason == first.reason


def test_an_adapter_pruned_twice_goes_back_one_step(source: Path, tmp_path: Path):
    once = prune_to(source, tmp_path / "once", [Q0])
    twice = prune_to(once, tmp_path / "twice", [Q1])
    assert config_of(twice)["exclude_modules"] == [Q0, Q1]
    restore(twice, once, tmp_path / "back")
    assert listing(tmp_path / "back") == listing(once)


def test_a_wrong_original_is_refused(source: Path, tmp_path: Path):
    pruned = prune_to(source, tmp_path / "pruned", [Q0])
    other = make_adapter(tmp_path / "other", dict.fromkeys(PATHS, (24, 16, 4)), seed=1)
    (other / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    with pytest.raises(OutputError, match=r"adapter_model\.safetensors differs"):
        restore(pruned, other, tmp_path / "back")
    (source / "adapter_config.json").write_text(json.dumps(config_of(source)))  # the same, spelled otherwise
    with pytest.raises(OutputError, match=r"adapter_config\.json differs"):
        restore(pruned, source, tmp_path / "back")
    assert beside(source) == {"source", "pruned", "other"}


def test_refusals(source: Path, tmp_path: Path):
    pruned = prune_to(source, tmp_path / "pruned", [Q0])
    with pytest.raises(UsageError, match="was not pruned"):
        restore(pruned, source, tmp_path / "back", modules=[Q1])
    with pytest.raises(OutputError, match="not empty"):
        restore(pruned, source, pruned)
    with pytest.raises(AdapterFileError, match="only what s3lora pruned"):
        restore(source, source, tmp_path / "back")
    assert beside(source) == {"source", "pruned"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: "not json",
        lambda record: "[]",
        lambda record: json.dumps({**record, "zeroed": 3}),
        lambda record: json.dumps({**record, "settings": {"factor": 0.5}}),
        lambda record: json.dumps({**record, "mode": "scale", "settings": {"factor": 7.0}}),
        lambda record: json.dumps({**record, "mode": "drop"}),
        lambda record: json.dumps({**record, "loader": "drop"}),
        lambda record: "[" * 100_000,
    ],
)
def test_a_damaged_record(source: Path, tmp_path: Path, damage):
    file = prune_to(source, tmp_path / "pruned", [Q0]) / "s3lora.json"
    file.write_text(damage(json.loads(file.read_text())))
    with pytest.raises(AdapterFileError, match="is not what s3lora writes"):
        read_provenance(file.parent)


def test_a_record_of_an_older_version(source: Path, tmp_path: Path):
    file = prune_to(source, tmp_path / "pruned", [Q0]) / "s3lora.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 1}))
    with pytest.raises(AdapterFileError, match="version 1, and this s3lora knows 2; prune the original again"):
        read_provenance(file.parent)


def test_a_pipe_for_a_record_does_not_block(tmp_path: Path):
    os.mkfifo(tmp_path / "s3lora.json")
    with pytest.raises(AdapterFileError, match="regular file"):
        read_provenance(tmp_path)


def test_some_back_of_zeroed_modules(source: Path, tmp_path: Path):
    pruned = prune_to(source, tmp_path / "pruned", [Q0, V0], Zero())
    restore(pruned, source, tmp_path / "back", modules=[Q0])
    after = tensors_of(tmp_path / "back")
    assert after[f"{PREFIX}{Q0}.lora_B.weight"].any()
    assert not after[f"{PREFIX}{V0}.lora_B.weight"].any()


def test_a_renamed_original_is_called_renamed(source: Path, tmp_path: Path):
    out = prune_to(source, tmp_path / "out", PATHS[:1])
    (source / "adapter_model.safetensors").rename(source / "model.safetensors")
    with pytest.raises(OutputError, match=r"it has no adapter_model\.safetensors"):
        restore(out, source, tmp_path / "back")


def test_a_scan_of_another_adapter_is_refused(source: Path, tmp_path: Path):
    other = make_adapter(tmp_path / "other", dict.fromkeys(PATHS, (10, 6, 2)))
    with open_adapter(source) as adapter:
        pruned = prune(adapter, plan_of(scan(adapter), PATHS[:1]))
        with pytest.raises(UsageError, match="the scan is of other"):
            write_pruned(pruned, scan(other), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_scan_and_plan_warn_of_is_recorded(tmp_path: Path):
    source = make_adapter(tmp_path / "source", {"layers.0.q_proj": (9, 8, 1), "layers.1.q_proj": (9, 8, 3)})
    with open_adapter(source) as adapter:
        measured = scan(adapter)
        plan = select(measured, unit="layer", combine="max")
        record, _ = write_pruned(prune(adapter, plan), measured, tmp_path / "out")
    assert read_provenance(tmp_path / "out") == record
    assert any("different ranks" in warning for warning in record.warnings)
    assert any("capped at 1" in warning for warning in record.warnings)
    assert (record.plan.unit, record.plan.combine) == ("layer", "max")
