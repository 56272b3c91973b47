"""What the header of a weights file says of how s3lora made it: a claim, as anybody may write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

#: The key of `__metadata__` under which s3lora keeps how it made a file.
KEY = "s3lora"
#: What a story may say in words: a header is a stranger's text, and no more of it is passed on.
_VERSION = re.compile(r"\d{1,4}(?:\.\w{1,12}){0,4}")
_NAMES = (
    *("ssi", "normalised_ssi", "weighted_ssi", "magnitude", "frobenius", "stable_rank", "effective_rank"),
    *("spectral_entropy", "energy", "kurtosis", "random", "heads", "bias", "tokens", "other", "all"),
    *("shrink", "prune", "gates", "patch", "gates+patch", "retrain", "subspace"),
    *("random-subspace", "safelora", "splora"),
)
_WORDS = re.compile(
    r"(?:top|fraction|threshold|outlier|null) [\d.e+-]{1,12}|gap|rank \d{1,6}|[\d.]{1,16}% of the energy"
    r"|random-matched to \w{1,20}|" + "|".join(map(re.escape, _NAMES))
)


class _Story(msgspec.Struct):
    version: str
    rule: str = ""
    index: str = ""
    repair: str = ""
    strength: float | None = None
    resize: str = ""
    sum: list[Any] = []
    drop: list[str] = []
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
    words = [text for text in (story.rule, story.index, story.repair, story.resize, *story.drop) if text]
    if not _VERSION.fullmatch(story.version) or len(words) > 8 or not all(map(_WORDS.fullmatch, words)):
        return ()
    count = len(story.modules)
    modules = [f"{count:,} module{'' if count == 1 else 's'}"] if count else []
    if story.rule and story.index:
        chosen = [*modules, f"{story.rule} by {story.index}"] if modules else []
        done = f"pruned it: {', '.join([*chosen, *(f'without {part}' for part in story.drop)]) or 'nothing'}"
    elif story.repair:
        strength = "" if story.strength is None else f" at strength {story.strength:g}"
        done = f"repaired it: {', '.join([*modules, story.repair])}{strength}"
    elif story.resize:
        done = f"resized it: {', '.join([*modules, story.resize])}"
    elif story.sum:
        done = f"made it: the sum of {len(story.sum)} adapters"
    else:
        return ()
    return (f"its header says that s3lora {story.version} {done}",)
