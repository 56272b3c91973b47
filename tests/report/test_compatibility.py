"""Documents that s3lora wrote stay readable, and a change that would break a reader raises `schema_version`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from s3lora import read_provenance
from s3lora.errors import AdapterFileError, UsageError
from s3lora.evaluate import results
from s3lora.evaluate.reading import read_measurement
from s3lora.measure.scan import SCHEMA_VERSION
from s3lora.report.schemas import DOCUMENTS, LATER, schema
from s3lora.rewrite.provenance import PROVENANCE_VERSION
from tests.report.compatibility import Schema, breaks

FOLDER = Path(__file__).resolve().parents[1] / "data" / "documents"
MEASURED = ("eval", "sweep", "tune")
LARGEST = 40_000
documents = pytest.mark.parametrize("name", DOCUMENTS)


def version(name: str) -> int:
    if name == "prune":
        return PROVENANCE_VERSION
    return results.SCHEMA_VERSION if name in MEASURED else SCHEMA_VERSION


def released(name: str) -> Path:
    """Return the document of the current version, made by the first release that had it."""
    file = FOLDER / str(version(name)) / f"{name}.json"
    assert file.exists(), "a new version needs its documents: python -m tests.data.documents.make"
    return file


def with_fields_of(new: Any, old: Any) -> Any:
    """Return what is left of `new` without the fields, at any depth, that `old` lacks."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {name: with_fields_of(new[name], old[name]) for name in new if name in old}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [with_fields_of(*pair) for pair in zip(new, old, strict=True)]
    return new


@documents
def test_a_released_document_is_still_read(name: str) -> None:
    raw = released(name).read_bytes()
    assert len(raw) < LARGEST
    made = msgspec.json.decode(raw, type=DOCUMENTS[name])
    assert made.schema_version == version(name)
    jsonschema.Draft202012Validator(json.loads(schema(name))).validate(json.loads(raw))
    written = json.loads(msgspec.json.encode(made))
    assert with_fields_of(written, json.loads(raw)) == json.loads(raw), "what was in it is still there"


def test_a_released_document_of_several_adapters_is_valid() -> None:
    content = json.loads(released("scan").read_text())
    jsonschema.Draft202012Validator(json.loads(schema("scan"))).validate([content, content])


@documents
def test_the_schema_of_this_version_only_grows(name: str) -> None:
    """If this fails: keep what was there, list a new field in `LATER` and give it a default, or raise the version."""
    first = json.loads((released(name).parent / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    assert breaks(first, json.loads(schema(name))) == []


def test_later_fields_exist() -> None:
    known = {name: part for document in DOCUMENTS for name, part in json.loads(schema(document))["$defs"].items()}
    for name, fields in LATER.items():
        assert set(fields) <= set(known[name]["properties"])


def change(content: Schema, name: str, edit: Callable[[Schema], object]) -> Schema:
    changed = copy.deepcopy(content)
    edit(changed["$defs"][name])
    return changed


def add(field: str, *, required: bool) -> Callable[[Schema], None]:
    def edit(part: Schema) -> None:
        part["properties"][field] = {"type": "string"}
        part["required"] += [field] if required else []

    return edit


def retyped(field: str, kind: Any) -> Callable[[Schema], None]:
    return lambda part: part["properties"].__setitem__(field, kind)


def renamed(old: str, new: str) -> Callable[[Schema], None]:
    def edit(part: Schema) -> None:
        part["properties"][new] = part["properties"].pop(old)
        part["required"] = [new if field == old else field for field in part["required"]]

    return edit


@pytest.mark.parametrize(
    ("name", "edit", "says"),
    [
        ("Choice", add("note", required=False), []),
        ("Configuration", lambda part: part["properties"]["fit"]["enum"].append("l3"), []),
        ("Choice", lambda part: part.update(description="other words"), []),
        ("Choice", add("note", required=True), [".plan.chosen[].note: is required, and older documents lack it"]),
        ("Choice", lambda part: part["required"].remove("reason"), [".plan.chosen[].reason: was always written"]),
        ("Configuration", lambda part: part["properties"]["fit"]["enum"].remove("l1"),
         [".configuration.fit: l1 is gone"]),
        ("Choice", retyped("position", {"type": "number"}), [".plan.chosen[].position: was integer, is number"]),
        ("Choice", retyped("position", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
         [".plan.chosen[].position: was integer, is integer or null"]),
        ("Choice", retyped("value", {"type": "number"}), [".plan.chosen[].value: was null or number, is number"]),
        ("Choice", renamed("reason", "because"),
         [".plan.chosen[].reason: is gone", ".plan.chosen[].because: is required, and older documents lack it"]),
        ("Provenance", retyped("loader", {"type": "string", "maxLength": 9}),
         [".loader: limits were {}, are {'maxLength': 9}"]),
        ("FileDigest", lambda part: part["properties"].pop("bytes"),
         [".source.files[].bytes: is gone"]),
    ],
)  # fmt: skip
def test_what_breaks_a_reader_is_found(name: str, edit: Callable[[Schema], object], says: list[str]) -> None:
    content = json.loads(schema("prune"))
    assert breaks(content, content) == []
    assert breaks(content, change(content, name, edit)) == says


def test_parts_of_tuples_and_maps_are_compared() -> None:
    content = json.loads(schema("scan"))
    shape = copy.deepcopy(content["$defs"]["ModuleScan"]["properties"]["shape"])
    shape["prefixItems"] = [{"type": "string"}, {"type": "integer"}]
    assert breaks(content, change(content, "ModuleScan", retyped("shape", shape)))
    fewer = {**shape, "prefixItems": shape["prefixItems"][1:]}
    assert breaks(content, change(content, "ModuleScan", retyped("shape", fewer)))
    words = {"type": "object", "additionalProperties": {"type": "string"}}
    assert breaks(content, change(content, "ModuleScan", retyped("indices", words)))


@documents
def test_a_document_of_a_later_version_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    content = {**json.loads(released(name).read_text()), "schema_version": version(name) + 1, "modules": 3, "suites": 3}
    if name == "prune":
        (tmp_path / "s3lora.json").write_text(json.dumps(content))
        with pytest.raises(AdapterFileError, match=r"is of schema version 3, and this s3lora knows 2; update s3lora"):
            read_provenance(tmp_path)
    elif name in MEASURED:
        (tmp_path / "result.json").write_text(json.dumps(content))
        with pytest.raises(UsageError, match=r"result\.json: is of schema version 2, and this s3lora knows 1; update"):
            read_measurement(tmp_path / "result.json")


@pytest.mark.parametrize("name", MEASURED)
def test_a_measurement_is_told_by_its_fields(name: str) -> None:
    assert type(read_measurement(released(name))) is DOCUMENTS[name]
