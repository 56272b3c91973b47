"""Names of tensors: into every form of output."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.fuzz.contract import BrokenContract, command
from tests.fuzz.draw import WORDS, Draw
from tests.fuzz.measuring import measure, put
from tests.fuzz.target import Target
from tests.fuzz.targets.safetensors import HALVES, PATHS
from tests.support import factors, safetensors_bytes

FORMATS = ("json", "csv", "sarif", "junit", "html", "text")


def _path(draw: Draw) -> str:
    parts = [draw.pick((draw.pick(PATHS), draw.word(), draw.text(), "model.layers.", str(draw.number(10**9))))
             for _ in range(1 + draw.number(2))]  # fmt: skip
    return draw.pick(("base_model.model.", "", "lora_unet_")) + "".join(parts)


def _fuzz(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    form = draw.pick(FORMATS)
    halves = draw.pick(HALVES)
    tensors: dict[str, np.ndarray] = {}  # type: ignore[type-arg]
    for i in range(1 + draw.number(2)):
        a, b = factors(4, 3, 2, seed=i)
        if halves[0] == ".lora_a":
            a, b = a.T, b.T
        path = _path(draw)
        tensors |= {path + halves[0]: a, path + halves[1]: b}
    if draw.chance(3):
        tensors[draw.word()] = np.ones((2, 2), np.float32)
    put(folder / "in", weights=safetensors_bytes(tensors))
    measure(folder / "in")
    status, out = command("scan", folder / "in", "--no-policy", "--format", form, "--fail-on", "ssi > 0.1")
    if status in (0, 1):
        _well_formed(form, out)


def _well_formed(form: str, out: str) -> None:
    if form in ("json", "sarif"):
        json.loads(out)
    elif form == "junit":
        import xml.etree.ElementTree as ET

        ET.fromstring(out)
    elif form == "html" and len(re.findall(r"<script\b", out)) != len(re.findall(r"</script>", out)):
        raise BrokenContract("a name opens or closes a script of the page")


def _seeds() -> Sequence[bytes]:
    return [bytes([form, 0, 0, 1, 0, word]) for form in range(6) for word in (0, 1, 5)]


_WORDS = (*(word.encode() for word in (*WORDS, *PATHS) if word), b"</script>", b"]]>", b"&#0;")
TARGETS = (Target("names", "names of tensors, in every output", _fuzz, _seeds, _WORDS, quick=60),)
