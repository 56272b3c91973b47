"""Scan, pruning and measurement → the section on them in a model card, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

from s3lora.adapter.digest import Source
from s3lora.adapter.hub import hub_name
from s3lora.choose.ties import sharpest
from s3lora.evaluate.figures import AdapterFigures
from s3lora.evaluate.results import Measure, Metric, SuiteInfo
from s3lora.measure.configuration import Configuration
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.repair.results import CardQuestion
from s3lora.report.glance import Glance, glance_of
from s3lora.report.markdown import code, table, text
from s3lora.report.repair_view import answered, evidence
from s3lora.report.values import (
    NOTHING,
    OVER_REFUSAL,
    chat_facts,
    count,
    decimal,
    few,
    heading,
    metric_text,
    percent,
    told_with,
)
from s3lora.rewrite.conversion_record import ConversionRecord
from s3lora.rewrite.provenance import Provenance, Recorded, Remade, Removal
from s3lora.rewrite.repair_record import RecordedAnswer, RepairProvenance
from s3lora.rewrite.resize_record import ResizeProvenance
from s3lora.spectrum.indices import INDICES

#: Modules, files and data sets that are named; the rest is counted.
SHARPEST, PRUNED, FILES, DATA = 5, 40, 8, 6
#: Sentences on differences, notes.
SENTENCES = 12
#: Libraries that load an adapter of this format, by the names that the Hub knows.
_LIBRARIES = {"peft": "peft", "mlx": "mlx", "diffusers": "diffusers"}
#: Names that can stand in a shell command of a card as they are.
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_.=+-]+")


def front_matter(scan: Scan) -> str:
    """Return the metadata and the title of a new card: what the adapter's files say, and nothing else."""
    lines = ["---"]
    if scan.source.format in _LIBRARIES:
        lines.append(f"library_name: {_LIBRARIES[scan.source.format]}")
    if (base := hub_name(scan.source.base_model)) is not None:
        lines.append(f"base_model: {base}")
    return "\n".join([*lines, "tags:", "- lora", "---", "", f"# {text(scan.source.name)}", ""])


def card_section(
    scan: Scan, index: str, record: Recorded | Remade | None, figures: AdapterFigures | None, command: Sequence[str]
) -> str:
    """Return the section: what was scanned, the sharpest modules, how it was made, what was measured, how to verify it.

    Parameters:
        scan: of the adapter.
        index: the index to rank modules by.
        record: how s3lora made it, None where it did not.
        figures: what was measured of it, None where nothing is attached.
        command: the words of `s3lora card` that write this section again, from within the adapter's folder.
    """
    parts = [_scanned(scan, index), _sharpest(scan.modules, index)]
    if isinstance(record, RepairProvenance):
        parts.append(_repair(record, scan.source))
    elif isinstance(record, Remade):
        parts.append(_remade(record, scan.source))
    elif record is not None:
        parts.append(_pruning(record, scan.source))
    if figures is not None:
        parts.append(_measured(figures))
    parts.append(_verifying(scan.source, record, command))
    return "\n\n".join("\n".join(part) for part in parts if part)


def _scanned(scan: Scan, index: str) -> list[str]:
    modules = scan.modules
    ranks = sorted({module.rank for module in modules})
    facts = [
        f"{count(len(modules))} {'module' if len(modules) == 1 else 'modules'}",
        f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}",
        f"{count(sum(module.parameters for module in modules))} parameters",
        text(", ".join(sorted({module.dtype for module in modules}))),
    ]
    files = [f"- File: {code(file.name)}, SHA-256 {code(file.sha256)}" for file in scan.source.files[:FILES]]
    if len(scan.source.files) > FILES:
        files.append(
            f"- … and {len(scan.source.files) - FILES} more, of all weights together {code(scan.source.sha256)}"
        )
    if scan.source.adapter:
        files.append(f"- Adapter: {code(scan.source.adapter)}, of several in the file")
    glance = glance_of(scan)
    return [
        "## Spectral audit",
        "",
        "How much of each module's update lies in one direction, read from the adapter's file alone by s3lora "
        f"{text(scan.tool.version)}. The figures compare the modules of this adapter; they are no verdict on it.",
        "",
        *files,
        f"- LoRA: {', '.join(facts)}; format {text(scan.source.format)}",
        *_beside(glance),
        f"- Base model by its configuration: {_base(scan.source.base_model)}",
        f"- Method: {_method(scan.configuration)}",
        f"- Index: {code(index)}, {text(INDICES[index].described)}{_range(modules, index)}",
        *(f"- Note: {text(note)}" for note in glance.notes[:SENTENCES]),
    ]


def _beside(glance: Glance) -> list[str]:
    """Return what the file and its folder hold besides LoRA, which nothing below is about."""
    lines = [f"  - {code(line.label)}: {text(line.text)}" for line in glance.lines]
    if lines:
        return ["- What else is in its files, or is not as it seems:", *lines]
    return ["- Besides LoRA the file holds nothing"] if glance.lora else []


