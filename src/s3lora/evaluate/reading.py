"""Reading back what `eval`, `sweep` and `tune` wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from s3lora.errors import UsageError, printable
from s3lora.evaluate.results import SCHEMA_VERSION, Evaluation, Sweep, Tuning
from s3lora.files import read_whole

Measurement = Evaluation | Sweep | Tuning
LARGEST = 64 * 1024 * 1024
#: The field that only one kind of document has.
_KINDS: dict[str, type[Evaluation] | type[Sweep] | type[Tuning]] = {
    "variants": Evaluation,
    "points": Sweep,
    "tried": Tuning,
}


def read_measurement(path: str | os.PathLike[str]) -> Measurement:
    """Return the content of an `evaluation.json`, `sweep.json` or `tuning.json`, whichever it is.

    Raises UsageError if the file cannot be read, is something else, or of a later version of the schema.
    """
    file = Path(path)
    raw = read_whole(file, LARGEST)
    try:
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        version = msgspec.json.decode(fields.get("schema_version", b"0"), type=int)
        kind: Any = next((kind for name, kind in _KINDS.items() if name in fields), None)
        if kind is not None and version <= SCHEMA_VERSION:
            found: Measurement = msgspec.json.decode(raw, type=kind)
            return found
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"is no result of eval, sweep or tune: {printable(error)}", file=file) from None
    if kind is None:
        fix = "give the evaluation.json, sweep.json or tuning.json that one of them wrote"
        raise UsageError("is no result of eval, sweep or tune", file=file, fix=fix)
    what = f"is of schema version {version}, and this s3lora knows {SCHEMA_VERSION}"
    raise UsageError(what, file=file, fix="update s3lora")
