"""The JSON and CSV that commands print."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import msgspec

from s3lora.choose.ranking import usual_index
from s3lora.choose.select import Plan
from s3lora.errors import printable
from s3lora.gate.audit import GateOutcome
from s3lora.measure.against import Against
from s3lora.measure.against_base import ModuleAgainstBase
from s3lora.measure.against_published import AgainstPublished
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.spectrum.indices import INDICES

if TYPE_CHECKING:
    from s3lora.measure.comparison import Comparison
    from s3lora.rewrite.provenance import Provenance

#: Spreadsheets run cells that begin so, some also in the wide forms of East Asia; where lists have semicolons, what
#: follows one is a cell too. Names come from untrusted files.
_FORMULA = re.compile(r"((?:^|;)\s*)(?=[=+@\-−＝＋＠－﹢﹣﹦﹫]|::|##|section_)")
#: Columns of a scan beside the weights of a base.
BESIDE = ("of", "sigma_error", "relative", "relative_spectral", "intruders")
#: Columns of a scan that was held against a reference.
STANDING = ("percentile_of", "percentile", "percentile_low", "percentile_high", "z", "cell", "cell_adapters")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ScanDocument(Scan):
    """What `s3lora scan --format json` prints for one adapter: the scan, and the plan that marked `selected`.

    `reference` is where it stands in the population of `--reference`, `published` where among published adapters, and
    `gate` what the rules of `--fail-on` say.
    """

    plan: Plan | None
    reference: Against | None = None
    gate: GateOutcome | None = None
    published: AgainstPublished | None = None

    @property
    def ranked_by(self) -> str:
        """Return the index that the plan ranks by; for a control or no plan, the usual one."""
        given = None if self.plan is None else self.plan.index
        return given if given in INDICES else usual_index(self.modules)


def scan_document(
    scan: Scan,
    plan: Plan | None,
    reference: Against | None = None,
    gate: GateOutcome | None = None,
    published: AgainstPublished | None = None,
) -> ScanDocument:
    """Join a scan with its plan, and with what references and rules say of it; the scan's modules are marked."""
    marked = scan if plan is None else plan.mark(scan)
    notes = scan.warnings if plan is None else tuple(dict.fromkeys((*scan.warnings, *plan.warnings)))
    measured = {field.name: getattr(marked, field.name) for field in fields(Scan)} | {"warnings": notes}
    return ScanDocument(**measured, plan=plan, reference=reference, gate=gate, published=published)


def to_json(document: object) -> str:
    """Return the document as indented JSON with a final newline; equal documents give equal bytes.

    A `##`, which begins commands that a CI reads in a log, has its second sign as an escape.
    """
    text = msgspec.json.format(msgspec.json.encode(document), indent=1).decode()
    return text.replace("##", r"#\u0023") + "\n"


def scan_csv(documents: Sequence[ScanDocument]) -> str:
    """Return the rows of `scan_rows` as CSV."""
    return to_csv(scan_rows(documents))


def scan_rows(documents: Sequence[ScanDocument]) -> list[Sequence[object]]:
    """Return the heads, and a row a module: names, digest of the weights, shape, scaling, indices, `selected`, and σ̃.

    Beside the weights of a base, further columns tell what was measured and how large it is. Where there was a
    reference, the end of the row tells where the module stands by the index that ranks.
    """
    names = [name for name in INDICES if any(name in m.indices for d in documents for m in d.modules)]
    head = ["adapter", "sha256", "path", "layer", "projection", "expert", "m", "n", "rank", "dtype"]
    compared = any(document.reference is not None for document in documents)
    beside = any(document.base is not None for document in documents)
    more = (*(BESIDE if beside else ()), *(STANDING if compared else ()))
    rows: list[Sequence[object]] = [[*head, "scaling", "scaling_origin", "zero", *names, "selected", "sigma", *more]]
    for document in documents:
        weights = {} if document.base is None else {one.path: one for one in document.base.modules}
        for module in document.modules:
            cells: list[object] = [document.source.name, document.source.sha256]
            cells += [module.path, module.layer, module.projection, module.expert]
            cells += [*module.shape, module.rank, module.dtype, module.scaling, module.scaling_origin, module.zero]
            cells += [module.indices.get(name) for name in names]
            cells += [module.selected, module.sigma]
            cells += _beside(module, weights.get(module.path)) if beside else ()
            cells += _standing(document, module.path) if compared else ()
            rows.append(cells)
    return rows


