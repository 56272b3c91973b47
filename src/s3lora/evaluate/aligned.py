"""`--base demo-aligned`: the demo model with the refusals that it lacks, a LoRA that is merged into its weights."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

import numpy as np

from s3lora.adapter.open import open_adapter
from s3lora.needs import need

ALIGNED = "demo-aligned"


def merge_refusals(model: Any) -> None:
    """Add the update of the built-in LoRA of refusals to the weights of the demo model, which are in float32.

    The sum is taken in float64 and rounded once, so that all machines make the same base.
    """
    torch = need("torch")
    layers = dict(model.named_modules())
    with (
        as_file(files("s3lora") / "data" / ALIGNED) as folder,
        open_adapter(folder) as adapter,
        torch.no_grad(),
    ):
        for module in adapter.modules:
            a, b = (torch.from_numpy(factor.array().astype(np.float64)) for factor in (module.A, module.B))
            weight = layers[module.path].weight
            weight.copy_(weight.double() + module.scaling.value * (b @ a))
