"""Adapters that are no pair of factors: parts that nearly fit, under the names of PEFT and of LyCORIS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.fuzz.draw import Draw
from tests.fuzz.measuring import CONFIG, measure, prune_and_restore, put
from tests.fuzz.target import Target
from tests.support import dtype_of, safetensors_bytes

#: `peft_type` and the parts of a module, with the letters of their sizes.
FORMS: tuple[tuple[str, dict[str, str]], ...] = (
    ("LOHA", {"hada_w1_a": "mr", "hada_w1_b": "rn", "hada_w2_a": "ms", "hada_w2_b": "sn"}),
    ("LOKR", {"lokr_w1": "ab", "lokr_w2": "cd"}),
    ("LOKR", {"lokr_w1_a": "ar", "lokr_w1_b": "rb", "lokr_w2_a": "cs", "lokr_w2_b": "sd"}),
    ("LOKR", {"lokr_w1": "ab", "lokr_w2": "cdkk"}),
    ("LOKR", {"lokr_w1": "ab", "lokr_w2_a": "cs", "lokr_w2_b": "sd"}),
    ("ADALORA", {"lora_A": "rn", "lora_B": "mr", "lora_E": "r1"}),
    ("VERA", {"vera_lambda_b": "m", "vera_lambda_d": "r"}),
)
OTHERS = (".alpha", ".dora_scale", ".hada_t1", ".lokr_t2", ".ranknum", ".lokr_w1_b", ".lora_mid.weight", ".diff", ".x")
PREFIXES = ("base_model.model.", "", "lora_unet_", "lycoris_", "base_model.model._orig_mod.")
_SIZES = (2, 3, 1, 5, 4, 0)


def _fuzz(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    kind, parts = draw.pick(FORMS)
    prefix = draw.pick(PREFIXES)
    random = np.random.default_rng(draw.number(255))
    tensors: dict[str, np.ndarray] = {}  # type: ignore[type-arg]
    sizes = {letter: draw.pick(_SIZES[:5]) for letter in "mnrsabcdk"} | {"1": 1}

    def put_in(name: str, shape: Sequence[int]) -> None:
        values = random.normal(size=shape) * draw.pick((1.0, 0.0, 1e-30, 1e30, np.nan) if draw.chance(6) else (1.0,))
        with np.errstate(over="ignore", invalid="ignore"):
            tensors[name] = values.astype(dtype_of(draw.pick(("float32", "float16", "bfloat16", "float64", "int8"))))

    for layer in range(1 + draw.number(2)):
        path = f"{prefix}model.layers.{layer}.q_proj" if "." in prefix or not prefix else f"{prefix}blocks_{layer}_to_q"
        for part, letters in parts.items():
            if draw.chance(16):
                continue
            shape = [draw.pick(_SIZES) if draw.chance(20) else sizes[letter] for letter in letters]
            put_in(f"{path}.{part}{draw.pick(('', '.default', '.weight')) if draw.chance(8) else ''}", shape)
        if draw.chance(4):
            put_in(path + draw.pick(OTHERS), [draw.pick(_SIZES) for _ in range(draw.number(3))])
    if kind == "VERA" and not draw.chance(8):
        put_in("base_model.vera_A", (sizes["r"], sizes["n"]))
        put_in("base_model.vera_B", (sizes["m"], sizes["r"]))
    if not tensors:
        return
    config = {"peft_type": kind, "r": sizes["r"], "alpha": 4, "lora_alpha": 4, "target_modules": ["q_proj"]}
    put(folder / "in", weights=safetensors_bytes(tensors), config=json.dumps(draw.edited(config)).encode())
    if draw.chance(2):
        (folder / "in" / CONFIG).unlink()
    measure(folder / "in")
    if draw.chance(2):
        prune_and_restore(folder / "in", folder)


def _seeds() -> Sequence[bytes]:
    sizes = (0, 1, 0, 1, 3, 1, 0, 4, 1)
    return [bytes([form, prefix, 7, *sizes]) for form in range(len(FORMS)) for prefix in range(3)]


_WORDS = (b"\0\0\0\0", b"\1\1\1\1", b"LORA", b"null", b"1e400")
TARGETS = (
    Target(
        "forms", "parts of LoHa, LoKr, AdaLoRA and VeRA: scanned, pruned, restored", _fuzz, _seeds, _WORDS, quick=60
    ),
)
