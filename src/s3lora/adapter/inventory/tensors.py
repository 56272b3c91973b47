"""What every tensor of the weights is: part of a LoRA module, or one of the things that come along with it.

A name decides, and the configuration. What a loader does with a tensor that is no part of LoRA was seen by running
PEFT 0.21.2, and MLX, which reads every name of the file into the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from s3lora.adapter.formats.wrappers import PREFIX, unwrapped
from s3lora.adapter.inventory.model import RESCALES, InventoryTensor, TensorRole
from s3lora.adapter.inventory.values import NOT_READ, TensorValues
from s3lora.adapter.model import Adapter
from s3lora.adapter.tensor import Tensor
from s3lora.adapter.tensors import StoredTensor

#: What a loader does with a tensor of a role.
EFFECTS: dict[TensorRole, str] = {
    "factor": "",
    "extra": "belongs to the update of its module",
    "bias": "is added to the output of its layer",
    "head": "takes the place of this layer of the base model",
    "tokens": "takes the place of the embeddings of some tokens",
    "base weight": "takes the place of the base model's weight of this name",
    "unknown": "is of no kind that s3lora knows",
}
_ALPHA = "sets the scaling of its module"
_ADDED = "is added to the base model's weight of this name"
#: Of a plain weight under the path of a LoRA layer.
PASSED_OVER = "is no weight of an adapted layer, so PEFT passes over it"
#: Ends of names under which tools store the difference of a whole weight, and names of whole norms.
_DIFFS = (".diff", ".diff_b")
_WHOLE = (".set_weight", ".w_norm", ".b_norm")
#: Beginnings and parts of names of trained embeddings.
_TOKENS = ("<", "bundle_emb.", "emb_params", "string_to_param", "clip_l", "clip_g", "t5xxl")
_TRAINED_TOKENS = (".token_adapter.", "trainable_tokens")
#: Heads that PEFT saves in full without being told, by the kind of the task.
_HEADS = ("classifier", "score", "qa_outputs", "summary", "v_head")
TASK_HEADS = dict.fromkeys(("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"), _HEADS)
#: Names in a row that are looked for within a path, as `modules_to_save` may have them.
_LONGEST = 4


def tensors_of(adapter: Adapter, values: Mapping[str, TensorValues]) -> tuple[InventoryTensor, ...]:
    """Return every tensor in the order of the file; `values` are those that were read, by name."""
    others = _Others(adapter)
    roles = _roles(adapter, others)
    found = []
    for tensor in _stored(adapter):
        role, module, effect = roles.get(tensor.name) or others.of(tensor.name)
        read = values.get(tensor.name, NOT_READ)
        found.append(
            InventoryTensor(
                name=tensor.name,
                role=role,
                module=module,
                dtype=tensor.dtype,
                shape=tensor.shape,
                bytes=_bytes(tensor),
                parameters=math.prod(tensor.shape),
                finite=read.finite,
                largest=read.largest,
                sha256=None if role == "factor" else read.sha256,
                effect=effect,
            )
        )
    return tuple(found)


def other_names(adapter: Adapter) -> frozenset[str]:
    """Return the names of the tensors that no factor of a module is made of."""
    factors = {part.tensor.name for module in adapter.modules for part in module.parts}
    return frozenset(name for file in adapter.files for name in file.tensors if name not in factors)


_Known = tuple[TensorRole, str | None, str]


def _stored(adapter: Adapter) -> list[Tensor]:
    if adapter.files:
        return [tensor for file in adapter.files for tensor in file.tensors.values()]
    tensors = (part.tensor for module in adapter.modules for part in module.parts)
    return list({tensor.name: tensor for tensor in tensors}.values())


def _bytes(tensor: Tensor) -> int:
    return tensor.nbytes if isinstance(tensor, StoredTensor) else int(tensor.array().nbytes)


def _roles(adapter: Adapter, others: _Others) -> dict[str, _Known]:
    """Return what the tensors are that belong to modules."""
    found: dict[str, _Known] = {}
    for module in adapter.modules:
        path = module.group or module.path
        for name in module.extras:
            found[name] = _extra(name, path, others)
    for module in adapter.modules:
        path = module.group or module.path
        for part in module.parts:
            found[part.tensor.name] = ("factor", None if part.shared else path, "")
    return found


def _extra(name: str, path: str, others: _Others) -> _Known:
    leaf = name.rpartition(".")[2]
    if leaf == "bias":
        return "bias", path, EFFECTS["bias"]
    if leaf == "alpha" or "ranknum" in name.split("."):
        return "extra", path, _ALPHA
    if leaf in ("dora_scale", "m") or "lora_magnitude_vector" in name:
        return "extra", path, RESCALES
    if "lora_" in name:
        return "extra", path, EFFECTS["extra"]
    role, _, effect = others.of(name)
    # A plain weight under the path of a LoRA layer has no place there: PEFT calls it `base_layer.weight`.
    plain = role == "base weight" and others.format == "peft" and ".base_layer." not in name
    return role, path, PASSED_OVER if plain else effect


class _Others:
    """What the tensors are that belong to no LoRA module, by their names and the configuration."""

    def __init__(self, adapter: Adapter) -> None:
        config = adapter.config or {}
        named = config.get("modules_to_save")
        tasks = TASK_HEADS.get(str(config.get("task_type")), ())
        self.format = adapter.format
        self._adalora = config.get("peft_type") == "ADALORA"
        self._heads = {*tasks, *(str(one) for one in named if one)} if isinstance(named, list | tuple) else {*tasks}
        self._bias = config.get("bias")
        self._adapted = {module.path for module in adapter.modules} if self._bias == "lora_only" else set()

    def of(self, name: str) -> _Known:
        path = unwrapped(name)[0]
        layer = path.rpartition(".")[0] or path
        role = self._role(name, layer)
        if role == "base weight" and name.endswith(_DIFFS):
            return role, layer, _ADDED
        return role, layer, EFFECTS[role]

    def _role(self, name: str, layer: str) -> TensorRole:
        if self._adalora and any(f".lora_{part}" in name for part in "ABE"):
            return "extra"  # of a module of rank 0
        if name.startswith(_TOKENS) or any(part in name for part in _TRAINED_TOKENS):
            return "tokens"
        if ".modules_to_save." in name or (self._heads and self._is_head(layer)):
            return "head"
        if name.endswith(".bias") and (self._bias == "all" or layer.removesuffix(".base_layer") in self._adapted):
            return "bias"
        # MLX reads every name into the model, and PEFT every name of the model that it would write itself.
        if ".base_layer." in name or name.endswith((*_DIFFS, *_WHOLE)) or self.format == "mlx":
            return "base weight"
        if self.format == "peft" and (name.startswith(PREFIX) or name.endswith((".weight", ".bias"))):
            return "base weight"
        return "unknown"

    def _is_head(self, layer: str) -> bool:
        """Return whether a layer, or one that it lies in, is saved in full: an end of its path or some names in it."""
        names = layer.split(".")
        runs = (".".join(names[i : i + n]) for i in range(len(names)) for n in range(1, _LONGEST + 1))
        return any(run in self._heads for run in runs) or any(
            ".".join(names[i:]) in self._heads for i in range(len(names))
        )
