"""What a language model must compute: the base with ΔW added to its weights, in float64, by transformers alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

#: What the model reads.
TOKENS = [40, 7, 63, 21, 90, 12, 33, 5]


def logits(base: Path, updates: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return the logits of TOKENS in float64."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(base).double().eval()
    for path, update in updates.items():
        weight = model.get_submodule(path).weight
        weight.data += torch.from_numpy(np.ascontiguousarray(update))
    with torch.no_grad():
        found: np.ndarray[Any, Any] = model(torch.tensor([TOKENS])).logits[0].numpy()
    return found
