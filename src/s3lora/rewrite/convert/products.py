"""LoHa and LoKr between PEFT and LyCORIS: the same tensors, part by part, under other names.

Both store the same parts and divide alpha by the same rank: PEFT's configuration tells it for all modules, `.alpha` of
LyCORIS for each. What the sizes of a LoKr were made by, PEFT must be told and no file says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from s3lora.adapter.formats.lycoris import KEY
from s3lora.adapter.formats.wrappers import PREFIX
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.new_tensors import NewTensor
from s3lora.rewrite.convert.target import ConvertWish, NewUpdate, refuse
from s3lora.wording import worded

#: Forms that LyCORIS and PEFT both have.
PRODUCT_FORMS = ("LoHa", "LoKr")
_INNER = ("hada_w1_b", "lokr_w1_b", "lokr_w2_b")


def refuse_products(adapter: Adapter, wish: ConvertWish, to: str) -> None:
    """Raise UnsupportedAdapterError where LoHa or LoKr would have to change: only their names can."""
    made = [module for module in adapter.modules if module.form in PRODUCT_FORMS]
    if wish.bake or wish.pad is not None or wish.dtype is not None:
        fix = worded("leave {bake}, {pad} and {dtype} out")
        refuse(f"{to} with another rank, scaling or type", {m.path: f"is {m.form}" for m in made}, fix)
    reasons = {m.path: f"is {m.form} with a DoRA magnitude" for m in made if m.dora}
    if to == "PEFT":
        reasons.update((m.path, "is LoKr, whose sizes PEFT makes by a factor that the file does not say")
                       for m in made if m.form == "LoKr")  # fmt: skip
    else:
        reasons.update((m.path, f"is LoKr of whole matrices, which LyCORIS scales by 1 and not by {m.scaling.value:g}")
                       for m in made if _rank(m) is None and m.scaling.value != 1)  # fmt: skip
    refuse(to, reasons)


def parts_of_product(update: NewUpdate, prefix: str = "") -> list[NewTensor]:
    """Return the parts of one module under its new path."""
    return [
        NewTensor(f"{prefix}{update.path}.{name}", part.tensor.dtype, part.tensor.shape, part.tensor.array)
        for name, part in _parts(update.module)
    ]


def alpha_of_product(update: NewUpdate) -> NewTensor:
    """Return the `.alpha` of LyCORIS, which it divides by the rank, or ignores where there is none."""
    alpha = np.array(update.scaling * (_rank(update.module) or 1))
    return NewTensor(f"{update.path}.alpha", "float32", (), alpha.copy)


def loha_config(updates: Sequence[NewUpdate], base: str | None) -> dict[str, Any]:
    """Return the configuration of PEFT's LoHa: rank and alpha of most modules, and patterns for the others."""
    ranks = {update.path: _rank(update.module) or 1 for update in updates}
    alphas = {update.path: update.scaling * ranks[update.path] for update in updates}
    most_r, most_alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return {
        "alpha": most_alpha,
        "alpha_pattern": {path: alpha for path, alpha in alphas.items() if alpha != most_alpha},
        "base_model_name_or_path": base,
        "inference_mode": True,
        "init_weights": True,
        "modules_to_save": None,
        "peft_type": "LOHA",
        "r": most_r,
        "rank_pattern": {path: rank for path, rank in ranks.items() if rank != most_r},
        "target_modules": sorted(ranks),
        "task_type": None,
    }


def loha_tensors(updates: Sequence[NewUpdate]) -> list[NewTensor]:
    """Return the tensors of PEFT's LoHa."""
    return [tensor for update in updates for tensor in parts_of_product(update, PREFIX)]


def _parts(module: LoraModule) -> list[tuple[str, Any]]:
    """Return the stored factors with the names that both tools have for them, such as `hada_w1_a`."""
    found = []
    for part in module.parts:
        match = KEY.match(part.tensor.name)
        assert match is not None
        found.append((match["part"], part))
    return found


def _rank(module: LoraModule) -> int | None:
    """Return r, which alpha is divided by; None of a LoKr of two whole matrices."""
    inner = {name: part.tensor.shape[0] for name, part in _parts(module)}
    return next((inner[name] for name in reversed(_INNER) if name in inner), None)


__all__ = ["PRODUCT_FORMS", "alpha_of_product", "loha_config", "loha_tensors", "parts_of_product", "refuse_products"]
