"""The JSON Schemas of the documents, which are committed under `docs/schemas`."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from s3lora.compat.results import Check
from s3lora.evaluate.judges.checking import JudgeCheck
from s3lora.evaluate.results import Evaluation, Sweep, Tuning
from s3lora.fleet.populations.reference import Facts
from s3lora.fleet.populations.survey import Survey
from s3lora.fleet.results.summary import Summary
from s3lora.measure.comparison import Comparison
from s3lora.measure.composition import Composition
from s3lora.measure.series import TrainingSeries
from s3lora.repair.results import Repair
from s3lora.report.documents import ScanDocument
from s3lora.rewrite.conversion_record import ConversionRecord
from s3lora.rewrite.provenance import Provenance
from s3lora.rewrite.resize_record import ResizeProvenance
from s3lora.rewrite.restore import Restoration
from s3lora.rewrite.sum_record import SumProvenance

#: Name of the schema file → type of the document.
DOCUMENTS: dict[str, Any] = {
    "scan": ScanDocument,
    "prune": Provenance,
    "restore": Restoration,
    "check": Check,
    "convert": ConversionRecord,
    "compare": Comparison,
    "series": TrainingSeries,
    "compose": Composition,
    "fleet": Summary,
    "population": Survey,
    "reference": Facts,
    "eval": Evaluation,
    "sweep": Sweep,
    "tune": Tuning,
    "judge-check": JudgeCheck,
    "repair": Repair,
    "resize": ResizeProvenance,
    "sum": SumProvenance,
}

#: Type → fields that came after the first release of the current version. They are always written, but a document of
#: an older release lacks them, so that they need a default, and the schema does not require them.
LATER: dict[str, tuple[str, ...]] = {
    "Comparison": ("tensors", "refusals"),
    "ConversionRecord": ("loader", "base"),
    "Provenance": ("drop", "dropped"),
    "Restoration": ("tensors", "notes"),
    "ModuleScan": ("form", "of", "dense", "sigma_error", "energy_rank", "null_rank"),
    "ScanDocument": ("gate", "inventory", "reference", "base", "published"),
    "Counts": ("inside",),
    "Setup": ("chat",),
    "Settings": ("adapter",),
    "Source": ("adapter",),
    "Inventory": ("alone",),
    "Facts": ("checkpoints", "sources", "source"),
    "Standing": ("sources",),
    "Survey": ("inside", "forms"),
    "Recipe": ("form",),
    "UnusualAdapter": ("form",),
    "Sweep": ("pareto_variants",),
    "Tuning": ("tuning_base", "held_out_base", "outcome", "forecast"),
    "Metric": ("unknown", "least", "most", "clusters", "values", "judge_low", "judge_high"),
    "Measure": ("errors", "judged"),
    "PairedComparison": ("clusters", "p_holm"),
    "Repair": ("tuning_asr",),
    "SweepPoint": ("shares", "strength"),
    "Variant": ("adapters", "shares"),
}


def schema(name: str) -> str:
    """Return the JSON Schema (2020-12) of a document as indented JSON.

    Fields are required, because every field is written, but for those in `LATER`. Several adapters scanned at once
    give an array.
    """
    content = msgspec.json.schema(DOCUMENTS[name])
    one = {"$ref": content["$ref"]}
    body = {"anyOf": [one, {"type": "array", "items": one}]} if name == "scan" else one
    definitions = {key: _as_written(key, part) for key, part in content["$defs"].items()}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"s3lora {name}"}
    return msgspec.json.format(msgspec.json.encode({**head, **body, "$defs": definitions}), indent=2).decode() + "\n"


def _as_written(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of what is written, which is stricter than that of what can be read: nothing is left out."""
    fields = definition.get("properties", {})
    return {
        **definition,
        "description": inspect.cleandoc(definition.get("description", "")).partition("\n\nRaises")[0],
        "properties": {field: _without_names(part) for field, part in fields.items()},
        "required": [field for field in fields if field not in LATER.get(name, ())],
    }


def _without_names(part: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a field without its default, and without names of keys, which only msgspec ≥ 0.23 tells."""
    return {key: value for key, value in part.items() if key not in {"default", "propertyNames"}}
