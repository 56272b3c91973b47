"""safetensors: the file as it is, its header, and the tensors of an adapter."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from s3lora.adapter.safetensors_write import write_safetensors
from s3lora.adapter.tensors import DTYPES, WeightsFile, read_safetensors
from tests.fuzz.contract import BrokenContract, never_refused, untouched
from tests.fuzz.draw import INTEGERS, Draw
from tests.fuzz.measuring import CONFIG, measure, prune_and_restore, put, valid
from tests.fuzz.target import Target

PATHS = (
    "base_model.model.model.layers.0.self_attn.q_proj", "base_model.model.model.layers.1.self_attn.q_proj",
    "base_model.model.model.layers.10.mlp.experts.3.up_proj", "model.layers.0.mlp.down_proj", "q_proj",
    "lora_unet_down_blocks_0_attentions_0_proj_in", "lora_te_text_model_encoder_layers_0_mlp_fc1",
    "unet.down_blocks.0.attn1.to_k", "transformer.h.0.attn.c_attn", "unet:0", "w_a_000", "layers.0.experts", "",
)  # fmt: skip
#: The two halves of a module, as each format calls them.
HALVES = (
    (".lora_A.weight", ".lora_B.weight"), (".lora_A", ".lora_B"), (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_down.weight", ".lora_up.weight"), (".lora.down.weight", ".lora.up.weight"), (".lora_a", ".lora_b"),
    (".lora_embedding_A", ".lora_embedding_B"), (":down", ":up"), (".lora_A.weight", ".lora_A.weight"),
)  # fmt: skip
OTHERS = (
    ".alpha", ".lora_magnitude_vector", ".dora_scale", ".bias", ".lora_B.bias", ".base_layer.weight", ".weight",
    ".modules_to_save.weight", ".lora_E", ".lora_mid.weight", ".lokr_w1", ".lokr_w2_a", ".hada_w1_a", ".diff", ":rank",
)  # fmt: skip
CODES = ("F32", "F16", "BF16", "F64", "F8_E4M3", "F8_E5M2", *DTYPES)
_SIZES = (2, 3, 1, 8, 0)


def content(draw: Draw) -> bytes:
    """Return a file: the bytes as they are, a header of any text before a null byte, or tensors that nearly fit."""
    kind = draw.number(2)
    if kind == 1:
        return draw.rest()
    if kind == 2:
        text, _, data = draw.rest().partition(b"\0")
        return struct.pack("<Q", len(text)) + text + data
    return _tensors(draw)


def _tensors(draw: Draw) -> bytes:
    header: dict[str, Any] = {"__metadata__": draw.edited({"format": "pt"})} if draw.chance(3) else {}
    end = 0
    for name, shape in _named(draw):
        code = draw.pick(CODES[:6]) if not draw.chance(8) else draw.pick(CODES)
        size = math.prod(shape) * DTYPES[code][0] // 8
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    if draw.chance(4):
        header = draw.edited(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    values = draw.rest() or b"\x00\x3c"
    data = (values * (end // len(values) + 1))[:end]
    return struct.pack("<Q", len(text)) + text + data


def _named(draw: Draw) -> list[tuple[str, list[int]]]:
    """Return names and shapes: pairs that mostly fit, and what else lies in such files."""
    made: list[tuple[str, list[int]]] = []
    halves = draw.pick(HALVES)
    for _ in range(1 + draw.number(3)):
        path = draw.pick(PATHS) if not draw.chance(6) else draw.word()
        if draw.chance(5):
            made.append((path + draw.pick(OTHERS), [draw.pick(_SIZES) for _ in range(draw.number(3))]))
            continue
        r, m, n = draw.pick(_SIZES), draw.pick(_SIZES) + 1, draw.pick(_SIZES) + 2
        down, up = draw.pick(HALVES) if draw.chance(12) else halves
        a, b = ([n, r], [r, m]) if down == ".lora_a" else ([r, n], [m, r])
        if draw.chance(10):
            a, b = [*a, 1, 1], [*b, 1, 1]
        if draw.chance(12):
            a[0] = draw.pick(INTEGERS[:8])
        made += [(path + down, a), (path + up, b)]
    return made


def _header(data: bytes, folder: Path) -> None:
    path = folder / "x.safetensors"
    path.write_bytes(content(Draw(data)))
    with untouched(folder):
        file = read_safetensors(path)
    try:
        _reads_as_upstream(path, file)
        _writes_back(file, folder / "again.safetensors")
    finally:
        file.close()


def _reads_as_upstream(path: Path, file: WeightsFile) -> None:
    """Raise unless the format's own reader takes what we take for the same."""
    if find_spec("safetensors") is None:
        return
    from safetensors import SafetensorError, deserialize

    try:
        theirs = dict(deserialize(path.read_bytes()))
    except SafetensorError as error:
        raise BrokenContract(f"safetensors refuses what is accepted here: {error}") from error
    ours = {name: (tensor.code, list(tensor.shape), _bytes(tensor)) for name, tensor in file.tensors.items()}
    found = {name: (one["dtype"], list(one["shape"]), bytes(one["data"])) for name, one in theirs.items()}
    if ours.keys() != found.keys() or any(ours[name][1:] != found[name][1:] for name in ours):
        raise BrokenContract("safetensors reads other tensors")


