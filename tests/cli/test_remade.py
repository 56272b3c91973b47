"""What was resized, added up or converted: `card`, `bom` and `restore` go by its record, and by its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from s3lora.rewrite.conversion_record import ConversionRecord
from s3lora.rewrite.provenance import read_record
from s3lora.rewrite.resize_record import ResizeProvenance
from s3lora.rewrite.sum_record import SumProvenance
from tests.command import call
from tests.gated import LAYERS, good
from tests.support import make_adapter

#: What is made of `a` and `b` → the command, its record, the card's heading, and words that the card has.
MADE = {
    "resized": (("resize", "a", "--rank", "2"), ResizeProvenance, "Resizing", "8 from rank 4 to 2"),
    "summed": (("compose", "a", "b", "--weights", "1,0.5"), SumProvenance, "Sum", "Weights: 1.00, 0.500"),
    "converted": (("convert", "a", "--loader", "vllm=0.10.0"), ConversionRecord, "Conversion",
                  "8 modules written as peft for vllm=0.10.0"),
}  # fmt: skip
made = pytest.mark.parametrize("name", MADE)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    good(tmp_path / "a")
    make_adapter(tmp_path / "b", LAYERS, seed=50)
    for name, (command, *_) in MADE.items():
        result = call(capsys, *command, "-o", name)
        assert result.status == 0, result.err
    return tmp_path


@made
def test_the_card_says_how_it_was_made(name: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, form, heading, words = MADE[name]
    record = read_record(name)
    assert isinstance(record, form)
    result = call(capsys, "card", name)
    assert result.status == 0, result.err
    card = (desk / name / "README.md").read_text()
    section = card.partition(f"### {heading}\n")[2].partition("### To verify")[0]
    assert words in section
    for source in record.sources:
        assert f"| source, `{source.name}` | `{source.sha256}` |" in section
    assert "\n\n\n" not in section
    assert "s3lora restore" not in card, "which would be refused"
    assert call(capsys, "card", name, "--check").status == 0


@made
def test_the_bill_names_its_ancestors(name: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "bom", name)
    assert result.status == 0, result.err
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(result.out) is None
    content = json.loads(result.out)
    pedigree = content["metadata"]["component"]["pedigree"]
    record = read_record(name)
    assert [one["hashes"][0]["content"] for one in pedigree["ancestors"]] == [one.sha256 for one in record.sources]
    assert pedigree["notes"].startswith("Written by s3lora ")
    assert record.done in pedigree["notes"]


def test_an_adapter_that_is_added_to_itself_is_one_ancestor(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "compose", "a", "a", "-o", "twice").status == 0
    printed = call(capsys, "bom", "twice").out
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(printed) is None
    content = json.loads(printed)
    assert len(content["metadata"]["component"]["pedigree"]["ancestors"]) == 1


@made
def test_restoring_names_what_it_was_made_from(name: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "restore", name, "--from", "a", "-o", "back")
    assert result.status == 2
    assert f"was {read_record(name).word}, which cannot be undone from it; take what it was made from: a (SHA-256 " in (
        result.err
    )
    assert not (desk / "back").exists()


@made
@pytest.mark.parametrize("command", ["card", "bom"])
def test_other_weights_than_those_of_the_record(
    name: str, command: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / name / "adapter_model.safetensors").write_bytes((desk / "b/adapter_model.safetensors").read_bytes())
    (desk / name / "adapter_config.json").write_bytes((desk / "b/adapter_config.json").read_bytes())
    result = call(capsys, command, name)
    assert (result.status, result.out) == (2, "")
    assert "tells of other weights than those that lie here: adapter_model.safetensors differs" in result.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"kind": "sum"}', "is not what s3lora writes"),
        ('{"kind": "resize", "schema_version": 99}', "is of schema version 99, and this s3lora knows 1; update s3lora"),
        ('{"kind": "conversion", "schema_version": 0}', "knows 1; convert the original again"),
        ('{"kind": "distilled"}', "tells of a distilled, which this s3lora does not know"),
    ],
)
def test_records_that_cannot_be(text: str, says: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "resized/s3lora.json").write_text(text)
    for command in (("card", "resized"), ("bom", "resized"), ("restore", "resized", "--from", "a", "-o", "back")):
        result = call(capsys, *command)
        assert result.status == 2
        assert says in result.err


@made
def test_pruning_it_goes_on_from_it(name: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And restoring what was pruned gives the resized adapter back, with its own record."""
    assert call(capsys, "prune", name, "-o", "pruned", "--top", "2", "--force-flat").status == 0
    result = call(capsys, "restore", "pruned", "--from", name, "-o", "back")
    assert result.status == 0, result.err
    assert read_record("back") == read_record(name)
    assert call(capsys, "card", "back", "--print").status == 0
