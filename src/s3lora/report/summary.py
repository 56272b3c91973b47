"""What a scan says first, in sentences: what is sharp and where, where that stands, and what no file tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from s3lora.choose.ties import sharpest
from s3lora.errors import printable
from s3lora.gate.audit import GateOutcome
from s3lora.measure.scan import ModuleScan
from s3lora.report.compare_view import number as plain
from s3lora.report.documents import ScanDocument
from s3lora.report.names import head
from s3lora.report.published_view import published_lines
from s3lora.report.values import count

#: The sharpest modules that the sentence is about, and how many kinds of projections it names.
SHARPEST, KINDS = 10, 3
#: Rules that are named.
RULES = 5
NOT_TOLD = "what a model answers with it, what a trigger does, what is harm: no file tells"


def summary_of(document: ScanDocument) -> list[tuple[str, str]]:
    """Return lines of a label and sentences."""
    rows = []
    if document.gate is not None and document.gate.rules:
        rows.append(("gate", gate_line(document.gate)))
    if told := sharp_line(document.modules, document.ranked_by):
        rows.append(("sharp", told))
    if document.published is not None and (lines := list(published_lines(document.published))):
        rows.append(("published", " ".join(lines)))
    measured = "eval and repair are for models that write" if document.inventory.classifies else "eval measures answers"
    return [*rows, ("not told", f"{NOT_TOLD}; {measured}")]


def gate_line(gate: GateOutcome) -> str:
    """Return how many of the rules hold and which, and what is accepted."""
    held = list(dict.fromkeys(finding.rule for finding in gate.findings))
    rules = f"{len(gate.rules)} rule{'' if len(gate.rules) == 1 else 's'}"
    named = ", ".join(printable(rule, 60) for rule in held[:RULES]) + (" …" if held[RULES:] else "")
    told = [
        f"{len(held)} of {rules} hold{'s' if len(held) == 1 else ''}: {named}" if held else f"none of {rules} holds"
    ]
    told += [f"{len(gate.allowed)} allowed"] if gate.allowed else []
    told += [f"{len(gate.known)} known by the baseline"] if gate.known else []
    return "; ".join(told)


def sharp_line(modules: Sequence[ModuleScan], index: str) -> str:
    """Return which modules are sharpest by an index and where they are; empty where the index is known of none."""
    known = [value for module in modules if (value := module.indices.get(index)) is not None]
    if not known:
        return ""
    unit = index.replace("_", " ")
    if len(known) == 1:
        return f"{unit} {plain(known[0])}, of the only module that has it"
    least, greatest = min(known), max(known)
    if greatest - least <= 1e-9 * max(abs(greatest), abs(least)):
        return f"{unit} is {plain(greatest)} for all {count(len(known))} modules, and tells none from another"
    first = sharpest(modules, index)[: min(SHARPEST, max(1, len(known) // 2))]
    values = [module.indices[index] or 0.0 for module in first]
    span = plain(values[0]) if len(first) == 1 else f"{plain(min(values))}–{plain(max(values))}"
    middle = f"{unit} {span}, median of all {count(len(known))}: {plain(median(known))}"
    if len(first) == 1:
        return f"{printable(first[0].path, 120)} first; {middle}"
    kinds = Counter(module.projection for module in first).most_common()
    named = ", ".join(f"{number} {head(name, 40)}" for name, number in kinds[:KINDS])
    more = f" and {len(kinds) - KINDS} other kinds" if len(kinds) > KINDS else ""
    return f"the {len(first)} sharpest are {named}{more}{_layers(first)}; {middle}"


def _layers(modules: Sequence[ModuleScan]) -> str:
    layers = sorted({module.layer for module in modules if module.layer is not None})
    if not layers or any(module.layer is None for module in modules):
        return ""
    return f" of layer {layers[0]}" if len(layers) == 1 else f" of layers {layers[0]} to {layers[-1]}"