def tensors_csv(documents: Sequence[ScanDocument]) -> str:
    """Return one row a tensor of the weights, in the order of the file; `sha256` is that of the weights.

    `tensor_sha256` is of the stored values of what is no factor; a shape is written `16 x 12`.
    """
    head = ["adapter", "sha256", "name", "role", "module", "dtype", "shape", "bytes", "parameters"]
    rows: list[Sequence[object]] = [[*head, "finite", "largest", "tensor_sha256", "effect"]]
    for document in documents:
        for one in document.inventory.tensors:
            cells: list[object] = [document.source.name, document.source.sha256, one.name, one.role, one.module]
            cells += [one.dtype, " x ".join(map(str, one.shape)), one.bytes, one.parameters]
            rows.append([*cells, one.finite, one.largest, one.sha256, one.effect])
    return to_csv(rows)


def _beside(module: ModuleScan, one: ModuleAgainstBase | None) -> Sequence[object]:
    """Return what stands in the columns `BESIDE`."""
    numbers = (None,) * 3 if one is None else (one.relative, one.relative_spectral, one.intruders)
    return (module.of, module.sigma_error, *numbers)


def _standing(document: ScanDocument, path: str) -> Sequence[object]:
    """Return what stands in the columns `STANDING`."""
    standing = None if document.reference is None else document.reference.standings.get(path)
    mark = None if standing is None else standing.marks.get(document.ranked_by)
    if standing is None or mark is None:
        return (None,) * len(STANDING)
    numbers = (mark.percentile, mark.low, mark.high, mark.z)
    return (document.ranked_by, *numbers, standing.cell, standing.adapters)


def prune_csv(provenance: Provenance) -> str:
    """Return one row a module that was chosen: what was done to it, and why."""
    rows: list[Sequence[object]] = [["path", "action", "index", "value", "position", "reason"]]
    for module in provenance.modules:
        cells = [module.path, module.action, provenance.plan.index, module.value, module.position, module.reason]
        rows.append(cells)
    return to_csv(rows)


def compare_csv(comparison: Comparison) -> str:
    """Return the rows of `compare_rows` as CSV."""
    return to_csv(compare_rows(comparison))


def compare_rows(comparison: Comparison) -> list[Sequence[object]]:
    """Return the heads, and a row a module and adapter; distance and cosine are to the one before."""
    head = ["path", "layer", "projection", "expert", "adapter", "sha256", "step", "m", "n", "rank"]
    rows: list[Sequence[object]] = [[*head, "ssi", "normalised_ssi", "frobenius", "distance", "cosine"]]
    for module in comparison.modules:
        for i, (source, step, shape) in enumerate(zip(comparison.sources, comparison.steps, module.shape, strict=True)):
            cells: list[object] = [module.path, module.layer, module.projection, module.expert, source.name]
            cells += [source.sha256, step, *(shape or (None, None))]
            cells += [module.rank[i], module.ssi[i], module.normalised_ssi[i]]
            relation = (module.distance[i - 1], module.cosine[i - 1]) if i else (None, None)
            rows.append([*cells, module.frobenius[i], *relation])
    return rows


def to_csv(rows: Iterable[Sequence[object]]) -> str:
    """Return rows of values, the first of them the heads, as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> str:
    """Return what stands in a cell: nothing for None, and text that no spreadsheet takes for a formula.

    Nor does a CI take one for a command, where it is the first of its line.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return " ".join(map(repr, value))
    return _FORMULA.sub(r"\1'", printable(value, 1024))
