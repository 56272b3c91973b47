"""`adapter_config.json`, and the index of shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.fuzz.contract import work_folder
from tests.fuzz.draw import Draw
from tests.fuzz.measuring import WEIGHTS, measure, prune_and_restore, put, valid
from tests.fuzz.target import Target
from tests.hostile import bad_files as bad
from tests.hostile.test_fuzz import FIELDS

INDEX = f"{WEIGHTS}.index.json"
_PATTERNS = ("q_proj", ".*", r"model\.layers\.0\..*", "(", "(a+)+$", r"^(?!.*v_proj).*$", "layers.1.self_attn.q_proj")


def _config(draw: Draw) -> bytes:
    if draw.chance(3):
        return draw.rest()
    fields: dict[str, Any] = json.loads(valid()[1])
    for _ in range(draw.number(4)):
        field = draw.pick(FIELDS)
        fields[field] = _plausible(field, draw) if draw.chance(2) else draw.value()
    return json.dumps(draw.edited(fields) if draw.chance(4) else fields).encode()


def _plausible(field: str, draw: Draw) -> Any:
    if field.endswith("_pattern"):
        return {draw.pick(_PATTERNS): draw.pick((1, 2, 3, 8, 0.5, 2**70)) for _ in range(draw.number(3))}
    if field.endswith(("modules", "parameters", "save")):
        return draw.pick((draw.pick(_PATTERNS), [draw.pick(_PATTERNS) for _ in range(draw.number(3))]))
    if field in ("r", "lora_alpha", "scale", "num_layers"):
        return draw.pick((1, 2, 4, 16, 1e-300, 1e300, 2**63))
    return draw.pick((True, False, None, "none", "all", "pissa", "olora", "gaussian", "VERA"))


def _fuzz_config(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    pruned = draw.chance(2)
    put(folder / "in", config=_config(draw))
    measure(folder / "in")
    if pruned:
        prune_and_restore(folder / "in", folder)


@cache
def _shards() -> dict[str, bytes]:
    with work_folder() as folder:
        made = bad.sharded()(folder / "in")
        return {path.name: path.read_bytes() for path in made.iterdir()}


def _fuzz_index(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    pruned = draw.chance(3)
    (folder / "in").mkdir()
    for name, content in _shards().items():
        (folder / "in" / name).write_bytes(content)
    raw = draw.rest() if draw.chance(3) else json.dumps(_index(draw)).encode()
    (folder / "in" / INDEX).write_bytes(raw)
    measure(folder / "in")
    if pruned:
        prune_and_restore(folder / "in", folder)


def _index(draw: Draw) -> Any:
    index = json.loads(_shards()[INDEX])
    for name in sorted(index["weight_map"]):
        if draw.chance(4):
            index["weight_map"][name] = draw.pick(("one.safetensors", "two.safetensors", "../in/one.safetensors", "."))
    return draw.edited(index)


def _config_seeds() -> Sequence[bytes]:
    return (b"", b"\1", b"\0\2" + valid()[1], b"\1\0\3\2\1\4\1\2\0\1\0\1\0\1" * 3)


def _index_seeds() -> Sequence[bytes]:
    return (b"", b"\2", b"\0\2" + _shards()[INDEX], b"\2\0\3\0\3\1\2\1\0\1\0\1" * 3)


_WORDS = (*(f'"{field}":'.encode() for field in FIELDS), b'"LORA"', b"true", b"null", b"{}", b"[]", b"1e999")
TARGETS = (
    Target("config", "adapter_config.json", _fuzz_config, _config_seeds, _WORDS, quick=60),
    Target("shard-index", "index of shards", _fuzz_index, _index_seeds,
           (b'"weight_map":', b'"metadata":', b"one.safetensors", b"two.safetensors", b"../", b"\\u0000"), quick=60),
)  # fmt: skip
