"""Inside an environment with mlx-lm: load a base and an adapter, and give the logits of some tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model
from worker import serve


def job(given: Any, one: Any) -> tuple[Any, Any]:
    model = load_model(Path(given["base"]))[0]
    model = load_adapters(model, one["adapter"])
    model.eval()
    logits = model(mx.array([given["tokens"]]))[0].astype(mx.float32)
    layers = sum(hasattr(module, "lora_a") for _, module in model.named_modules())
    return {"logits": np.array(logits)}, {"layers": layers}


serve(job)
