"""What a repair has learned, kept on disk: a run that was cut off does not learn it again."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3lora.errors import S3LoRAError
from s3lora.evaluate.chat import digest_of
from s3lora.evaluate.store import AnswerStore
from s3lora.repair.methods.method import RepairSubject

#: Raised where the same settings and data come to learn something else.
VERSION = 3
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
    """Return arrays from the store, where each has a row of its own: all of a large repair are too much for one."""
    if store is not None and (kept := store.get([key]).get(key)) is not None:
        keys = {name: digest_of([key, name]) for name in kept["arrays"]}
        known = store.get([*keys.values()])
        if all(one in known for one in keys.values()):
            return {name: _array(known[one]["array"]) for name, one in keys.items()}
    found = {name: np.ascontiguousarray(array, dtype="<f4") for name, array in learn().items()}
    if store is not None:
        # What was learned is not lost because it cannot be kept: a later run learns it again.
        with contextlib.suppress(S3LoRAError, OverflowError):
            for name, array in found.items():
                row = [list(array.shape), base64.b64encode(array.tobytes()).decode()]
                store.put({digest_of([key, name]): {"array": row}})
            store.put({key: {"arrays": [*found]}})
    return found


def _array(value: Any) -> NDArray[np.float32]:
    shape, raw = value
    return np.frombuffer(base64.b64decode(raw), dtype="<f4").reshape(shape)
