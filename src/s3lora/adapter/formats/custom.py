"""Two home-made key schemes that number their pairs. Their loaders read every pair, so none may be missing.

- The first Stable Diffusion LoRA scripts: `unet:9:down` (r, n) and `unet:9:up` (m, r), counted over the injected
  layers of a model (`unet`, `text_encoder`); the rank stands in the metadata as `unet:9:rank`. Learned tokens such as
  `<s1>` are carried along.
- LoRA for the image encoder of Segment Anything: `w_a_000` (r, n) and `w_b_000` (m, r). The pairs alternate between
  the query and the value projection of each block: number 2k is q of block k, number 2k + 1 is v of block k.

Neither scheme stores a scaling.
"""

from __future__ import annotations

import re

from s3lora.adapter.formats.base import Format, Reading, StoredAdapter, rank_warning
from s3lora.adapter.formats.pairs import Pair, read_pairs
from s3lora.adapter.model import layer_number

_SD_KEY = re.compile(r"^(?P<path>\w+:\d+):(?P<half>down|up)$")
_SAM_KEY = re.compile(r"^w_(?P<half>[ab])_(?P<number>\d+)$")
_HALVES = {"down": "down", "up": "up", "a": "down", "b": "up"}


def _gather(source: StoredAdapter, key: re.Pattern[str], path: str) -> tuple[dict[str, Pair], list[str]]:
    """Return the pairs by path (`path` is the template of a module's path) and the names that are no factor."""
    pairs: dict[str, Pair] = {}
    others = []
    for name, tensor in source.tensors.items():
        match = key.match(name)
        if match is None:
            others.append(name)
            continue
        where = match.expand(path)
        pairs.setdefault(where, Pair(where)).add(_HALVES[match["half"]], name, tensor, source.label)
    return pairs, others


def _read_sd(source: StoredAdapter) -> Reading:
    pairs, others = _gather(source, _SD_KEY, r"\g<path>")
    reading = read_pairs(pairs.values(), others, source, locate=_sd_parts)
    ranks = {path: source.metadata.get(f"{path}:rank", "") for path in pairs}
    configured = {path: int(rank) for path, rank in ranks.items() if rank.isdecimal() and len(rank) < 10}
    notes = (*reading.warnings, *rank_warning(reading.modules, configured))
    return Reading(reading.modules, reading.other_tensors, notes)


def _sd_parts(path: str) -> tuple[int | None, str]:
    model, _, number = path.rpartition(":")
    return layer_number(number), model


def _read_sam(source: StoredAdapter) -> Reading:
    pairs, others = _gather(source, _SAM_KEY, r"w_\g<number>")
    note = "numbered pairs: read as Segment Anything's, where 2k is the query and 2k + 1 the value of block k"
    return read_pairs(pairs.values(), others, source, locate=_sam_parts, notes=[note])


def _sam_parts(path: str) -> tuple[int | None, str]:
    digits = path.removeprefix("w_")
    number = layer_number(digits)
    return None if number is None else number // 2, "v" if int(digits[-1]) % 2 else "q"


def _has(key: re.Pattern[str], source: StoredAdapter) -> bool:
    return any(key.match(name) for name in source.tensors)


STABLE_DIFFUSION = Format("stable-diffusion-numbered", lambda source: _has(_SD_KEY, source), _read_sd, removable=False)
SEGMENT_ANYTHING = Format(
    "segment-anything-numbered", lambda source: _has(_SAM_KEY, source), _read_sam, removable=False
)
