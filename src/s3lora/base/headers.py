"""The names of a model's weights and their shapes, from the headers of its files; no values are read."""

from __future__ import annotations

import math
import os
from contextlib import closing
from pathlib import Path

from s3lora.adapter.model import EMBEDDINGS, natural_key
from s3lora.adapter.tensors import FLOATING, StoredTensor
from s3lora.adapter.weights import INDEX, open_weights, weight_map
from s3lora.base.model import BaseModule

#: What the folder of a model may hold, the first that is there.
MODEL_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
#: Kinds of models whose linear layers store their weight as (n, m), for they multiply from the other side (Conv1D).
TURNED = frozenset(("gpt2", "openai-gpt", "imagegpt", "decision_transformer"))
#: Ends of names of weights that are packed: their shapes are not those of the layer.
_PACKED = (".qweight", ".weight_packed")


def stored_modules(weights: Path, architecture: str | None) -> dict[str, BaseModule]:
    """Return the modules whose weights lie in a file or in the shards of an index, by path, in order.

    Of an index whose shards are not there, the names alone are known. Raises AdapterFileError for a damaged file.
    """
    made = []
    table = weight_map(weights) if weights.name.endswith(INDEX) else {}
    shards = [weights.parent / name for name in sorted(set(table.values()))] or [weights]
    if table and not all(os.path.exists(shard) for shard in shards):
        made = [module for name in table if (module := _module(name, None, architecture)) is not None]
    else:
        for file in (one for shard in shards for one in open_weights(shard)):
            with closing(file):
                made += [one for name, tensor in file.tensors.items()
                         if (one := _module(name, tensor, architecture)) is not None]  # fmt: skip
    return {module.path: module for module in sorted(made, key=lambda module: natural_key(module.path))}


def _module(name: str, tensor: StoredTensor | None, architecture: str | None) -> BaseModule | None:
    """Return the module that a tensor is the weight of, None where it is another part of one."""
    for end in _PACKED:
        if name.endswith(end):
            return BaseModule(name.removesuffix(end), None)
    shape = None if tensor is None else tensor.shape
    if shape is not None and len(shape) == 3 and ".experts." in name and not name.endswith("bias"):
        return BaseModule(name.removesuffix(".weight"), (shape[1], shape[2]), "parameter", shape[0])
    path = name.removesuffix(".weight")
    if path == name or (shape is not None and len(shape) < 2):
        return None
    embedding = path.rpartition(".")[2] in EMBEDDINGS
    known: tuple[int, int] | None = None
    if tensor is not None and shape is not None and len(shape) == 4 and tensor.dtype in FLOATING:
        known = (shape[0], math.prod(shape[1:]))  # a convolution, as LoRA flattens it
    elif tensor is not None and shape is not None and len(shape) == 2 and tensor.dtype in FLOATING:
        known = (shape[1], shape[0]) if architecture in TURNED and not embedding and path != "lm_head" else shape
    return BaseModule(path, known, "embedding" if embedding else "linear")
