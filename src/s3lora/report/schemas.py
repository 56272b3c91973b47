"""The JSON Schemas of the documents, which are committed under `docs/schemas`."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from s3lora.compare import Comparison
from s3lora.evaluate.results import Evaluation, Sweep, Tuning
from s3lora.provenance import Provenance
from s3lora.report.documents import ScanDocument

#: Name of the schema file → type of the document.
DOCUMENTS: dict[str, Any] = {
    "scan": ScanDocument,
    "prune": Provenance,
    "compare": Comparison,
    "eval": Evaluation,
    "sweep": Sweep,
    "tune": Tuning,
}


def schema(name: str) -> str:
    """Return the JSON Schema (2020-12) of a document as indented JSON.

    Every field is required, because every field is written. Several adapters scanned at once give an array.
    """
    content = msgspec.json.schema(DOCUMENTS[name])
    one = {"$ref": content["$ref"]}
    body = {"anyOf": [one, {"type": "array", "items": one}]} if name == "scan" else one
    definitions = {key: _as_written(part) for key, part in content["$defs"].items()}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"s3lora {name}"}
    return msgspec.json.format(msgspec.json.encode({**head, **body, "$defs": definitions}), indent=2).decode() + "\n"


def _as_written(definition: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of what is written, which is stricter than that of what can be read: nothing is left out."""
    fields = definition.get("properties", {})
    return {
        **definition,
        "description": inspect.cleandoc(definition.get("description", "")),
        "properties": {
            name: {key: value for key, value in part.items() if key != "default"} for name, part in fields.items()
        },
        "required": list(fields),
    }
