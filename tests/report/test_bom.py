"""The bill of materials: valid by CycloneDX's own schema, the same bytes every time, and nothing invented."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from s3lora.adapter.digest import FileDigest, Source, source_of
from s3lora.adapter.open import open_adapter
from s3lora.errors import printable
from s3lora.evaluate.figures import figures_of
from s3lora.report.bom import bom
from s3lora.report.spdx import SPDX
from tests.command import call
from tests.report import made_inventory, measured
from tests.report.test_card import record
from tests.report.test_markdown import MARKUP
from tests.report.test_text import HOSTILE
from tests.support import make_adapter

MODULES = {f"h.{i}.q_proj": (8, 6, 2) for i in range(4)}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("bom") / "adapter", MODULES)


def made(adapter: Path, source: Source | None = None, **more: Any) -> dict[str, Any]:
    """Return the bill, which is valid."""
    with open_adapter(adapter) as opened:
        text = bom(opened, source or source_of(opened), **more)
    errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert errors is None, errors
    content: dict[str, Any] = json.loads(text)
    assert "timestamp" not in text
    assert no_empty(content)
    return content


def no_empty(part: Any) -> bool:
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return part not in (None, "", [], {}) and all(map(no_empty, parts))


def component(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["metadata"]["component"]
    return found


def properties(part: Mapping[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in part["properties"]}


def test_what_an_adapter_is_made_of(adapter: Path) -> None:
    content = made(adapter)
    assert (content["bomFormat"], content["specVersion"], content["version"]) == ("CycloneDX", "1.6", 1)
    assert [tool["name"] for tool in content["metadata"]["tools"]["components"]] == ["s3lora"]
    found = component(content)
    assert (found["type"], found["name"]) == ("machine-learning-model", "adapter")
    with open_adapter(adapter) as opened:
        source = source_of(opened)
    assert found["hashes"] == [{"alg": "SHA-256", "content": source.sha256}]
    files = {part["name"]: part["hashes"][0]["content"] for part in found["components"]}
    assert files == {file.name: file.sha256 for file in source.files}
    assert properties(found) == {
        "s3lora:format": "peft", "s3lora:modules": "4", "s3lora:parameters": "112", "s3lora:ranks": "2",
        "s3lora:dtypes": "float32",
    }  # fmt: skip
    assert found["modelCard"] == {"modelParameters": {"task": "CAUSAL_LM"}}
    assert {"licenses", "pedigree"}.isdisjoint(found)


def test_all_parameters_are_counted(adapter: Path) -> None:
    found = properties(component(made(adapter, inventory=made_inventory.full())))
    kinds = {name.removeprefix("s3lora:parameters:"): int(n) for name, n in found.items() if "parameters:" in name}
    assert kinds == {
        "lora": 112, "heads": 128, "tokens": 64, "bias": 8, "dora": 40, "base-weights": 8, "unknown": 3,
    }  # fmt: skip
    assert int(found["s3lora:parameters"]) == sum(kinds.values())
    assert found["s3lora:tensors:dora"] == "5"


def test_tensors_are_counted_without_an_inventory(tmp_path: Path) -> None:
    head = {"score.weight": np.ones((2, 4), np.float32)}
    found = properties(component(made(make_adapter(tmp_path / "a", MODULES, heads=head))))
    assert (found["s3lora:parameters"], found["s3lora:parameters:base-weights"]) == ("120", "8")


def test_every_file_of_the_folder_is_a_part(adapter: Path) -> None:
    inventory = made_inventory.full()
    found = component(made(adapter, inventory=inventory))
    parts = {part["name"]: part for part in found["components"]}
    assert {*parts} == {file.path for file in inventory.files}
    with open_adapter(adapter) as opened:
        source = source_of(opened)
    hashed = {name: part["hashes"][0]["content"] for name, part in parts.items() if "hashes" in part}
    assert hashed == {file.name: file.sha256 for file in source.files}
    assert properties(parts["adapter_model.safetensors"])["s3lora:role"] == "weights"
    assert properties(parts["made-up.bin"]) == {
        "s3lora:bytes": "2000", "s3lora:role": "other weights", "s3lora:content": "different",
    }  # fmt: skip
    named = [entry["value"] for entry in parts["made-up.pkl"]["properties"] if entry["name"] == "s3lora:names"]
    assert named == [f"os.made-up{i}" for i in range(5)]


@pytest.mark.parametrize("name", HOSTILE)
def test_files_of_any_name_make_a_valid_bill(name: str, adapter: Path) -> None:
    inventory = made_inventory.full(name)
    clean = [dataclasses.replace(file, path=printable(file.path, 4096)) for file in inventory.files]
    made(adapter, inventory=dataclasses.replace(inventory, files=tuple(clean)))


def test_the_base_is_a_dependency(adapter: Path) -> None:
    content = made(adapter)
    purl = "pkg:huggingface/some/base-model"
    assert content["components"] == [
        {"type": "machine-learning-model", "bom-ref": purl, "group": "some", "name": "base-model", "purl": purl}
    ]
    assert content["dependencies"] == [
        {"ref": component(content)["bom-ref"], "dependsOn": [purl]}, {"ref": purl},
    ]  # fmt: skip


@pytest.mark.parametrize("base", [None, "/home/ann/llama", "models/llama", "C:\\llama"])
def test_a_base_on_somebodys_disk_is_not_named(base: str | None, tmp_path: Path) -> None:
    content = made(make_adapter(tmp_path / "a", MODULES, config={"base_model_name_or_path": base}))
    assert "components" not in content
    assert content["dependencies"] == [{"ref": component(content)["bom-ref"]}]
    assert "llama" not in json.dumps(content)


def test_a_base_without_an_owner(tmp_path: Path) -> None:
    content = made(make_adapter(tmp_path / "a", MODULES, config={"base_model_name_or_path": "gpt2"}))
    assert [(part["name"], part["purl"], "group" in part) for part in content["components"]] == [
        ("gpt2", "pkg:huggingface/gpt2", False)
    ]


def test_the_same_adapter_gives_the_same_bytes(adapter: Path, tmp_path: Path) -> None:
    with open_adapter(adapter) as opened:
        source = source_of(opened)
        first = bom(opened, source)
        assert bom(opened, source) == first
        other = json.loads(bom(opened, source, name="other"))
    assert other["serialNumber"] != json.loads(first)["serialNumber"]


def test_shards_have_a_digest_each(adapter: Path) -> None:
    source = Source("a", "peft", "a" * 64, tuple(FileDigest(f"s{i}.safetensors", 9, f"{i}" * 64) for i in (1, 2)), None)
    found = component(made(adapter, source))
    assert "hashes" not in found
    assert properties(found)["s3lora:sha256-of-shards"] == "a" * 64
    assert [part["hashes"][0]["content"][0] for part in found["components"]] == ["1", "2"]


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ({}, None),
        ({"license": "apache-2.0"}, {"id": "Apache-2.0"}),
        ({"license": "MIT"}, {"id": "MIT"}),
        ({"license": "llama3.1"}, {"name": "llama3.1"}),
        ({"license": "other"}, None),
        ({"license": "unknown"}, None),
        (
            {"license": "other", "license_name": "our own", "license_link": "https://example.org/x"},
            {"name": "our own", "url": "https://example.org/x"},
        ),
        ({"license": "other", "license_name": "our own", "license_link": "LICENSE"}, {"name": "our own"}),
        ({"license": "other", "license_name": "x", "license_link": "https://a b"}, {"name": "x"}),
    ],
)
def test_the_licence_is_what_the_card_declares(
    card: dict[str, str], licence: dict[str, str] | None, adapter: Path
) -> None:
    found = component(made(adapter, card=card)).get("licenses")
    assert found == (None if licence is None else [{"license": {**licence, "acknowledgement": "declared"}}])


@pytest.mark.parametrize("name", SPDX)
def test_every_identifier_is_known_to_the_schema(name: str, adapter: Path) -> None:
    assert component(made(adapter, card={"license": name}))["licenses"][0]["license"]["id"] == SPDX[name]


def test_the_task_is_that_of_the_card_first(adapter: Path) -> None:
    found = component(made(adapter, card={"pipeline_tag": "text-generation"}))
    assert found["modelCard"]["modelParameters"] == {"task": "text-generation"}


def test_a_pruned_adapter_has_its_pedigree(adapter: Path) -> None:
    origin = dataclasses.replace(measured.source("original"), sha256="d4" * 32)
    content = made(adapter, record=record(origin), extra=[FileDigest("s3lora.json", 5, "b7" * 32)])
    (ancestor,) = component(content)["pedigree"]["ancestors"]
    assert (ancestor["name"], ancestor["hashes"][0]["content"]) == ("original", "d4" * 32)
    assert ancestor["components"][0]["hashes"][0]["content"] == "d4" * 32
    notes = component(content)["pedigree"]["notes"]
    assert "of 10 modules 2 removed, chosen by the rule top 2 of the index ssi" in notes
    assert component(content)["components"][-1]["name"] == "s3lora.json"


@pytest.mark.parametrize("content", ["---\nlicense: mit\n---\n", "\udcff"])
def test_a_card_is_read_where_a_model_hub_keeps_it_and_never_stops_the_bill(
    adapter: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot, blobs = tmp_path / "models--o--n" / "snapshots" / "abc", tmp_path / "models--o--n" / "blobs"
    blobs.mkdir(parents=True)
    shutil.copytree(adapter, snapshot)
    (blobs / "1").write_bytes(content.encode("utf-8", "surrogateescape"))
    (snapshot / "README.md").unlink(missing_ok=True)
    (snapshot / "README.md").symlink_to(blobs / "1")
    result = call(capsys, "bom", snapshot)
    assert result.status == 0
    assert ('"MIT"' in result.out) is content.isascii()


def test_a_measurement_is_quantitative_analysis(adapter: Path) -> None:
    evaluation = measured.evaluation()
    found = figures_of(evaluation, measured.source(), None, "x")
    card = component(made(adapter, figures=found))["modelCard"]
    metrics = card["quantitativeAnalysis"]["performanceMetrics"]
    assert len(metrics) == 6
    mine = evaluation.variants[1].metrics[0]
    assert metrics[0] == {
        "type": "asr", "value": "1.0", "slice": "safety",
        "confidenceInterval": {"lowerBound": repr(mine.low), "upperBound": repr(mine.high)},
    }  # fmt: skip
    said = properties(card)
    assert said["s3lora:evaluation:safety:judge"] == "refusal prefixes of Zou et al. 2023, version 1"
    assert said["s3lora:evaluation:safety:data:1"] == f"built-in harmful prompts, n = 100, SHA-256 {'a1' * 32}"
    assert said["s3lora:evaluation:safety:asr:n"] == "100"
    assert said["s3lora:evaluation:base"] == "made-up/model-135m-instruct"


def test_numbers_that_are_not_there_are_left_out(adapter: Path) -> None:
    bare = measured.bare_evaluation()
    own = dataclasses.replace(bare.variants[0], kind="adapter", adapter=measured.source())
    found = figures_of(dataclasses.replace(bare, variants=(own,)), measured.source(), None, "x")
    assert "quantitativeAnalysis" not in component(made(adapter, figures=found))["modelCard"]


@pytest.mark.parametrize("name", [*MARKUP, *HOSTILE])
def test_hostile_names_make_a_valid_bill(name: str, adapter: Path) -> None:
    hostile = measured.hostile_source(name)
    found = figures_of(measured.hostile_evaluation(name), hostile, None, "x")
    content = made(
        adapter, hostile, name=name, record=record(hostile, name=name, rule=name, only=name), figures=found,
        card={"license": name, "license_link": name, "pipeline_tag": name},
    )  # fmt: skip
    assert all(character.isprintable() for character in json.dumps(content, ensure_ascii=False))