def _bytes(tensor: Any) -> bytes:
    return b"".join(bytes(piece) for piece in tensor.chunks())


def _writes_back(file: WeightsFile, path: Path) -> None:
    """Raise unless what is written of a file is read as the same."""
    write_safetensors(path, file.tensors, {}, file.metadata)
    with never_refused("what was written is read again"):
        again = read_safetensors(path)
    try:
        if again.metadata != file.metadata or list(again.tensors) != list(file.tensors):
            raise BrokenContract("writes another header than it read")
        for name, tensor in file.tensors.items():
            other = again.tensors[name]
            if (tensor.code, tensor.shape, _bytes(tensor)) != (other.code, other.shape, _bytes(other)):
                raise BrokenContract("writes other tensors than it read")
            if DTYPES[tensor.code][1] is not None and tensor.array().shape != tensor.shape:
                raise BrokenContract("has an array of another shape")
    finally:
        again.close()


def _adapter(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    bare, pruned = draw.chance(3), draw.chance(3)
    put(folder / "in", weights=content(draw))
    if bare:
        (folder / "in" / CONFIG).unlink()
    measure(folder / "in")
    if pruned:
        prune_and_restore(folder / "in", folder)


def _seeds() -> Sequence[bytes]:
    raw = valid()[0]
    length = int.from_bytes(raw[:8], "little")
    small = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return (
        b"\1" + raw,
        b"\2" + raw[8 : 8 + length] + b"\0" + raw[8 + length :],
        b"\1" + struct.pack("<Q", len(small)) + small + bytes(4),
        b"\2" + small + b"\0" + bytes(4),
        b"\0\0\0\0\0\1\2\3\4\5\6\7" * 4,
        b"",
    )


def _adapter_seeds() -> Sequence[bytes]:
    return [head + seed for head in (b"\0\0", b"\2\2") for seed in _seeds()]


_WORDS = tuple(word.encode() for word in (
    '"dtype":', '"shape":', '"data_offsets":', '"__metadata__":', "[0,4]", "-0", "1e3", "null", "{}", "[]", '"F32"',
    '"BF16"', '"F4"', '"BOOL"', "\\u0061", "\\ud800", *(half for pair in HALVES for half in pair), *OTHERS, *PATHS[:-1],
))  # fmt: skip
TARGETS = (
    Target("safetensors", "header and tensors of a safetensors file", _header, _seeds, _WORDS),
    Target("adapter", "tensors of an adapter: scanned, pruned, restored", _adapter, _adapter_seeds, _WORDS, quick=60),
)
