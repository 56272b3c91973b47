"""Adapter → ML-BOM: a CycloneDX 1.6 bill of materials, as JSON.

What is not known is left out. There is no timestamp, and the serial number follows from the content, so that the same
adapter has the same bill everywhere.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from s3lora.adapter.digest import FileDigest, Source
from s3lora.adapter.hub import hub_name
from s3lora.adapter.inventory.model import Inventory, InventoryFile
from s3lora.adapter.inventory.tensors import tensors_of
from s3lora.adapter.model import Adapter
from s3lora.errors import printable
from s3lora.evaluate.figures import AdapterFigures
from s3lora.gate.counting import KINDS
from s3lora.measure.scan import Tool
from s3lora.report.documents import to_json
from s3lora.report.spdx import SPDX
from s3lora.report.values import chat_facts, percent
from s3lora.rewrite.provenance import Provenance, Recorded, Remade

VERSION = "1.6"
MODEL = "machine-learning-model"
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: The space of names in which serial numbers are made; any fixed one would do.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/s3lora")

BomPart = dict[str, Any]


def bom(
    adapter: Adapter,
    source: Source,
    *,
    name: str | None = None,
    record: Recorded | Remade | None = None,
    extra: Sequence[FileDigest] = (),
    inventory: Inventory | None = None,
    card: Mapping[str, str] | None = None,
    figures: AdapterFigures | None = None,
) -> str:
    """Return the bill of materials of an adapter as JSON that is valid by the schema of CycloneDX 1.6.

    Parameters:
        adapter: the opened adapter.
        source: the digests of its files.
        name: what the adapter is called; by default its folder's name.
        record: how it was pruned or repaired, None where it was not.
        extra: further files that belong to it, with their digests.
        inventory: what is in its weights and its folder; by default of the weights only.
        card: fields of the metadata of its model card: `license` (with `license_name` and `license_link`) and
            `pipeline_tag` are looked at.
        figures: what was measured of it.
    """
    fields = card or {}
    found = Inventory(tensors=tensors_of(adapter, {})) if inventory is None else inventory
    base = hub_name(source.base_model)
    component: BomPart = {
        "type": MODEL,
        "bom-ref": _reference(source),
        "name": _name(name or source.name),
        "hashes": _hashes(source),
        "licenses": _licences(fields),
        "pedigree": None if record is None else _pedigree(record),
        "properties": _properties(adapter, source, found),
        "components": _files((*source.files, *extra), found),
        "modelCard": _model_card(adapter, fields, figures),
    }
    needs: list[BomPart] = [{"ref": component["bom-ref"]}]
    components: list[BomPart] = []
    if base is not None:
        purl = f"pkg:huggingface/{base}"
        owner, _, short = base.rpartition("/")
        components.append({"type": MODEL, "bom-ref": purl, "group": owner, "name": short, "purl": purl})
        needs = [{"ref": component["bom-ref"], "dependsOn": [purl]}, {"ref": purl}]
    document = _filled(
        {
            "metadata": {"tools": {"components": [_tool()]}, "component": component},
            "components": components,
            "dependencies": needs,
        }
    )
    serial = uuid.uuid5(_NAMESPACE, msgspec.json.encode(document).decode())
    head = {
        "$schema": f"http://cyclonedx.org/schema/bom-{VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": VERSION,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
    }
    return to_json({**head, **document})


def _filled(part: Any) -> Any:
    """Return a part without what is empty: the schema wants what is not known to be absent."""
    if isinstance(part, dict):
        filled = {key: _filled(value) for key, value in part.items()}
        return {key: value for key, value in filled.items() if value not in (None, "", [], {})}
    return [_filled(value) for value in part] if isinstance(part, list) else part


def _tool() -> BomPart:
    tool = Tool()
    return {"type": "application", "bom-ref": f"{tool.name}@{tool.version}", "name": tool.name, "version": tool.version}


def _reference(source: Source) -> str:
    return f"sha256:{source.sha256}" if _sha256(source.sha256) else "unknown"


def _name(name: str) -> str:
    return printable(name, 255) or "unnamed"


def _hashes(source: Source) -> list[BomPart]:
    """Return the digest of the weights where they are one file: shards have one each, below."""
    digests = {file.sha256 for file in source.files}
    return _sha256(source.sha256) if source.sha256 in digests else []


def _sha256(digest: str | None) -> list[BomPart]:
    # That of a source stands in s3lora.json, which anybody may have written.
    return [{"alg": "SHA-256", "content": digest}] if digest is not None and _SHA256.fullmatch(digest) else []


def _file(file: FileDigest) -> BomPart:
    size = {"name": "s3lora:bytes", "value": str(file.bytes)}
    return {"type": "file", "name": _name(file.name), "hashes": _sha256(file.sha256), "properties": [size]}


def _files(digests: Sequence[FileDigest], inventory: Inventory) -> list[BomPart]:
    """Return every file of the folder with what it is, and with its digest where it was measured."""
    listed = {file.path: file for file in inventory.files}
    parts = []
    for digest in digests:
        part = _file(digest)
        if (file := listed.pop(digest.name, None)) is not None:
            part["properties"] += _about(file)
        parts.append(part)
    for name, file in listed.items():
        size = {"name": "s3lora:bytes", "value": str(file.bytes)}
        parts.append({"type": "file", "name": printable(name, 4096), "properties": [size, *_about(file)]})
    return parts


def _about(file: InventoryFile) -> list[BomPart]:
    values: dict[str, object] = {"role": file.role}
    if file.content is not None:
        values["content"] = file.content
    return _named(values) + [part for name in file.runs for part in _named({"names": name})]


def _properties(adapter: Adapter, source: Source, inventory: Inventory) -> list[BomPart]:
    modules = adapter.modules
    lora = sum(module.parameters for module in modules)
    others = {kind: [one for one in inventory.tensors if belongs(one)] for kind, belongs in KINDS.items()}
    values = {
        "format": source.format,
        "modules": len(modules),
        "parameters": lora + sum(one.parameters for one in inventory.unmeasured),
        "ranks": ",".join(map(str, sorted({module.rank for module in modules}))),
        "dtypes": ",".join(sorted({module.dtype for module in modules})),
    }
    if inventory.unmeasured:
        values["parameters:lora"] = lora
    for kind, found in others.items():
        if found:
            values[f"parameters:{kind}"] = sum(one.parameters for one in found)
            values[f"tensors:{kind}"] = len(found)
    if not _hashes(source):
        values["sha256-of-shards"] = source.sha256 or ""
    return _named(values)


def _named(values: Mapping[str, object]) -> list[BomPart]:
    return [{"name": f"s3lora:{name}", "value": printable(value, 1000)} for name, value in values.items()]


def _licences(fields: Mapping[str, str]) -> list[BomPart]:
    """Return the licence that the card declares, by its SPDX identifier where it has one."""
    declared = fields.get("license", "")
    if declared.lower() in SPDX:
        return [{"license": {"id": SPDX[declared.lower()], "acknowledgement": "declared"}}]
    if declared.lower() in ("other", "unknown"):
        declared = fields.get("license_name", "")
    if not declared:
        return []
    link = fields.get("license_link", "")
    url = link if re.fullmatch(r"https?://[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]+", link) else ""
    return [{"license": {"name": printable(declared), "url": url, "acknowledgement": "declared"}}]


def _pedigree(record: Recorded | Remade) -> BomPart:
    ancestors = {
        f"source:{_reference(source)}": {
            "type": MODEL,
            "bom-ref": f"source:{_reference(source)}",
            "name": _name(source.name),
            "hashes": _hashes(source),
            "components": [_file(file) for file in source.files],
        }
        for source in record.sources
    }
    made = f"{record.tool.name} {record.tool.version}"
    if isinstance(record, Provenance) and record.modules:
        notes = f"Pruned by {made}: {_chosen(record)}. s3lora.json lists the modules."
    else:
        notes = f"Written by {made}: {record.done}. s3lora.json says more."
    return {"ancestors": [*ancestors.values()], "notes": printable(notes, 2000)}


def _chosen(record: Provenance) -> str:
    share = record.plan.share
    parameters = share.parameters / share.parameters_total if share.parameters_total else None
    only = f", among {record.plan.only}" if record.plan.only else ""
    return (
        f"of {share.modules_total} modules {record.done}, chosen by the rule {record.plan.rule} of the index "
        f"{record.plan.index} ({record.configuration.method}){only}; {percent(parameters)} of the LoRA parameters and "
        f"{percent(share.frobenius_energy)} of the Frobenius energy"
    )


def _model_card(adapter: Adapter, fields: Mapping[str, str], figures: AdapterFigures | None) -> BomPart:
    task = fields.get("pipeline_tag") or (adapter.config or {}).get("task_type")
    card: BomPart = {"modelParameters": {"task": printable(task) if isinstance(task, str) else None}}
    if figures is not None:
        card["quantitativeAnalysis"] = {"performanceMetrics": _metrics(figures)}
        card["properties"] = _named(_measuring(figures))
    return card


def _metrics(figures: AdapterFigures) -> list[BomPart]:
    """Return the adapter's own numbers; the suite is the slice they were taken on, intervals are of 95 %."""
    made: list[BomPart] = []
    for metric in figures.columns[-1][1]:
        if metric.value is None:
            continue
        known = metric.low is not None and metric.high is not None
        ends = {"lowerBound": repr(metric.low), "upperBound": repr(metric.high)} if known else None
        kind, part = printable(metric.measure), printable(metric.suite)
        made.append({"type": kind, "value": repr(metric.value), "slice": part, "confidenceInterval": ends})
    return made


def _measuring(figures: AdapterFigures) -> dict[str, object]:
    """Return what the numbers are worth: how the model was run, on which data, how many items, and who judged."""
    setup = figures.setup
    values: dict[str, object] = {
        "evaluation:base": setup.base,
        "evaluation:base-sha256": setup.base_digest,
        "evaluation:run": f"{setup.backend}, {setup.device}, {setup.dtype}, seed {setup.seed}",
        "evaluation:chat": ", ".join(chat_facts(setup.chat)),
        "evaluation:interval": "95 %",
    }
    for suite in figures.suites:
        of = f"evaluation:{printable(suite.name, 60)}"
        values[f"{of}:judge"] = suite.judge
        for i, data in enumerate(suite.data, 1):
            values[f"{of}:data:{i}"] = f"{data.name}, n = {data.n}, SHA-256 {data.sha256}"
    for metric in figures.columns[-1][1]:
        values[f"evaluation:{printable(metric.suite, 60)}:{printable(metric.measure, 60)}:n"] = metric.n
    return {name: value for name, value in values.items() if value != ""}
