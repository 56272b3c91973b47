"""GGUF files of adapters: bytes as they are, and headers that nearly fit; scanned, pruned, restored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.fuzz.draw import Draw
from tests.fuzz.measuring import measure, prune_and_restore
from tests.fuzz.target import Target
from tests.gguf_files import ADAPTER, gguf_bytes

PATHS = (
    *("blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.10.ffn_down.weight", "token_embd.weight", "output.weight"),
    *("blk.0.ffn_up_exps.weight", "blk.0.ssm_in.weight", "x", ""),
)
ARCHITECTURES = ("llama", "qwen2", "gpt2", "gemma3", "")
HEADS = "llama.attention.head_count"


def _gguf(draw: Draw) -> bytes:
    if draw.chance(3):
        return draw.rest()
    keys = {**ADAPTER, "general.architecture": draw.pick(ARCHITECTURES)}
    if draw.chance(2):
        keys |= {HEADS: draw.number(4), f"{HEADS}_kv": draw.number(4), "a": ["x", "y"], "b": [1, 2], "c": True}
    if draw.chance(4):
        keys["general.alignment"] = draw.pick((8, 32, 64, "0", "3", 1))
    if draw.chance(4):
        keys["adapter.lora.alpha"] = draw.pick((0.0, -1.0, float("nan"), 16.0, "x"))
    tensors, packed = {}, []
    for _ in range(1 + draw.number(3)):
        path = draw.pick(PATHS) if not draw.chance(6) else draw.word()
        r, m, n = 1 + draw.number(3), draw.pick((4, 8, 32)), draw.pick((32, 64, 5))
        a, b = np.ones((r, n)), np.ones((m, r)) * (1 + draw.number(3))
        if "exps" in path:
            a, b = np.stack([a, a]), np.stack([b, b])
        elif path.startswith("token"):
            a = a.T.copy()
        for half, values in (("a", a), ("b", b)):
            name = f"{path}.lora_{half}"
            tensors[name] = values.astype(
                draw.pick(("float32", "float16", "float64", "int8")[: 4 if draw.chance(9) else 3])
            )
            if values.shape[-1] % 32 == 0 and draw.chance(3):
                packed.append(name)
    whole = tuple(name for name in packed if tensors[name].shape[-1] % 32 == 0)
    raw = bytearray(gguf_bytes(tensors, keys, q8_0=whole))
    for _ in range(draw.number(4)):
        raw[draw.number(65_535) % len(raw)] = draw.number(255)
    return bytes(raw)


def _fuzz(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    pruned = draw.chance(3)
    path = folder / "in" / "adapter.gguf"
    path.parent.mkdir()
    path.write_bytes(_gguf(draw))
    measure(path, path.parent)
    if pruned:
        prune_and_restore(path, folder)


def _seeds() -> Sequence[bytes]:
    return (b"", bytes(60), b"\1" * 80, b"\2\2" + _gguf(Draw(bytes(60))), b"\0\2" + _gguf(Draw(bytes(60))))


_WORDS = (b"GGUF\3\0\0\0", b".lora_a", b".lora_b", b"adapter.lora.alpha", b"general.alignment", b"\x08\0\0\0")
TARGETS = (Target("gguf", "GGUF file of an adapter", _fuzz, _seeds, _WORDS, quick=100),)
