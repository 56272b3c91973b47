"""What commands that write no adapter say of a kind."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

import s3lora
from s3lora.adapter.open import open_adapter
from s3lora.errors import S3LoRAError
from s3lora.fleet.results.outcome import Settings
from s3lora.fleet.run import fleet_scan
from tests.fleet.inline import Inline
from tests.kinds.bench import Bench, Cell, Column, WrongError, call, labelled, norms, refusal, same_numbers, updates_of
from tests.kinds.words import HARMLESS, LIMITS, REFUSALS

parquet = pytest.importorskip("pyarrow.parquet")
METHOD = ("--method", "svd")


def told(bench: Bench, status: int, err: str) -> Cell:
    """Return the cell of a refusal."""
    said = refusal(status, err, (bench.first, bench.second, bench.base, bench.folder))
    words = labelled(said, REFUSALS)
    return Cell("none", words.strip("()"), said) if words.startswith("(") else Cell("refused", words, said)


def limits(warnings: list[str]) -> tuple[str, str]:
    """Return what notes limit, in a few words, and the first of them; a note that is not known is a fault."""
    words, first = [], ""
    for note in warnings:
        if any(re.search(pattern, note) for pattern in HARMLESS):
            continue
        words.append(labelled(note, LIMITS))
        first = first or note
    return ", ".join(dict.fromkeys(words)), first


def scan(bench: Bench) -> Cell:
    status, out, err = call("scan", bench.first, *bench.kind.options, *METHOD, "--no-policy", "--format", "json")
    if status:
        return told(bench, status, err)
    document = json.loads(out)
    same_numbers([one["indices"]["frobenius"] for one in document["modules"]], norms(bench.updates), "norms")
    why, note = limits(document["warnings"])
    return Cell("partly" if why else "yes", why, note)


def gate(bench: Bench) -> Cell:
    words = ("--fail-on", "strict", "--no-policy", "--format", "json")
    status, out, err = call("scan", bench.first, *bench.kind.options, *METHOD, *words)
    if status not in (0, 1):
        return told(bench, status, err)
    found = [one["rule"].split()[0] for one in json.loads(out)["gate"]["findings"]]
    if (status == 1) != bool(found):
        raise WrongError(f"status {status} with {found}")
    return Cell("yes", f"finds {', '.join(found)}" if found else "", "")


def base_weights(bench: Bench) -> Cell:
    words = ("--base-weights", bench.base, "--no-policy", "--format", "json")
    status, out, err = call("scan", bench.first, *bench.kind.options, *METHOD, *words)
    if status:
        return told(bench, status, err)
    document = json.loads(out)
    wanted = bench.updates
    if bench.kind.truth is not None:
        with open_adapter(bench.first) as adapter:
            stored = {name: np.asarray(one.array()) for file in adapter.files for name, one in file.tensors.items()}
        wanted = bench.kind.truth(stored, bench.weights)
    same_numbers([one["indices"]["frobenius"] for one in document["modules"]], norms(wanted), "true norms")
    found = document["base"]
    if found["missing"]:
        raise WrongError(f"not in the base: {found['missing']}")
    sizes = [
        float(np.linalg.norm(bench.weights[one["weight"]]))
        for one in found["modules"]
        if one["weight"] in bench.weights
    ]
    same_numbers([one["base_frobenius"] for one in found["modules"]][: len(sizes)], sizes, "norms of the base")
    why, note = limits(document["warnings"])
    return Cell("partly" if why else "yes", why, note)


def check(bench: Bench) -> Cell:
    status, out, err = call("check", bench.first, *bench.kind.options, "--base", bench.base, "--format", "json")
    if status:
        return told(bench, status, err)
    modules = json.loads(out)["modules"]
    if len(modules) != len(bench.updates):
        raise WrongError(f"{len(modules)} modules instead of {len(bench.updates)}")
    lost = [one for one in modules if one["fits"] is not True]
    if lost:
        words = "names not known" if lost[0]["standing"] == "unknown" else "names not in the base"
        return Cell("partly", words, f"{len(lost)} of {len(modules)} modules: {lost[0]['standing']}")
    return Cell("yes")


def compare(bench: Bench) -> Cell:
    words = ("--method", "svd", "--format", "json")
    status, out, err = call("compare", bench.first, bench.second, *bench.kind.options, *words)
    if status:
        return told(bench, status, err)
    document = json.loads(out)
    pairs = list(zip(bench.updates, bench.others, strict=True))
    with np.errstate(invalid="ignore"):
        wanted = [float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in pairs]
    found = [one["distance"][0] for one in document["modules"]]
    if all(np.isnan(wanted)):
        if any(one is not None for one in found):
            raise WrongError(f"distances of zeros: {found}")
    else:
        same_numbers(found, wanted, "distances")
    why, note = limits(document["warnings"])
    return Cell("partly" if why else "yes", why, note)


def compose(bench: Bench) -> Cell:
    status, out, err = call(
        "compose", bench.first, bench.second, *bench.kind.options, "--method", "svd", "--format", "json"
    )
    if status:
        return told(bench, status, err)
    document = json.loads(out)
    wanted = norms([a + b for a, b in zip(bench.updates, bench.others, strict=True)])
    together = [one["together"] for one in document["modules"]]
    found = [0.0 if one is None else one["indices"]["frobenius"] for one in together]
    same_numbers(found, wanted, "norms of sums")
    why, note = limits(document["warnings"])
    return Cell("partly" if why else "yes", why, note)


def select(bench: Bench) -> Cell:
    try:
        with open_adapter(bench.first, *bench.kind.options[1:]) as adapter:
            plan = s3lora.select(s3lora.scan(adapter), s3lora.Top(1))
    except S3LoRAError as error:
        return told(bench, 2, f"s3lora: {error.located()}")
    if len(plan.chosen) != 1:
        return Cell("none", "nothing to choose", "")
    return Cell("yes")


def fleet(bench: Bench) -> Cell:
    """Scan as a fleet does, in this process: what `fleet scan` starts others for is the same."""
    results = bench.new("results")
    settings = Settings(adapter=bench.kind.options[1] if bench.kind.options else None)
    fleet_scan([str(bench.first)], results, settings, engine=Inline)
    parts = sorted(results.glob("parts/*"))
    errors = [row for part in parts for row in parquet.read_table(part / "errors.parquet").to_pylist()]
    if errors:
        return told(bench, 2, f"s3lora: {errors[0]['reason']}")
    rows = [row for part in parts for row in parquet.read_table(part / "modules.parquet").to_pylist()]
    wanted = norms(bench.updates)
    if len(rows) == 2 * len(wanted) and bench.kind.options:
        wanted += norms(updates_of(bench.first, "--adapter", "second"))
    same_numbers([row["frobenius"] for row in rows], wanted, "norms")
    return Cell("yes")


def card(bench: Bench) -> Cell:
    copy = bench.new("carded")
    shutil.copytree(bench.first, copy)
    status, _, err = call("card", copy, *bench.kind.options, *METHOD)
    if status:
        return told(bench, status, err.replace(str(copy), str(bench.first)))
    if not any("s3lora:begin" in path.read_text() for path in copy.rglob("README.md")):
        raise WrongError("no section")
    return Cell("yes")


def bom(bench: Bench) -> Cell:
    status, out, err = call("bom", bench.first, *bench.kind.options)
    if status:
        return told(bench, status, err)
    if json.loads(out)["bomFormat"] != "CycloneDX":
        raise WrongError("no CycloneDX")
    return Cell("yes")


COLUMNS: dict[str, Column] = {
    "`scan`": scan,
    "`scan --fail-on`": gate,
    "`scan --base-weights`": base_weights,
    "`select`": select,
    "`check`": check,
    "`compare`": compare,
    "`compose`": compose,
    "`fleet scan`": fleet,
    "`card`": card,
    "`bom`": bom,
}
