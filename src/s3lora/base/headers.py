"""The names of a model's weights and their shapes, from the headers of its files; no values are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from s3lora.adapter.model import natural_key
from s3lora.adapter.tensors import FLOATING, StoredTensor
from s3lora.adapter.weights import INDEX, open_weights, parsed_config, raw_config
from s3lora.base.model import BaseModule
from s3lora.errors import AdapterFileError, printable

#: What the folder of a model may hold, the first that is there.
MODEL_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
#: Kinds of models whose linear layers store their weight as (n, m), for they multiply from the other side (Conv1D).
TURNED = frozenset(("gpt2", "openai-gpt", "imagegpt", "decision_transformer"))
#: Ends of names of weights that are packed: their shapes are not those of the layer.
_PACKED = (".qweight", ".weight_packed")
#: Names of tables of embeddings.
_EMBEDDINGS = ("embed_tokens", "wte", "wpe", "embed_in", "word_embeddings", "embed_positions", "position_embeddings")
MAX_NAMES = 2_000_000


def stored_modules(weights: Path, architecture: str | None) -> dict[str, BaseModule]:
    """Return the modules whose weights lie in a file or in the shards of an index, by path, in order.

    Of an index whose shards are not there, the names alone are known. Raises AdapterFileError for a damaged file.
    """
    if weights.name.endswith(INDEX) and not _has_shards(weights):
        names: Mapping[str, StoredTensor | None] = dict.fromkeys(_listed(weights))
        made = [module for name in names if (module := _module(name, None, architecture)) is not None]
    else:
        made = []
        for file in open_weights(weights):
            with closing(file):
                made += [one for name, tensor in file.tensors.items()
                         if (one := _module(name, tensor, architecture)) is not None]  # fmt: skip
    return {module.path: module for module in sorted(made, key=lambda module: natural_key(module.path))}


def _has_shards(index: Path) -> bool:
    return all((index.parent / name).exists() for name in set(_weight_map(index).values()))


def _weight_map(index: Path) -> dict[str, str]:
    table = parsed_config(raw_config(index), index.name).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise AdapterFileError("has no `weight_map` from tensors to files", file=index.name)
    if any(Path(name).name != name for name in set(table.values())):
        raise AdapterFileError("names a shard outside the folder", file=index.name)
    return table


def _listed(index: Path) -> Iterator[str]:
    yield from (printable(name, 512) for name in _weight_map(index))


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
    embedding = path.rpartition(".")[2] in _EMBEDDINGS
    known: tuple[int, int] | None = None
    if tensor is not None and shape is not None and len(shape) == 2 and tensor.dtype in FLOATING:
        known = (shape[1], shape[0]) if architecture in TURNED and not embedding and path != "lm_head" else shape
    return BaseModule(path, known, "embedding" if embedding else "linear")
