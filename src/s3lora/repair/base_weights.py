"""Weights of a base model, read matrix by matrix from its safetensors files: no model is built, and no torch needed."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from s3lora.adapter.hub import hub_name
from s3lora.adapter.model import LoraModule
from s3lora.adapter.tensors import StoredTensor
from s3lora.adapter.weights import open_weights, parsed_config, raw_config
from s3lora.errors import UnsupportedAdapterError, UsageError, printable
from s3lora.evaluate.loading import ModelError
from s3lora.needs import need

#: What the folder of a model may hold, the first that is there.
MODEL_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
#: Kinds of models whose linear layers store their weight as (n, m), for they multiply from the other side (Conv1D).
TRANSPOSED = frozenset(("gpt2", "openai-gpt", "imagegpt", "decision_transformer"))
#: Other dtypes stand for nothing without scales that lie beside them.
READABLE = frozenset(("float64", "float32", "float16", "bfloat16"))


class BaseWeights:
    """The weight matrices of one base model.

    The files are open until `close`. Their headers are checked in full; a matrix is read when it is asked for.
    """

    def __init__(self, base: str) -> None:
        """Open a model folder, or the one that the cache of the Hugging Face Hub has for a name.

        Raises ModelError where there is none or its weights are no safetensors files, UsageError for an empty name,
        AdapterFileError for a file that is damaged.
        """
        self.name = base
        folder = _folder(base)
        config = folder / "config.json"
        kind = parsed_config(raw_config(config), config.name).get("model_type")
        self._turned = isinstance(kind, str) and kind in TRANSPOSED
        with ExitStack() as opened:
            self._tensors: dict[str, StoredTensor] = {}
            for file in open_weights(_weights(folder, base)):
                opened.enter_context(closing(file))
                self._tensors |= file.tensors
            self._opened = opened.pop_all()
        # By their name without its first part: some files call `model.layers…` what others call `layers…`.
        self._inner: dict[str, list[str]] = {}
        for name in self._tensors:
            self._inner.setdefault(name.partition(".")[2], []).append(name)

    def matrix(self, module: LoraModule) -> Any:
        """Return the weight (m, n) that a module changes, in its stored dtype; of a long one, rows are read when asked.

        Raises UnsupportedAdapterError where the model has no such weight, or one of another shape or dtype.
        """
        tensor = self._tensors[self._stored_name(module.path)]
        where: dict[str, Any] = {"file": self.name, "module": module.path, "shape": tensor.shape}
        if tensor.dtype not in READABLE:
            fix = "give the model in bfloat16, float16 or float32"
            raise UnsupportedAdapterError(f"its weight is stored as {tensor.dtype}", **where, fix=fix)
        wanted = (module.m, module.n)
        if tensor.shape == wanted and not (self._turned and module.m == module.n):
            return tensor.matrix()
        if tensor.shape == wanted[::-1]:
            return tensor.matrix(lambda stored: stored.T)
        problem = f"the weight does not fit the adapter, which changes one of {module.m} × {module.n}"
        raise UnsupportedAdapterError(problem, **where, fix="give the model that the adapter was trained on")

    def _stored_name(self, path: str) -> str:
        """Return the name of a module's weight; with or without a part before it, such as `model.`."""
        name = f"{path}.weight"
        if name in self._tensors:
            return name
        inner = name.partition(".")[2]
        found = [*([inner] if inner in self._tensors else []), *self._inner.get(name, [])]
        if len(found) == 1:
            return found[0]
        problem = "has no weight of this name" if not found else f"has {len(found)} weights that may be meant"
        fix = "parts of a fused weight, as of qkv_proj, are not read"
        raise UnsupportedAdapterError(problem, file=self.name, module=path, fix=fix)

    def close(self) -> None:
        """Close the files."""
        self._opened.close()

    def __enter__(self) -> BaseWeights:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self.close()


def _folder(base: str) -> Path:
    if not base:
        raise UsageError("the model to compare with has an empty name", fix="an unset variable in a shell gives one")
    path = Path(base)
    if os.path.isdir(path):
        if not (path / "config.json").is_file():
            raise ModelError("the folder has no config.json, so it is no model", file=base)
        return path
    if base == "demo" or path.suffix == ".gguf":
        raise ModelError(
            "weights in a GGUF file are rounded and cannot be compared",
            file=base,
            fix="give a folder with config.json and safetensors files",
        )
    if hub_name(base) is None or os.path.exists(path):
        raise ModelError("no model folder is there", file=base)
    # The cache only: nobody waits for gigabytes unasked.
    config = need("huggingface_hub").try_to_load_from_cache(base, "config.json")
    if not isinstance(config, str):
        raise ModelError(
            "is no folder here, and not in the cache of the Hugging Face Hub",
            file=base,
            fix=f"fetch it first: hf download {printable(base)}",
        )
    return Path(config).parent


def _weights(folder: Path, base: str) -> Path:
    found = next((folder / name for name in MODEL_WEIGHTS if (folder / name).exists()), None)
    if found is None:
        looked = " or ".join(MODEL_WEIGHTS)
        fix = "save the model again by save_pretrained, which writes them"
        raise ModelError(f"the folder has no weights as safetensors ({looked})", file=base, fix=fix)
    return found


__all__ = ["MODEL_WEIGHTS", "READABLE", "TRANSPOSED", "BaseWeights"]
