"""Adapters in a loaded model: attached once by PEFT, then switched and pruned in place, never loaded again."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3lora.adapter.digest import Source, source_of
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.open import open_adapter
from s3lora.errors import UnsupportedAdapterError, printable
from s3lora.evaluate.chat import digest_of
from s3lora.evaluate.loading import LoadedBase, ModelError
from s3lora.evaluate.needs import need
from s3lora.evaluate.results import Loaded


@dataclass(frozen=True)
class Attached:
    """An adapter in the model: PEFT's name for it, where it came from, and its modules."""

    key: str
    source: Source
    modules: tuple[str, ...]
    #: It also changes weights that are no LoRA module, so that without modules it is still not the base.
    more: bool


@dataclass(frozen=True)
class State:
    """What is switched on: no adapter (the base alone), or an adapter without its `pruned` modules."""

    adapter: Attached | None = None
    pruned: frozenset[str] = frozenset()

    @property
    def identity(self) -> str:
        """Return a digest of the state, the same for all states that are the same model."""
        if self.adapter is None or (not self.adapter.more and self.pruned.issuperset(self.adapter.modules)):
            return "base"
        files = [[file.name, file.sha256] for file in self.adapter.source.files]
        return digest_of([files, sorted(self.pruned)])


class Adapters:
    """The adapters attached to one model, of which at most one is on."""

    def __init__(self, base: LoadedBase) -> None:
        """Start with none."""
        self._base = base
        self._peft: Any = None
        self._layers: dict[str, Any] = {}
        self.state = State()

    @property
    def model(self) -> Any:
        """Return the model with whatever is switched on."""
        return self._base.model if self._peft is None else self._peft

    def attach(self, path: str | Path) -> Attached:
        """Load an adapter beside those already attached; none is switched on by it.

        Raises AdapterFileError for what is no adapter, UnsupportedAdapterError for a format that PEFT does not load,
        ModelError for a module that the base does not have or that has another shape there.
        """
        peft = need("peft")
        with open_adapter(path) as adapter:
            if adapter.format != "peft" or adapter.path is None or not adapter.path.is_dir():
                raise UnsupportedAdapterError(
                    f"it is in the {adapter.format} format, and only PEFT folders can be loaded into a model",
                    file=path,
                    fix="convert it to PEFT first",
                )
            _check_fit(self._base.model, adapter, str(path))
            number = 0 if self._peft is None else len(self._peft.peft_config)
            attached = Attached(f"a{number}", source_of(adapter), tuple(m.path for m in adapter.modules), _more(adapter))
            folder = str(adapter.path)
        with warnings.catch_warnings(), _readable(str(path)):
            # What PEFT warns of (missing keys after pruning without excluding) is checked above, module by module.
            warnings.simplefilter("ignore")
            if self._peft is None:
                self._peft = peft.PeftModel.from_pretrained(self._base.model, folder, adapter_name=attached.key)
            else:
                self._peft.load_adapter(folder, adapter_name=attached.key)
        self._peft.eval().requires_grad_(False)
        layer = need("peft.tuners.tuners_utils").BaseTunerLayer
        named = self._peft.get_base_model().named_modules()
        self._layers = {name: module for name, module in named if isinstance(module, layer)}
        lost = [path for path in attached.modules if path not in self._layers]
        if lost:
            raise UnsupportedAdapterError(
                "PEFT did not build this module as a layer of its own", file=path, module=printable(lost[0])
            )
        self.use(State())
        return attached

    def use(self, state: State) -> None:
        """Switch to a state: flags are set, no weight is touched or copied."""
        if self._peft is not None:
            if state.adapter is None:
                self._peft.base_model.disable_adapter_layers()
            else:
                unknown = state.pruned.difference(state.adapter.modules)
                if unknown:
                    raise KeyError(f"not in the adapter: {sorted(unknown)[0]}")
                self._peft.base_model.enable_adapter_layers()
                self._peft.base_model.set_adapter(state.adapter.key, inference_mode=True)
                for path in state.pruned:
                    self._layers[path].set_adapter([], inference_mode=True)
        self.state = state

    def count(self) -> Loaded:
        """Count what of LoRA takes part in the model's forward pass as it stands now."""
        modules = parameters = flops = 0
        if self.state.adapter is not None:
            key = self.state.adapter.key
            for layer in self._layers.values():
                if key in layer.active_adapters and not layer.disable_adapters and key in layer.lora_A:
                    a, b = layer.lora_A[key].weight, layer.lora_B[key].weight
                    modules += 1
                    parameters += a.numel() + b.numel()
                    flops += 2 * (a.numel() + b.numel())
        return Loaded(modules, parameters, flops)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Fold what is on into the base's weights; afterwards they are put back from a copy, bit for bit."""
        state = self.state
        if state.adapter is None:
            yield
            return
        active = {p: layer for p, layer in self._layers.items() if state.adapter.key in layer.active_adapters}
        saved = {path: layer.get_base_layer().weight.detach().clone() for path, layer in active.items()}
        try:
            for layer in active.values():
                layer.merge(adapter_names=[state.adapter.key])
            yield
        finally:
            for path, layer in active.items():
                if layer.merged:
                    layer.merged_adapters.clear()
                    layer.get_base_layer().weight.data.copy_(saved[path])


def _check_fit(model: Any, adapter: Adapter, path: str) -> None:
    """Raise ModelError at the first module that the base lacks, or whose shape differs there."""
    layers = dict(model.named_modules())
    # A model that already has adapters holds the original layer within PEFT's.
    for module in adapter.modules:
        layer = layers.get(module.path)
        layer = getattr(layer, "base_layer", layer)
        weight = getattr(layer, "weight", None)
        if weight is None:
            raise ModelError(
                "the base model has no such module",
                file=path,
                module=printable(module.path),
                shape=(module.m, module.n),
                fix="name the base model that the adapter was trained on",
            )
        _check_shape(module, tuple(weight.shape), path)


def _check_shape(module: LoraModule, shape: tuple[int, ...], path: str) -> None:
    if module.kind == "conv":
        return
    if sorted(shape) != sorted((module.m, module.n)):
        there = " × ".join(map(str, shape))
        raise ModelError(
            f"the module is {there} in the base model",
            file=path,
            module=printable(module.path),
            shape=(module.m, module.n),
            fix="name the base model that the adapter was trained on",
        )


def _more(adapter: Adapter) -> bool:
    own: Iterable[str] = (name for module in adapter.modules for name in module.extras)
    return bool(set(adapter.other_tensors).difference(own))


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"PEFT cannot load the adapter ({printable(lines[0], 200)})", file=path) from None