def _base(name: str | None) -> str:
    if not name:
        return "not named"
    known = hub_name(name)
    return "a folder, no name on the Hub" if known is None else code(known)


def _method(configuration: Configuration) -> str:
    parts = [code(configuration.method)]
    parts.append("all components" if configuration.rank is None else f"{configuration.rank} components")
    if configuration.fit == "l1":
        sample = "all" if configuration.sample is None else str(configuration.sample)
        parts.append(f"fit l1, {sample} rows and columns, seed {configuration.seed}")
    return ", ".join(parts)


def _range(modules: Sequence[ModuleScan], index: str) -> str:
    values = sorted(value for module in modules if (value := module.indices.get(index)) is not None)
    if not values:
        return ""
    return f"; here from {decimal(values[0])} to {decimal(values[-1])}"


def _sharpest(modules: Sequence[ModuleScan], index: str) -> list[str]:
    ranked = sharpest(modules, index)
    if not ranked:
        return ["No module has this index."]
    columns = told_with(index)
    head = ["Sharpest modules", *(code(name) for name in columns), "m × n"]
    rows = [
        [
            code(module.path),
            *(decimal(module.indices.get(name)) for name in columns),
            f"{module.shape[0]} × {module.shape[1]}",
        ]
        for module in ranked[:SHARPEST]
    ]
    return table(head, rows, right=range(1, len(head)))


def _pruning(record: Provenance, source: Source) -> list[str]:
    share = record.plan.share
    parameters = share.parameters / share.parameters_total if share.parameters_total else None
    chosen = f"{text(record.plan.rule)} by {code(record.plan.index)} ({code(record.configuration.method)})"
    only = f", among {text(record.plan.only)}" if record.plan.only else ""
    named = code(record.source.name)
    rule = (
        f" Rule: {chosen}{only}. These were {percent(parameters)} of the LoRA parameters and "
        f"{percent(share.frobenius_energy)} of the Frobenius energy Σ‖ΔW‖²."
    )
    return [
        "### Pruning",
        "",
        f"Made from {named} by s3lora {text(record.tool.version)}: of its {count(share.modules_total)} modules, "
        f"{record.done}.{rule if record.modules else ''}",
        "",
        *_digests(record, source),
        "",
        *(_modules(record.modules, record.plan.index) if record.modules else ()),
        *(f"- Note: {text(note)}" for note in record.warnings[:SENTENCES]),
    ]


def _remade(record: Remade, source: Source) -> list[str]:
    """Return what an adapter was made of that was resized, added up or converted, and how far it is from that."""
    sources = [code(one.name) for one in record.sources[:FILES]]
    more = f" and {len(record.sources) - FILES} more" if len(record.sources) > FILES else ""
    if isinstance(record, ConversionRecord):
        title, lines = "Conversion", []
    elif isinstance(record, ResizeProvenance):
        title, lines = "Resizing", [f"- Asked for: {text(record.asked)}", *_lost(record.error)]
    else:
        title, lines = "Sum", [f"- Weights: {', '.join(decimal(weight) for weight in record.weights[:FILES])}",
                               *_lost(record.error)]  # fmt: skip
    return [
        f"### {title}",
        "",
        f"Made from {', '.join(sources)}{more} by s3lora {text(record.tool.version)}: {text(record.done)}.",
        "",
        *_digests(record, source),
        *([""] if lines or record.warnings else []),
        *lines,
        *(f"- Note: {text(note)}" for note in record.warnings[:SENTENCES]),
    ]


def _lost(error: float | None) -> list[str]:
    return [] if error is None else [f"- ‖ΔW − ΔW′‖ / ‖ΔW‖ over all modules: {error:.3g}"]


def _digests(record: Recorded | Remade, source: Source) -> list[str]:
    rows = [[f"source, {code(one.name)}", code(one.sha256)] for one in record.sources[:FILES]]
    return table(["Weights", "SHA-256"], [*rows, ["result, this adapter", code(source.sha256)]])


def _repair(record: RepairProvenance, source: Source) -> list[str]:
    lines = [
        "### Repair",
        "",
        f"Made from {code(record.source.name)} by s3lora {text(record.tool.version)}: {text(record.done)}. "
        "What it learned from and was tuned and tested on:",
        "",
    ]
    for part, given in record.repair.data.items():
        told = [f"{text(data.name, 120)} (n = {data.n}, SHA-256 {code(data.sha256[:12])}…)" for data in given[:DATA]]
        lines.append(f"- {text(part)}: {', '.join(told) or 'nothing'}")
    if not record.repair.data:
        lines.append("- no data")
    notes = [f"- Note: {text(note)}" for note in record.warnings[:SENTENCES]]
    return [*lines, "", *_digests(record, source), "", *_answers(record.repair.card), *([""] if notes else []), *notes]


