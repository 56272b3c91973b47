"""What the commands make of the folder of a repaired adapter."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import s3lora
from s3lora.report.schemas import schema
from tests.adapter.test_write import listing
from tests.cli.test_card import fails, fine
from tests.command import call
from tests.rewrite.repairing import HOW, Q0, SHAPES, V0, V1, repair_to
from tests.support import make_adapter


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    source = make_adapter(tmp_path / "adapter", SHAPES)
    repair_to(source, tmp_path / "repaired", {Q0: 6, V0: 6})
    return source


def test_it_is_scanned_and_pruned_like_any_other(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scanned = json.loads(fine(call(capsys, "scan", "repaired", "--format", "json")))
    assert {module["path"]: module["rank"] for module in scanned["modules"]} == {
        path: 6 if path in (Q0, V0) else 4 for path in SHAPES
    }
    fine(call(capsys, "prune", "repaired", "-o", "pruned", "--top", "1", "--force-flat"))
    fine(call(capsys, "restore", "pruned", "--from", "repaired", "-o", "back"))
    assert listing(Path("back")) == listing(Path("repaired"))


def test_the_card_tells_of_the_repair(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine(call(capsys, "card", "repaired"))
    said = " ".join(Path("repaired/README.md").read_text().split())
    assert "### Repair Made from `adapter` by s3lora" in said
    assert "2 repaired by patch at strength 0.5" in said
    assert f"- learning: harmful (n = 32, SHA-256 `{'a' * 12}`…)" in said
    assert "### Pruning" not in said
    assert f"Note: {HOW.warnings[0]}" in said
    assert "puts back what was repaired" in said
    record = s3lora.read_provenance("repaired")
    assert record.source.sha256 is not None
    assert record.source.sha256 in said
    assert record.written[0].sha256 in said
    assert fine(call(capsys, "card", "repaired", "--check")) == ""


def test_the_bill_of_materials_names_the_original(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = fine(call(capsys, "bom", "repaired"))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made) is None
    pedigree = json.loads(made)["metadata"]["component"]["pedigree"]
    assert "2 repaired by patch at strength 0.5. s3lora.json says more." in pedigree["notes"]
    record = s3lora.read_provenance("repaired")
    assert pedigree["ancestors"][0]["hashes"][0]["content"] == record.source.sha256


def test_weights_that_are_not_those_of_the_record(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = Path("repaired/adapter_model.safetensors")
    weights.write_bytes((source / weights.name).read_bytes())
    for command in ("card", "bom"):
        fails(call(capsys, command, "repaired"), r"repaired/s3lora\.json: tells of other weights .*make it again")


def test_it_is_restored(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("restore", "repaired", "--from", "adapter", "--format", "json")
    part = json.loads(fine(call(capsys, *command, "-o", "partly", "--module", V0)))
    jsonschema.Draft202012Validator(json.loads(schema("restore"))).validate(part)
    assert (part["modules"], part["pruned"], part["tensors"]) == ([V0], [Q0], [])
    assert "wrote back: 2 modules back" in fine(call(capsys, "restore", "repaired", "--from", "adapter", "-o", "back"))
    assert listing(Path("back")) == listing(source)
    again = (*command, "-o", "wrong", "--module", V1)
    fails(call(capsys, *again), rf"{V1} was not repaired; repaired were {Q0}, {V0}")
    fails(
        call(capsys, "restore", "repaired", "--from", "partly", "-o", "wrong"), "is not the adapter that was repaired"
    )
    assert not Path("wrong").exists()
