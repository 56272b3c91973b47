"""The attribution of one adapter, kept on disk: which directions carry what was lost and what was learned."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from s3lora.evaluate.bench import Advance
from s3lora.repair.attribution import PathIntegral, integrate
from s3lora.repair.kept import learned_once
from s3lora.repair.learning import LearningRows
from s3lora.repair.live import live
from s3lora.repair.losses import Term
from s3lora.repair.methods.method import RepairSubject
from s3lora.repair.modules import repairable
from s3lora.repair.results import Completeness

#: Task answers that are looked at, and tokens of each: every point of the path costs a pass with gradients over them.
TASK_ROWS = 16


def attributed(subject: RepairSubject, advance: Advance) -> tuple[PathIntegral, PathIntegral]:
    """Return the integrals of what was lost and of what was learned."""
    modules = repairable(subject.adapter)
    paths = [module.path for module in modules]
    model, attached, rows = subject.ready

    def run() -> dict[str, NDArray[np.float32]]:
        found: dict[str, Any] = {}
        with live(model, attached, modules) as adapter:
            for term, of in zip(_terms(rows), ("lost", "learned"), strict=True):
                one = integrate(adapter, term, "lost" if of == "lost" else "learned", advance=advance)
                told = one.completeness
                found[of] = np.concatenate([one.parts[path] for path in paths])
                found[f"{of} told"] = np.array([told.difference, told.attributed, told.points, told.error])
        return found

    kept = learned_once(subject, "attribution", {"rows": TASK_ROWS}, run)
    sizes = [min(module.rank, module.m, module.n) for module in modules]
    ends = np.cumsum(sizes)[:-1]
    lost, learned = (
        PathIntegral(
            dict(zip(paths, np.split(kept[of].astype(np.float64), ends), strict=True)),
            _told(of, kept[f"{of} told"]),
        )
        for of in ("lost", "learned")
    )
    return lost, learned


def _terms(rows: LearningRows) -> tuple[Term, Term]:
    task = Term(rows.task[:TASK_ROWS], anchors=rows.task_anchors[:TASK_ROWS])
    return Term(rows.refusals), task


def _told(of: str, values: NDArray[np.float32]) -> Completeness:
    difference, total, points, error = map(float, values)
    fields = {"of": of, "difference": difference, "attributed": total, "points": int(points), "error": error}
    return msgspec.convert(fields, Completeness)
