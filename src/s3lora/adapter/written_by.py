"""What the header of a weights file says of how s3lora made it: a claim, as anybody may write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from s3lora.errors import printable

#: The key of `__metadata__` under which s3lora keeps how it made a file.
KEY = "s3lora"


class _Story(msgspec.Struct):
    version: str
    rule: str = ""
    index: str = ""
    repair: str = ""
    strength: float | None = None
    resize: str = ""
    sum: list[Any] = []
    modules: dict[str, Any] = {}


def written_by(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the note that s3lora made a file, none where its `__metadata__` does not say so in the known form.

    >>> written_by({"s3lora": '{"version": "1", "rule": "top 1", "index": "ssi", "modules": {"h.0": []}}'})
    ('its header says that s3lora 1 pruned it: 1 module, top 1 by ssi',)
    """
    try:
        story = msgspec.json.decode(metadata.get(KEY, ""), type=_Story)
    except (msgspec.DecodeError, RecursionError):
        return ()
    count = len(story.modules)
    modules = f"{count:,} module{'' if count == 1 else 's'}"
    if story.rule:
        done = f"pruned it: {modules}, {story.rule} by {story.index}"
    elif story.repair:
        strength = "" if story.strength is None else f" at strength {story.strength:g}"
        done = f"repaired it: {modules}, {story.repair}{strength}"
    elif story.resize:
        done = f"resized it: {modules}, {story.resize}"
    elif story.sum:
        done = f"made it: the sum of {len(story.sum)} adapters"
    else:
        return ()
    return (f"its header says that s3lora {printable(story.version, 40)} {printable(done, 300)}",)
