"""What a language model must compute: the base with ΔW added to its weights, in float64, by transformers alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

#: What the model reads.
TOKENS = [40, 7, 63, 21, 90, 12, 33, 5]
Arrays = Mapping[str, np.ndarray[Any, Any]]


def logits(
    base: Path, updates: Arrays, weights: Arrays | None = None, since: int = 0, layers: Sequence[int] = ()
) -> np.ndarray[Any, Any]:
    """Return the logits of TOKENS in float64.

    `updates` are added to the weights of modules, from the token `since` on; `weights` replace parameters, or become a
    bias where there is none. With `layers`, the model is put together of these layers of its own first.
    """
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(base).double().eval()
    if layers:
        model.model.layers = torch.nn.ModuleList(copy.deepcopy(model.model.layers[i]) for i in layers)
        model.config.num_hidden_layers = len(layers)
    for path, value in (weights or {}).items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, torch.nn.Parameter(torch.tensor(value).double()))
    for path, update in updates.items():
        module, added = model.get_submodule(path), torch.tensor(update)
        if not since:
            module.weight.data += added
            continue

        def act(module: Any, given: Any, made: Any, added: Any = added) -> Any:
            late = (torch.arange(made.shape[1]) >= since)[None, :, None]
            return made + late * (given[0] @ added.T)

        module.register_forward_hook(act)
    with torch.no_grad():
        found: np.ndarray[Any, Any] = model(torch.tensor([TOKENS]), use_cache=False).logits[0].numpy()
    return found
