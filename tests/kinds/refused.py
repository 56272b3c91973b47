"""What is not read, and has to be named for what it is."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.kinds.kind import (
    HIDDEN,
    PREFIX,
    RANK,
    SHAPES,
    Kind,
    Updates,
    configure,
    drawn,
    peft_config,
    save_torch,
    write,
)
from tests.kinds.peft import FILE, lora
from tests.kinds.pictures import tucker


def of_peft(
    folder: Path, random: np.random.Generator, peft_type: str, parts: Mapping[str, tuple[int, ...]], **fields: Any
) -> Updates:
    tensors = {f"{PREFIX}{path}.{name}": drawn(random, *shape) for path in SHAPES for name, shape in parts.items()}
    write(folder, FILE, tensors)
    configure(folder, **peft_config(peft_type=peft_type, **fields))
    return []


def prompt(folder: Path, random: np.random.Generator) -> Updates:
    write(folder, FILE, {"prompt_embeddings": drawn(random, 8, HIDDEN)})
    configure(folder, peft_type="PROMPT_TUNING", task_type="CAUSAL_LM", num_virtual_tokens=8)
    return []


def merged(folder: Path, random: np.random.Generator) -> Updates:
    key = f"{PREFIX}transformer.h.0.self_attention.query_key_value"
    stored = {
        f"{key}.lora_A.weight": drawn(random, 2 * RANK, HIDDEN),
        f"{key}.lora_B.weight": drawn(random, 64, RANK, 1),
    }
    write(folder, FILE, stored)
    configure(folder, **peft_config(target_modules=["query_key_value"], enable_lora=[True, False, True]))
    return []


def integers(folder: Path, random: np.random.Generator) -> Updates:
    tensors, _ = lora(random)
    write(folder, FILE, {name: (values * 20).astype(np.int8) for name, values in tensors.items()})
    configure(folder, **peft_config())
    return []


def model(folder: Path, random: np.random.Generator) -> Updates:
    write(folder, "model.safetensors", {f"{path}.weight": drawn(random, *shape) for path, shape in SHAPES.items()})
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return []


def pointer(folder: Path, random: np.random.Generator) -> Updates:
    size = int(random.integers(10**6, 10**7))
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize {size}\n"
    (folder / FILE).write_text(text)
    configure(folder, **peft_config())
    return []


def torch_list(folder: Path, random: np.random.Generator) -> Updates:
    save_torch(folder / "adapter_model.bin", list(lora(random)[0].values()))
    configure(folder, **peft_config())
    return []


def bare_pickle(folder: Path, random: np.random.Generator) -> Updates:
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"a": random.integers(9)}, protocol=2))
    configure(folder, **peft_config())
    return []


def without_name(folder: Path, random: np.random.Generator) -> Updates:
    write(folder, FILE, lora(random, "first.weight")[0] | lora(random, "second.weight")[0])
    configure(folder, **peft_config())
    return []


def _kind(title: str, keys: str, make: Any, **more: Any) -> Kind:
    return Kind(title, keys, make, "What is refused", names=SHAPES, **more)


KINDS = (
    _kind("LoKr with a Tucker core", "`lokr_t2`", partial(tucker, form="lokr")),
    _kind("LoHa with a Tucker core", "`hada_t1`", partial(tucker, form="loha")),
    _kind(
        "VeRA without its projections",
        "`vera_lambda_b`",
        partial(of_peft, peft_type="VERA", parts={"vera_lambda_b": (16,), "vera_lambda_d": (RANK,)}),
    ),
    _kind("OFT", "`oft_r.weight`", partial(of_peft, peft_type="OFT", parts={"oft_R.weight": (4, 6)})),
    _kind("IA³", "`ia3_l`", partial(of_peft, peft_type="IA3", parts={"ia3_l": (HIDDEN, 1)})),
    _kind("A trained prompt", "`prompt_embeddings`", prompt),
    _kind("Merged q, k, v of an old PEFT", "`lora_B.weight` of (m, r, 1)", merged),
    _kind("Factors that are integers", "int8", integers),
    _kind("Several LoRA in one file, none named", "`lora_A.first.weight`", without_name),
    _kind("A whole model", "`model.safetensors`", model),
    _kind("A pointer of Git LFS", "133 bytes", pointer),
    _kind("A list of tensors", "`adapter_model.bin`", torch_list),
    _kind("A bare pickle", "`adapter_model.bin`", bare_pickle),
)
