"""Weights of a base model, read matrix by matrix from its safetensors files: no model is built, and no torch needed."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from s3lora.adapter.hub import hub_name
from s3lora.adapter.model import LoraModule
from s3lora.adapter.tensor import Array, Layout, as_stored
from s3lora.adapter.tensors import StoredTensor
from s3lora.adapter.weights import open_weights, parsed_config, raw_config
from s3lora.base.fused import are_upright, fused_parts, gate_up_rows, other_names, qkv_rows
from s3lora.base.headers import MODEL_WEIGHTS as LANGUAGE_WEIGHTS
from s3lora.base.headers import TURNED
from s3lora.errors import ModelError, UnsupportedAdapterError, UsageError, printable
from s3lora.needs import need

#: What the folder of a model may hold, the first that is there.
MODEL_WEIGHTS = (
    *LANGUAGE_WEIGHTS,
    *("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
)
#: Other dtypes stand for nothing without scales that lie beside them.
READABLE = frozenset(("float64", "float32", "float16", "bfloat16"))
#: What kohya's keys have in front of the path, whose dots are underscores.
_FLATTENED = re.compile(r"^(?:lora|lycoris)_(?:unet|te\d?|transformer|prior_te|prior_unet)_")
#: Paths of experts that lie in one weight, with the number before or after their kind.
_EXPERT = re.compile(
    r"(?P<container>.*\bexperts)\.(?:(?P<first>\d{1,6})\.(?P<kind>\w+)|(?P<other>\w+)\.(?P<last>\d{1,6}))$"
)
#: The projections that are one in a fused weight of experts.
_GATE_UP, _HALVES = "gate_up_proj", ("gate_proj", "up_proj")
#: A part of paths that transformers has put in and left out.
_LANGUAGE = "language_model."
#: The output layer, and where the weight of one that is tied to the embeddings lies.
_OUTPUT, _EMBEDDINGS = ("lm_head.weight",), ("embed_tokens.weight", "wte.weight", "embed_in.weight")
#: What to do about weights that are no plain numbers.
_PLAIN = "give the model in bfloat16, float16 or float32"


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
        self.config: Mapping[str, Any] = parsed_config(raw_config(config), config.name)
        kind = self.config.get("model_type")
        self._turned = isinstance(kind, str) and kind in TURNED
        inner = self.config.get("text_config")
        self._model = {**self.config, **inner} if isinstance(inner, Mapping) else self.config
        with ExitStack() as opened:
            self.tensors: dict[str, StoredTensor] = {}
            self.files = open_weights(_weights(folder, base))
            for file in self.files:
                opened.enter_context(closing(file))
                self.tensors |= file.tensors
            self._opened = opened.pop_all()
        # By their name without its first part: some files call `model.layers…` what others call `layers…`.
        self._inner = _by(self.tensors, lambda name: name.partition(".")[2])
        self._plain = _by(self.tensors, lambda name: name.replace(_LANGUAGE, ""))
        self._flat = _by(self.tensors, lambda name: name.replace(".", "_"))

    @property
    def label(self) -> str:
        """Return what the model is called, without the folders above it."""
        return printable(Path(self.name).name or self.name, 255)

    def matrix(self, module: LoraModule) -> Any:
        """Return the weight (m, n) that a module changes, in its stored dtype; of a long one, rows are read when asked.

        Raises UnsupportedAdapterError where the model has no such weight, or one of another shape or dtype.
        """
        tensor, view = self.located(module)
        return tensor.matrix(view)

    def located(self, module: LoraModule) -> tuple[StoredTensor, Layout]:
        """Return the stored weight that a module changes, and what makes the matrix (m, n) of it; nothing is read.

        Raises what `matrix` does.
        """
        names = (module.path, *other_names(module.path))
        for path in names:
            if self._found(f"{path}.weight"):
                return self._alone(module, path)
            found = self._expert(module, path) or self._part(module, path)
            if found is not None:
                return found
        raise self._not_there(module.path)

    def _alone(self, module: LoraModule, path: str) -> tuple[StoredTensor, Layout]:
        """Return a weight that is stored by itself."""
        wanted = (module.m, module.n)
        tensor = self.tensors[self._stored_name(path)]
        self.refuse_unreadable(tensor, module.path)
        turned = self._turned if module.kind == "linear" else module.kind == "embedding"
        if tensor.shape == wanted and not (turned and module.m == module.n):
            return tensor, as_stored
        if tensor.shape == wanted[::-1]:
            return tensor, transposed
        if len(tensor.shape) > 2 and (tensor.shape[0], math.prod(tensor.shape[1:])) == wanted:  # a convolution
            return tensor, lambda stored: stored.reshape(wanted)
        raise self._unfit(module, tensor)

    def _expert(self, module: LoraModule, path: str) -> tuple[StoredTensor, Layout] | None:
        """Return the weight that holds all experts of a kind, and what makes that of one; None where none does."""
        match = _EXPERT.match(path)
        if match is None:
            return None
        expert, kind = int(match["first"] or match["last"]), match["kind"] or match["other"]
        for name, part in ((kind, None), *(((_GATE_UP, kind.removesuffix("_proj")),) if kind in _HALVES else ())):
            tensor = self._stacked(f"{match['container']}.{name}")
            if tensor is None or expert >= tensor.shape[0]:
                continue
            self.refuse_unreadable(tensor, module.path)
            size = (module.m if part is None else 2 * module.m, module.n)
            shapes = (size, size[::-1])
            if tensor.shape[1:] not in shapes:
                raise self._unfit(module, tensor)
            upright = tensor.shape[1:] == size if size[0] != size[1] else are_upright(self._model)
            if upright is None:
                kind = self._model.get("model_type")
                why = f"is one of square experts, and which way they lie is not known of {kind}"
                raise UnsupportedAdapterError(why, file=self.name, module=module.path, shape=tensor.shape)
            rows = None if part is None else gate_up_rows(self._model, part, module.m, experts=True)
            if isinstance(rows, str):
                raise UnsupportedAdapterError(rows, file=self.name, module=module.path, shape=tensor.shape)
            return tensor, partial(_of_expert, expert=expert, turned=not upright, rows=rows)
        return None

    def _stacked(self, name: str) -> StoredTensor | None:
        for one in (name, f"{name}.weight"):
            found = self._found(one)
            if len(found) == 1 and len(self.tensors[found[0]].shape) == 3:
                return self.tensors[found[0]]
        return None

    def _part(self, module: LoraModule, path: str) -> tuple[StoredTensor, Layout] | None:
        """Return the fused weight that a module is a part of, and what makes its rows; None where none is."""
        for name, part in fused_parts(path):
            found = self._found(f"{name}.weight")
            if len(found) != 1 or len(self.tensors[found[0]].shape) != 2:
                continue
            tensor = self.tensors[found[0]]
            self.refuse_unreadable(tensor, module.path)
            total, inputs = tensor.shape[::-1] if self._turned else tensor.shape
            whole = part in ("gate", "up")
            rows = (
                gate_up_rows(self._model, part, total // 2, experts=False) if whole
                else qkv_rows(self._model, part, total)
            )  # fmt: skip
            if isinstance(rows, str):
                raise UnsupportedAdapterError(rows, file=self.name, module=module.path, shape=tensor.shape)
            if (len(rows), inputs) != (module.m, module.n):
                raise self._unfit(module, tensor)
            return tensor, partial(_some_rows, rows=rows, turned=self._turned)
        return None

    def _unfit(self, module: LoraModule, tensor: StoredTensor) -> UnsupportedAdapterError:
        return UnsupportedAdapterError(
            f"the weight does not fit the adapter, which changes one of {module.m} × {module.n}",
            file=self.name,
            module=module.path,
            shape=tensor.shape,
            fix="give the model that the adapter was trained on",
        )

    def whole(self, name: str) -> StoredTensor | None:
        """Return the weight that a full weight of this name takes the place of; None where there is none.

        Raises UnsupportedAdapterError where its dtype stands for nothing without scales.
        """
        for one in (name, *(_EMBEDDINGS if name.endswith(_OUTPUT) else ())):
            found = self._found(one)
            if one in _EMBEDDINGS:
                found = [stored for stored in self.tensors if stored.endswith(f".{one}") or stored == one]
            if len(found) == 1:
                self.refuse_unreadable(self.tensors[found[0]], name.removesuffix(".weight"))
                return self.tensors[found[0]]
        return None

    def _stored_name(self, path: str) -> str:
        """Return the name of a module's weight; with or without a part before it, such as `model.`.

        Raises UnsupportedAdapterError where several may be meant.
        """
        found = self._found(f"{path}.weight")
        if len(found) == 1:
            return found[0]
        problem = f"has {len(found)} weights that may be meant"
        raise UnsupportedAdapterError(problem, file=self.name, module=path, fix="give the model as it was published")

    def _not_there(self, path: str) -> UnsupportedAdapterError:
        problem, fix = "has no weight of this name", "give the model that the adapter was trained on"
        if self._quantised:
            problem, fix = f"{problem}, and is quantised ({self._quantised})", _PLAIN
        return UnsupportedAdapterError(problem, file=self.name, module=path, fix=fix)

    def _found(self, name: str) -> list[str]:
        """Return the names of the weights that may be meant by one."""
        if name in self.tensors:
            return [name]
        if _FLATTENED.match(name):
            return self._flat.get(_FLATTENED.sub("", name).replace(".", "_"), [])
        inner = name.partition(".")[2]
        found = [*([inner] if inner in self.tensors else []), *self._inner.get(name, [])]
        return found or self._plain.get(name.replace(_LANGUAGE, ""), [])

    @property
    def _quantised(self) -> str:
        """Return how the configuration says that the weights are quantised, empty where it does not."""
        told = self.config.get("quantization_config")
        if not isinstance(told, Mapping):
            return ""
        bits = next((f"{told[key]} bit" for key in ("bits", "w_bit") if isinstance(told.get(key), int)), "")
        bits = bits or next((f"{key[8]} bit" for key in ("load_in_4bit", "load_in_8bit") if told.get(key) is True), "")
        return ", ".join(filter(None, (printable(told.get("quant_method") or "", 40), bits))) or "in a way of its own"

    def refuse_unreadable(self, tensor: StoredTensor, path: str) -> None:
        """Raise UnsupportedAdapterError for a weight whose dtype stands for nothing without scales."""
        if tensor.dtype in READABLE:
            return
        problem = f"its weight is stored as {tensor.dtype}"
        if self._quantised:
            problem += f", quantised ({self._quantised})"
        raise UnsupportedAdapterError(problem, file=self.name, module=path, shape=tensor.shape, fix=_PLAIN)

    def close(self) -> None:
        """Close the files."""
        self._opened.close()

    def __enter__(self) -> BaseWeights:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self.close()


def transposed(stored: Array) -> Array:
    """Return the matrix (m, n) of a weight that is stored as (n, m), as those of Conv1D and of embeddings are."""
    return stored.T


def _of_expert(stored: Array, *, expert: int, turned: bool, rows: Array | None) -> Array:
    one: Array = stored[expert]  # (E, m, n) -> (m, n)
    one = one.T if turned else one
    return one if rows is None else one[rows]


def _some_rows(stored: Array, *, rows: Array, turned: bool) -> Array:
    whole = stored.T if turned else stored
    return whole[rows]


def _by(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(key(name), []).append(name)
    return found


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


__all__ = ["MODEL_WEIGHTS", "READABLE", "TURNED", "BaseWeights", "transposed"]