def _answers(card: Sequence[RecordedAnswer]) -> list[str]:
    """Return the acceptance card of a repair; what no record answers was not asked."""
    known = {answer.question: answer for answer in card}
    rows = []
    for question in get_args(CardQuestion):
        answer = known.get(question, RecordedAnswer(question, False, None, "nothing is recorded of it."))
        rows.append([text(question), answered(answer), text(evidence(answer))])
    about = "Acceptance card, from prompts that nothing was chosen on. Whatever it says holds for these prompts."
    return [about, "", *table(["Question", "Answer", "Evidence"], rows)]


def _modules(modules: Sequence[Removal], index: str) -> list[str]:
    rows = [
        [str(module.position), code(module.path), decimal(module.value), module.action] for module in modules[:PRUNED]
    ]
    left = len(modules) - len(rows)
    more = ["", f"… and {left} more, all in `s3lora.json`."] if left > 0 else []
    head = ["", "Module", code(index), "Done"]
    return ["<details>", "<summary>Modules that were pruned</summary>", "", *table(head, rows, right=(0, 2)), *more,
            "", "</details>", ""]  # fmt: skip


def _measured(figures: AdapterFigures) -> list[str]:
    setup = figures.setup
    how = [f"base {code(setup.base)}", *(text(part) for part in (setup.backend, setup.device, setup.dtype) if part)]
    how += [f"seed {setup.seed}", *(text(fact) for fact in chat_facts(setup.chat))]
    rows, left = _rows(figures)
    lines = [
        "### Measured on the model",
        "",
        f"By s3lora, with {', '.join(how)}{'; on the half of the data held out from choosing' * figures.held_out}. "
        "In brackets the 95 % interval; ↓ lower is better, ↑ higher is better. A measurement holds for its data.",
        "",
        *table(["", *(label for label, _ in figures.columns), "n"], rows, right=range(1, len(figures.columns) + 2)),
    ]
    if left:
        lines += ["", f"{left} more {'measure is' if left == 1 else 'measures are'} in the result itself."]
    said = _said(figures)
    lines += ["", *(f"- {sentence}" for sentence in said)] if said else []
    for suite in figures.suites:
        lines += ["", *_about(suite)]
    return lines


def _central(suite: SuiteInfo) -> list[Measure]:
    return [m for m in suite.measures if m.role != "other" or m.name.replace("_", "-") == OVER_REFUSAL]


def _rows(figures: AdapterFigures) -> tuple[list[list[str]], int]:
    """Return a row a central measure, and how many measures are left out."""
    rows, measures = [], 0
    for suite in figures.suites:
        shown = _central(suite) or list(suite.measures[:1])
        measures += len(suite.measures) - len(shown)
        for measure in shown:
            found = [_metric(metrics, suite.name, measure.name) for _, metrics in figures.columns]
            if any(metric is not None for metric in found):
                name = f"{text(suite.name)}: {text(heading(measure), 80)}"
                rows.append([name, *(metric_text(metric) for metric in found), _items(found[-1])])
    return rows, measures


def _metric(metrics: Sequence[Metric], suite: str, measure: str) -> Metric | None:
    return next((metric for metric in metrics if (metric.suite, metric.measure) == (suite, measure)), None)


def _items(metric: Metric | None) -> str:
    if metric is None:
        return NOTHING
    missing = metric.missing - metric.unknown
    parts = [f"{metric.unknown} unknown"] * bool(metric.unknown) + [f"{missing} missing"] * bool(missing)
    return f"{metric.n}" + (f" ({', '.join(parts)})" if parts else "")


def _said(figures: AdapterFigures) -> list[str]:
    central = {(suite.name, measure.name) for suite in figures.suites for measure in _central(suite)}
    told = [text(c.sentence) for c in figures.comparisons if (c.suite, c.measure) in central][:SENTENCES]
    return [*([f"Tuning: {text(figures.sentence)}"] if figures.sentence else []), *told,
            *(f"Note: {text(note)}" for note in [*few(figures.suites), *figures.warnings][:SENTENCES])]  # fmt: skip


def _about(suite: SuiteInfo) -> list[str]:
    data = [f"{text(data.name, 120)} (n = {data.n}, SHA-256 {code(data.sha256[:12])}…)" for data in suite.data[:DATA]]
    lines = [f"{text(suite.name)}:", *(f"- {text(m.name, 80)}: {text(m.about)}" for m in _central(suite) if m.about)]
    lines += [f"- data: {', '.join(data)}"] if data else []
    return [*lines, *([f"- judge: {text(suite.judge)}"] if suite.judge else [])]


def _verifying(source: Source, record: Recorded | Remade | None, command: Sequence[str]) -> list[str]:
    names = [file.name for file in source.files[:FILES] if _WORD.fullmatch(file.name)]
    lines = [f"sha256sum {' '.join(names)}"] if names else []
    if all(_PLAIN_WORD.fullmatch(word) for word in command):
        lines.append(" ".join(command))
    proof = ""
    if record is not None and not isinstance(record, Remade):
        lines.append("s3lora restore . --from ORIGINAL -o restored")
        proof = f"; the last line proves that it was made from ORIGINAL, and puts back what was {record.word}"
    return ["### To verify this", "", f"In this folder{proof}:", "", "```sh", *lines, "```"]
