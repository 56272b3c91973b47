"""What the header of a weights file says of how s3lora made it: a claim, as anybody may write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

#: The key of `__metadata__` under which s3lora keeps how it made a file.
KEY = "s3lora"
#: What a story may say: a header is a stranger's text, and nothing else of it is passed on.
_VERSION = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){0,3}(?:(?:a|b|rc|\.dev|\.post)[0-9]{1,4})?")
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,12})?(?:e[+-]?[0-9]{1,3})?"
_RULE = re.compile(rf"(?:top|fraction|threshold|outlier|null) {_NUMBER}|gap")
_RESIZE = re.compile(rf"rank [0-9]{{1,6}}|{_NUMBER}% of the energy")
#: Named again, as adapters lie below what measures and repairs them; a test holds them to the originals.
INDICES = (
    *("ssi", "normalised_ssi", "weighted_ssi", "magnitude", "frobenius", "stable_rank", "effective_rank"),
    *("spectral_entropy", "energy", "kurtosis", "random"),
)
METHODS = (
    *("shrink", "prune", "gates", "patch", "gates+patch", "retrain", "subspace", "random-subspace"),
    *("safelora", "splora"),
)
PARTS = ("heads", "bias", "tokens", "other", "all")


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
    if not _VERSION.fullmatch(story.version) or not all(part in PARTS for part in story.drop):
        return ()
    done = _done(story)
    return (f"its header says that s3lora {story.version} {done}",) if done else ()


def _done(story: _Story) -> str:
    """Return what was done, empty for what s3lora does not write."""
    count = len(story.modules)
    modules = [f"{count:,} module{'' if count == 1 else 's'}"] if count else []
    if _RULE.fullmatch(story.rule) and story.index.removeprefix("random-matched to ") in INDICES:
        left = [f"without {part}" for part in dict.fromkeys(story.drop)]
        chosen = [*modules, f"{story.rule} by {story.index}"] if modules else []
        return f"pruned it: {', '.join([*chosen, *left])}" if chosen or left else ""
    if story.repair in METHODS:
        strength = "" if story.strength is None else f" at strength {story.strength:g}"
        return f"repaired it: {', '.join([*modules, story.repair])}{strength}"
    if _RESIZE.fullmatch(story.resize):
        return f"resized it: {', '.join([*modules, story.resize])}"
    return f"made it: the sum of {len(story.sum):,} adapters" if len(story.sum) > 1 else ""
