"""Whether an adapter fits a base model, and leaves its weights alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from s3lora.adapter.formats.wrappers import PREFIX
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.peft_config import refuse_changed_base
from s3lora.adapter.tensor import Tensor
from s3lora.adapter.weights import CONFIG
from s3lora.errors import ModelError, UnsupportedAdapterError, printable
from s3lora.needs import need

#: Forms of which PEFT builds layers of another kind.
_NO_LORA_LAYER = ("LoHa", "LoKr", "VeRA", "AdaLoRA")


def check_loadable(adapter: Adapter) -> None:
    """Raise UnsupportedAdapterError for what cannot be loaded into any model, MissingPackageError without PEFT."""
    need("peft")
    path = str(adapter.path)
    if adapter.format != "peft" or adapter.path == adapter.entry:
        raise UnsupportedAdapterError(
            f"it is in the {adapter.format} format, and only PEFT folders can be loaded into a model",
            file=path,
            fix="convert it to PEFT first",
        )
    if adapter.config is None:
        raise UnsupportedAdapterError(f"has no {CONFIG}, without which PEFT loads no adapter", file=path)
    refuse_changed_base(adapter)
    form = next((module.form for module in adapter.modules if module.form in _NO_LORA_LAYER), None)
    if form is not None:
        raise UnsupportedAdapterError(
            f"is {form}, and only layers of LoRA can be switched and pruned in a loaded model",
            file=path,
            fix="convert it to PEFT first" if form == "AdaLoRA" else "measure it with an inference server instead",
        )


def check_fit(model: Any, adapter: Adapter, path: str) -> None:
    """Raise ModelError at the first module that the base lacks, or whose shape differs there.

    Names and shapes are enough: the model may be an `Outline`'s, without weights.
    """
    layers = dict(model.named_modules())
    # A model that already has adapters holds the original layer within PEFT's.
    for module in adapter.modules:
        layer = layers.get(module.path)
        layer = getattr(layer, "base_layer", layer)
        weight = getattr(layer, "weight", None)
        if weight is None and module.expert is not None and _stacked(module.path, layers):
            raise UnsupportedAdapterError(
                "its experts are one parameter in the loaded model, and no layers of their own",
                file=path,
                module=printable(module.path),
                shape=(module.m, module.n),
                fix="measure it with an inference server instead",
            )
        if weight is None:
            raise ModelError(
                "the base model has no such module",
                file=path,
                module=printable(module.path),
                shape=(module.m, module.n),
                fix="name the base model that the adapter was trained on",
            )
        _check_shape(module, layer, path)


def _stacked(path: str, layers: Mapping[str, Any]) -> bool:
    """Return whether the model has the container of this expert, and nothing in it that has a number."""
    container = path[: path.rfind(".experts.") + len(".experts")]
    return container in layers and f"{container}.0" not in layers


def _check_shape(module: LoraModule, layer: Any, path: str) -> None:
    if module.kind == "conv":
        return
    shape = tuple(layer.weight.shape)
    # Embeddings, and the Conv1D of GPT-2, hold their weight the other way round.
    turned = module.kind == "embedding" or type(layer).__name__ == "Conv1D"
    if (shape[::-1] if turned else shape) != (module.m, module.n):
        there = " × ".join(map(str, shape))
        raise ModelError(
            f"the module is {there} in the base model",
            file=path,
            module=printable(module.path),
            shape=(module.m, module.n),
            fix="name the base model that the adapter was trained on",
        )


def refuse_replaced(model: Any, adapter: Adapter, path: str) -> None:
    """Raise UnsupportedAdapterError if loading would replace weights of the base by others, for good.

    PEFT writes trained biases and whole embeddings into the layers of the base itself, where no switch takes them out.
    """
    torch = need("torch")
    own = {name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items()}
    for name, tensor in _whole(adapter):
        base = own.get(name)
        if base is None:
            continue
        if tuple(base.shape) == tensor.shape:
            # As loading would round it.
            with np.errstate(invalid="ignore"):  # of a signalling NaN
                values = tensor.array().astype(np.float32)
            given = torch.from_numpy(values).to(base.dtype)
            if torch.equal(given, base.cpu()):
                continue
        raise UnsupportedAdapterError(
            "would replace a weight of the base model by another, also where the adapter is off",
            file=path,
            module=printable(name),
            shape=tensor.shape,
            fix="measure it with an inference server instead",
        )


def _whole(adapter: Adapter) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that are no LoRA and no copy of a module, under the names that the base has for them."""
    copies = (adapter.config or {}).get("modules_to_save")
    copied = tuple(name for name in copies if isinstance(name, str)) if isinstance(copies, list) else ()
    for file in adapter.files:
        for key, tensor in file.tensors.items():
            name = key.removeprefix(PREFIX).replace(".base_layer.", ".")
            parts = name.split(".")
            owners = (".".join(parts[:end]) for end in range(1, len(parts)))
            if not copied or not any(owner.endswith(copied) for owner in owners):
                yield name, tensor


def fitting(adapters: Sequence[Adapter]) -> Callable[[Any], None]:
    """Return what raises where one of the adapters does not fit a model; raise at once for what fits none."""
    for adapter in adapters:
        check_loadable(adapter)

    def check(model: Any) -> None:
        for adapter in adapters:
            check_fit(model, adapter, str(adapter.path))

    return check
