"""What a repair has learned, kept on disk: a run that was cut off does not learn it again."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3lora.evaluate.chat import digest_of
from s3lora.evaluate.store import AnswerStore
from s3lora.repair.methods.method import RepairSubject

#: Raised where the same settings and data come to learn something else.
VERSION = 2
Arrays = Mapping[str, NDArray[np.float32]]


def learned_once(
    subject: RepairSubject, method: str, settings: Mapping[str, Any], learn: Callable[[], Arrays]
) -> Arrays:
    """Return what was learned by these settings from this subject: from the store, or now."""
    model, attached, rows = subject.ready
    data = [[[row.prompt, row.answer] for row in part] for part in (rows.refusals, rows.harmless, rows.task)]
    source, settled = attached.source.identity, dict(settings)
    base = [model.base_identity, model.template.identity, model.turn_end]
    what = [VERSION, method, settled, subject.seed, *base, source, data]
    return _kept(subject.store, digest_of(["repair", *what]), learn)


def _kept(store: AnswerStore | None, key: str, learn: Callable[[], Arrays]) -> Arrays:
    known = store.get([key]).get(key) if store is not None else None
    if known is not None:
        return {name: _array(value) for name, value in known.items()}
    found = {name: np.ascontiguousarray(array, dtype="<f4") for name, array in learn().items()}
    if store is not None:
        kept = {name: [list(array.shape), base64.b64encode(array.tobytes()).decode()] for name, array in found.items()}
        store.put({key: kept})
    return found


def _array(value: Any) -> NDArray[np.float32]:
    shape, raw = value
    return np.frombuffer(base64.b64decode(raw), dtype="<f4").reshape(shape)
