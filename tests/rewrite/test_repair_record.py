"""The record of a repair, and undoing a repair from the original."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from s3lora import AdapterFileError, OutputError, UsageError, open_adapter, read_provenance, restore
from s3lora.adapter.digest import source_of
from s3lora.rewrite.factors import NewFactors
from s3lora.rewrite.provenance import provenance_of
from s3lora.rewrite.repair_record import RecordedData
from s3lora.rewrite.repaired import write_repaired
from tests.adapter.test_write import listing
from tests.planning import config_of, prune_to
from tests.rewrite.repairing import HOW, Q0, Q1, SHAPES, V0, V1, new_factor, repair_to
from tests.support import make_adapter


def test_the_record(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES)
    out, _ = repair_to(source, tmp_path / "b", {Q0: 6, V0: 0})
    record = read_provenance(out)
    assert (record.kind, record.repair.method, record.repair.strength) == ("repair", "patch", 0.5)
    assert record.repair.gates == HOW.gates
    assert record.repair.data == {"learning": (RecordedData("harmful", 32, "a" * 64),), "test": ()}
    assert [(m.path, m.before, m.rank, m.action) for m in record.modules] == [
        (Q0, 4, 6, "repaired"),
        (V0, 4, 4, "repaired"),
    ]
    assert record.done == "2 repaired by patch at strength 0.5"
    assert HOW.warnings[0] in record.warnings
    raw = (out / "s3lora.json").read_text()
    assert str(tmp_path) not in raw
    with open_adapter(out) as adapter:
        assert provenance_of(source_of(adapter), out) == record
        story = json.loads(adapter.files[0].metadata["s3lora"])
    assert story["repair"] == "patch"
    assert story["modules"] == {Q0: ["repaired", 6], V0: ["repaired", 4]}
    assert story["source_sha256"] == record.source.sha256


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"kind": "wish"}, "tells of a wish, which this s3lora does not know; update s3lora"),
        ({"schema_version": 2}, "is of schema version 2, and this s3lora knows 1; update s3lora"),
        ({"schema_version": 0}, "is of schema version 0, and this s3lora knows 1; repair the original again"),
        ({"modules": 3}, "is not what s3lora writes"),
        ({"loader": "onnx"}, "is not what s3lora writes: no loader"),
        ({"repair": {"method": "gates", "strength": 7}}, "is not what s3lora writes: a strength of 7"),
        ({"kind": ""}, "is of schema version 1, and this s3lora knows 2"),
    ],
)
def test_a_damaged_record(tmp_path: Path, damage, says: str):
    out, _ = repair_to(make_adapter(tmp_path / "a", SHAPES), tmp_path / "b", {Q0: 0})
    record = json.loads((out / "s3lora.json").read_text())
    (out / "s3lora.json").write_text(json.dumps({**record, **damage}))
    with pytest.raises(AdapterFileError, match=says):
        read_provenance(out)


def test_all_back_is_the_original_byte_by_byte(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES, dtype="bfloat16")
    (source / "adapter_config.json").write_text(json.dumps(config_of(source)) + "\n\n")
    out, _ = repair_to(source, tmp_path / "b", dict.fromkeys(SHAPES, 6))
    (out / "notes.md").write_text("written after the repair")
    assert restore(out, source, tmp_path / "back") == tuple(SHAPES)
    assert listing(tmp_path / "back") == {**listing(source), "notes.md": b"written after the repair"}
    other = make_adapter(tmp_path / "other", SHAPES, seed=1)
    with pytest.raises(OutputError, match="is not the adapter that was repaired"):
        restore(out, other, tmp_path / "wrong")
    with pytest.raises(UsageError, match="was not repaired"):
        restore(out, source, tmp_path / "wrong", modules=["model.layers.9"])
    restore(out, source, out, force=True)
    assert listing(out) == listing(tmp_path / "back")


def test_some_back_and_the_others_stay_repaired(tmp_path: Path):
    biases = {f"{path}.lora_B.bias": np.ones(SHAPES[path][0], np.float32) for path in SHAPES}
    source = make_adapter(tmp_path / "a", SHAPES, config={"lora_bias": True}, heads=biases)
    with open_adapter(source) as adapter:
        made = NewFactors({m.path: new_factor(m, 6, seed=i, bias=0.5) for i, m in enumerate(adapter.modules)})
        write_repaired(adapter, made, HOW, tmp_path / "b")
        assert restore(tmp_path / "b", source, tmp_path / "c", modules=[V0]) == (V0,)
        others = {path: new for path, new in made.modules.items() if path != V0}
        direct, _ = write_repaired(adapter, NewFactors(others), HOW, tmp_path / "direct")
    assert listing(tmp_path / "c").keys() == listing(tmp_path / "direct").keys()
    for name, content in listing(tmp_path / "direct").items():
        if name != "s3lora.json":
            assert listing(tmp_path / "c")[name] == content
    record = read_provenance(tmp_path / "c")
    assert record.repair.gates == {Q0: HOW.gates[Q0]}
    assert record.modules == direct.modules
    restore(tmp_path / "c", source, tmp_path / "all")
    assert listing(tmp_path / "all") == listing(source)
    restore(tmp_path / "b", source, tmp_path / "b", modules=[Q0, V0, Q1, V1], force=True)
    assert listing(tmp_path / "b") == listing(source)


def test_some_back_needs_the_weights_of_the_record(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES)
    out, _ = repair_to(source, tmp_path / "b", {Q0: 6, V0: 6})
    baked, _ = repair_to(source, tmp_path / "baked", {Q0: 6, V0: 6}, bake=True)
    with pytest.raises(UsageError, match=r"baked into lora_B.*put all back"):
        restore(baked, source, tmp_path / "c", modules=[Q0])
    raw = bytearray((out / "adapter_model.safetensors").read_bytes())
    raw[-1] ^= 1
    (out / "adapter_model.safetensors").write_bytes(raw)
    with pytest.raises(AdapterFileError, match="other weights"):
        restore(out, source, tmp_path / "c", modules=[Q0])
    restore(out, source, tmp_path / "c")
    assert listing(tmp_path / "c") == listing(source)


@pytest.mark.parametrize("name", ["../other.safetensors", "/x.safetensors", "a/b", "..", ""])
def test_a_record_names_no_file_outside_its_folder(tmp_path: Path, name: str):
    source = make_adapter(tmp_path / "a", SHAPES)
    out, _ = repair_to(source, tmp_path / "b", {Q0: 6, V0: 6})
    record = json.loads((out / "s3lora.json").read_text())
    record["written"] = [record["written"][0] | {"name": name}]
    (out / "s3lora.json").write_text(json.dumps(record))
    with pytest.raises(AdapterFileError, match=r"s3lora\.json: names a file outside the folder"):
        restore(out, source, tmp_path / "back", modules=[Q0])


def test_pruning_what_was_repaired_goes_back_one_step(tmp_path: Path):
    source = make_adapter(tmp_path / "a", SHAPES)
    out, _ = repair_to(source, tmp_path / "b", {Q0: 6})
    pruned = prune_to(out, tmp_path / "c", [V0])
    assert read_provenance(pruned).word == "pruned"
    restore(pruned, out, tmp_path / "back")
    assert listing(tmp_path / "back") == listing(out)
