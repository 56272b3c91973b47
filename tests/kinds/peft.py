"""What PEFT writes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests import forms
from tests.kinds.kind import (
    ALPHA,
    HIDDEN,
    INNER,
    PREFIX,
    RANK,
    SHAPES,
    VOCABULARY,
    Array,
    Kind,
    Stored,
    Updates,
    base_weights,
    configure,
    drawn,
    pair,
    peft_config,
    product,
    save_torch,
    write,
)

FILE = "adapter_model.safetensors"
SCALE = ALPHA / RANK


def lora(random: np.random.Generator, key: str = "weight", ranks: tuple[int, ...] = (RANK,)) -> tuple[Stored, Updates]:
    """Return tensors of PEFT for the modules of `SHAPES`, and s·B·A of each for alpha / r."""
    tensors, updates = {}, []
    for i, (path, (m, n)) in enumerate(SHAPES.items()):
        a, b = pair(random, m, n, ranks[i % len(ranks)])
        tensors[f"{PREFIX}{path}.lora_A.{key}"], tensors[f"{PREFIX}{path}.lora_B.{key}"] = a, b
        updates.append(product(a, b, ALPHA / len(a)))
    return tensors, updates


def plain(folder: Path, random: np.random.Generator, **fields: Any) -> Updates:
    tensors, updates = lora(random)
    write(folder, FILE, tensors, {"format": "pt"})
    configure(folder, **peft_config(**fields))
    return updates


def mixed(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = lora(random, ranks=(RANK, 2))
    write(folder, FILE, tensors)
    configure(folder, **peft_config(use_rslora=True, rank_pattern={"v_proj": 2}))
    return [update * math.sqrt(rank) for update, rank in zip(updates, (RANK, 2, RANK, 2), strict=True)]


def pickled(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = lora(random)
    save_torch(folder / "adapter_model.bin", tensors)
    configure(folder, **peft_config())
    return updates


def shards(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = lora(random)
    names = list(tensors)
    files = {f"adapter_model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, some in files.items():
        write(folder, file, {name: tensors[name] for name in some})
    where = {name: file for file, some in files.items() for name in some}
    (folder / f"{FILE}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    configure(folder, **peft_config())
    return updates


def wrapped(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = lora(random)
    write(folder, FILE, {f"_orig_mod.{name}": values for name, values in tensors.items()})
    configure(folder, **peft_config())
    return updates


def named(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = lora(random, "default.weight")
    write(folder, FILE, tensors)
    configure(folder, **peft_config())
    return updates


def several(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = lora(random, "first.weight")
    write(folder, FILE, tensors | lora(random, "second.weight")[0])
    configure(folder, **peft_config())
    return updates


def folders(folder: Path, random: np.random.Generator) -> Updates:
    (folder / "first").mkdir()
    (folder / "second").mkdir()
    plain(folder / "second", random)
    return plain(folder / "first", random)


def dora(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = lora(random)
    for path, (m, _) in SHAPES.items():
        tensors[f"{PREFIX}{path}.lora_magnitude_vector"] = np.abs(drawn(random, m)) + 1
    write(folder, FILE, tensors)
    configure(folder, **peft_config(use_dora=True))
    return updates


def dora_truth(stored: Stored, weights: Mapping[str, Array]) -> Updates:
    """Return m · (W + ΔV) / ‖W + ΔV‖ − W, row by row."""
    found = []
    for path in SHAPES:
        a, b = (stored[f"{PREFIX}{path}.lora_{half}.weight"] for half in "AB")
        weight = weights[f"{path}.weight"].astype(np.float64)
        moved = weight + product(a, b, SCALE)
        size = stored[f"{PREFIX}{path}.lora_magnitude_vector"].astype(np.float64)
        found.append((size / np.linalg.norm(moved, axis=1))[:, None] * moved - weight)
    return found


def principal(weight: Array) -> tuple[Array, Array]:
    """Return A and B of PiSSA at its start: s·B·A is the best approximation of the weight."""
    u, sizes, v = np.linalg.svd(weight.astype(np.float64), full_matrices=False)
    root = np.sqrt(sizes[:RANK] / SCALE)
    return (root[:, None] * v[:RANK]).astype(np.float32), (u[:, :RANK] * root).astype(np.float32)


def pissa(folder: Path, random: np.random.Generator) -> Updates:
    weights = base_weights(SHAPES)
    tensors, updates = {}, []
    for path, (m, n) in SHAPES.items():
        a, b = principal(weights[f"{path}.weight"])
        a, b = a + 0.1 * drawn(random, RANK, n), b + 0.1 * drawn(random, m, RANK)
        tensors[f"{PREFIX}{path}.lora_A.weight"], tensors[f"{PREFIX}{path}.lora_B.weight"] = a, b
        updates.append(product(a, b, SCALE))
    write(folder, FILE, tensors)
    configure(folder, **peft_config(init_lora_weights="pissa"))
    return updates


def pissa_truth(stored: Stored, weights: Mapping[str, Array]) -> Updates:
    found = []
    for path in SHAPES:
        a, b = (stored[f"{PREFIX}{path}.lora_{half}.weight"] for half in "AB")
        found.append(product(a, b, SCALE) - product(*principal(weights[f"{path}.weight"]), SCALE))
    return found


def beside(folder: Path, random: np.random.Generator, more: Mapping[str, tuple[int, ...]], **fields: Any) -> Updates:
    tensors, updates = lora(random)
    tensors.update({f"{PREFIX}{name}": drawn(random, *shape) for name, shape in more.items()})
    write(folder, FILE, tensors)
    configure(folder, **peft_config(**fields))
    return updates


EMBEDDINGS = {"model.embed_tokens": (VOCABULARY, HIDDEN), "lm_head": (VOCABULARY, HIDDEN)}


def embeddings(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = lora(random)
    a, b = pair(random, HIDDEN, VOCABULARY)
    tensors[f"{PREFIX}model.embed_tokens.lora_embedding_A"] = a
    tensors[f"{PREFIX}model.embed_tokens.lora_embedding_B"] = b
    head = pair(random, VOCABULARY, HIDDEN)
    tensors[f"{PREFIX}lm_head.lora_A.weight"], tensors[f"{PREFIX}lm_head.lora_B.weight"] = head
    write(folder, FILE, tensors)
    configure(folder, **peft_config(target_modules=["q_proj", "v_proj", "embed_tokens", "lm_head"]))
    return [*updates, product(a, b, SCALE), product(*head, SCALE)]


EXPERTS = 2
CONTAINER = "model.layers.0.mlp.experts"
OF_EXPERTS = {
    f"{CONTAINER}.{e}.{name}_proj": shape
    for e in range(EXPERTS)
    for name, shape in (("gate", (INNER, HIDDEN)), ("up", (INNER, HIDDEN)), ("down", (HIDDEN, INNER)))
}
FUSED = {
    f"{CONTAINER}.{e}.{name}_proj": shape
    for e in range(EXPERTS)
    for name, shape in (("gate_up", (2 * INNER, HIDDEN)), ("down", (HIDDEN, INNER)))
}


def fused(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = {}, []
    for key, m, n in ((f"{CONTAINER}.base_layer", 2 * INNER, HIDDEN), (CONTAINER, HIDDEN, INNER)):
        a, b = drawn(random, RANK * EXPERTS, n), drawn(random, m, RANK * EXPERTS)
        tensors[f"{PREFIX}{key}.lora_A.weight"], tensors[f"{PREFIX}{key}.lora_B.weight"] = a, b
        updates += [product(a[e * RANK :][:RANK], b[:, e::EXPERTS], SCALE) for e in range(EXPERTS)]
    write(folder, FILE, tensors)
    targets = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    configure(folder, **peft_config(target_modules=[], target_parameters=targets))
    return updates


def experts(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = {}, []
    for path, (m, n) in OF_EXPERTS.items():
        a, b = pair(random, m, n)
        tensors[f"{PREFIX}{path}.lora_A.weight"], tensors[f"{PREFIX}{path}.lora_B.weight"] = a, b
        updates.append(product(a, b, SCALE))
    write(folder, FILE, tensors)
    configure(folder, **peft_config(target_modules=["gate_proj", "up_proj", "down_proj"]))
    return updates


def other_form(folder: Path, random: np.random.Generator, form: str) -> Updates:
    tensors, updates = {}, []
    parts: Stored
    for path, (m, n) in SHAPES.items():
        if form == "loha":
            parts = forms.loha(random, m, n)
            left = parts["hada_w1_a"] @ parts["hada_w1_b"]
            updates.append(SCALE * left * (parts["hada_w2_a"] @ parts["hada_w2_b"]))
        elif form == "lokr":
            first, second = random.normal(size=(4, 4)), random.normal(size=(m // 4, 2))
            third = random.normal(size=(2, n // 4))
            parts = {"lokr_w1": first, "lokr_w2_a": second, "lokr_w2_b": third}
            updates.append(ALPHA / 2 * np.kron(first, second @ third))
        elif form == "adalora":
            a, b, e = random.normal(size=(RANK, n)), random.normal(size=(m, RANK)), np.array([[2.0], [0.0], [0.5]])
            parts = {"lora_A": a, "lora_B": b, "lora_E": e}
            updates.append(ALPHA / (RANK + 1e-5) * b @ (e * a))
        elif form == "vera":
            parts = {"vera_lambda_b": random.normal(size=m), "vera_lambda_d": random.normal(size=RANK)}
        else:
            parts = {
                "lora_A.weight": random.normal(size=(RANK, n // 4)),
                "lora_B.weight": random.normal(size=(m, RANK)),
            }
            # Each number of A stands for the mean of 4 inputs, times how many means there are.
            updates.append(SCALE * n / 16 * parts["lora_B.weight"] @ np.repeat(parts["lora_A.weight"], 4, axis=1))
        tensors.update({f"{PREFIX}{path}.{name}": values for name, values in parts.items()})
    config = peft_config(peft_type=form.upper())
    if form == "vera":
        a, b = random.normal(size=(RANK, HIDDEN)), random.normal(size=(HIDDEN, RANK))
        tensors |= {"base_model.vera_A": a, "base_model.vera_B": b}
        config |= {"save_projection": True}
        for path, (m, n) in SHAPES.items():
            rows, middle = (tensors[f"{PREFIX}{path}.vera_lambda_{part}"] for part in "bd")
            updates.append(rows[:, None] * b[:m] @ (middle[:, None] * a[:, :n]))
    elif form == "adalora":
        config |= {"init_r": RANK, "target_r": 2, "total_step": 10}
    elif form == "qalora":
        config |= {"peft_type": "LORA", "use_qalora": True, "qalora_group_size": 4}
    else:
        config |= {"alpha": ALPHA, "r": 2 if form == "lokr" else RANK}
    write(folder, FILE, {name: values.astype(np.float32) for name, values in tensors.items()})
    configure(folder, **config)
    return updates


def untrained(folder: Path, random: np.random.Generator) -> Updates:
    tensors, updates = lora(random)
    write(folder, FILE, {name: values * ("lora_A" in name) for name, values in tensors.items()})
    configure(folder, **peft_config())
    return [update * 0 for update in updates]


def _kind(title: str, keys: str, make: Any, names: Mapping[str, tuple[int, ...]] = SHAPES, **more: Any) -> Kind:
    return Kind(title, keys, make, "PEFT", names=names, **more)


_A = "`lora_A.weight`"
KINDS = (
    _kind("LoRA", _A, plain),
    _kind("LoRA with rsLoRA and two ranks", "`use_rslora`, `rank_pattern`", mixed),
    _kind("LoRA in a torch file", "`adapter_model.bin`", pickled),
    _kind("LoRA in shards", "`adapter_model.safetensors.index.json`", shards),
    _kind("LoRA saved under a wrapper", "`_orig_mod.base_model.model.`", wrapped),
    _kind("LoRA with the adapter's name in its keys", "`lora_A.default.weight`", named),
    _kind("Several LoRA in one file", "`--adapter first`", several, options=("--adapter", "first")),
    _kind("Several LoRA in folders", "`--adapter first`", folders, options=("--adapter", "first")),
    _kind("LoRA that was never trained", "B = 0", untrained),
    _kind("LoRA on embeddings", "`lora_embedding_A`", embeddings, {**SHAPES, **EMBEDDINGS}),
    _kind(
        "LoRA with trained biases",
        "`lora_B.bias`",
        partial(beside, more={f"{path}.lora_B.bias": (m,) for path, (m, _) in SHAPES.items()}, lora_bias=True),
    ),
    _kind(
        "LoRA with a trained head",
        "`modules_to_save`",
        partial(beside, more={"score.weight": (2, HIDDEN)}, modules_to_save=["score"], task_type="SEQ_CLS"),
        {**SHAPES, "score": (2, HIDDEN)},
    ),
    _kind(
        "LoRA with whole weights beside it",
        "`mlp.down_proj.weight`",
        partial(beside, more={"model.layers.0.mlp.down_proj.weight": (HIDDEN, INNER)}),
        {**SHAPES, "model.layers.0.mlp.down_proj": (HIDDEN, INNER)},
    ),
    _kind("DoRA", "`lora_magnitude_vector`", dora, truth=dora_truth),
    _kind("PiSSA, OLoRA", '`init_lora_weights: "pissa"`', pissa, truth=pissa_truth),
    _kind("CorDA, LoRA-GA, LoftQ", '`init_lora_weights: "corda"`', partial(plain, init_lora_weights="corda")),
    _kind("EVA", '`init_lora_weights: "eva"`', partial(plain, init_lora_weights="eva")),
    _kind("aLoRA", "`alora_invocation_tokens`", partial(plain, alora_invocation_tokens=[5, 6])),
    _kind("AdaLoRA", "`lora_E`", partial(other_form, form="adalora")),
    _kind("LoHa", "`hada_w1_a`", partial(other_form, form="loha")),
    _kind("LoKr", "`lokr_w1`", partial(other_form, form="lokr")),
    _kind("VeRA with its projections", "`vera_lambda_b`, `vera_A`", partial(other_form, form="vera")),
    _kind("QALoRA", "`use_qalora`", partial(other_form, form="qalora")),
    _kind("Experts, one each", "`experts.0.up_proj.lora_A`", experts, OF_EXPERTS, llama=False),
    _kind("Fused experts", "`target_parameters`", fused, FUSED, llama=False),
)
