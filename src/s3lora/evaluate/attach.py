"""Adapters in a loaded model: attached once by PEFT, then switched and pruned in place, never loaded again."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s3lora.adapter.digest import Source, source_of
from s3lora.adapter.formats.several import without_name
from s3lora.adapter.model import Adapter
from s3lora.adapter.open import open_adapter
from s3lora.errors import ModelError, S3LoRAError, UnsupportedAdapterError, printable
from s3lora.evaluate.chat import digest_of
from s3lora.evaluate.fit import check_fit, check_loadable, refuse_replaced
from s3lora.evaluate.loading import LoadedBase, reason_of
from s3lora.evaluate.replaced import ReplacedFactors
from s3lora.evaluate.results import Loaded
from s3lora.needs import need
from s3lora.rewrite.factors import NO_FACTORS, NewFactors


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
    """What is switched on: no adapter (the base alone), an adapter without its `pruned` modules, or several at once.

    Adapters `beside` the first are whole, and so is the first then: their updates add up. `factors` stand in place of
    those that the first one has in its file.
    """

    adapter: Attached | None = None
    pruned: frozenset[str] = frozenset()
    beside: tuple[Attached, ...] = ()
    factors: NewFactors = NO_FACTORS

    @property
    def keys(self) -> list[str]:
        """Return PEFT's names of what is on."""
        return [] if self.adapter is None else [self.adapter.key, *(other.key for other in self.beside)]

    @property
    def identity(self) -> str:
        """Return a digest of the state, the same for all states that are the same model."""
        if self.adapter is not None and self.beside:
            return digest_of([State(one).identity for one in (self.adapter, *self.beside)])
        if self.adapter is None or (not self.adapter.more and self.pruned.issuperset(self.adapter.modules)):
            return "base"
        changed = [self.factors.identity] if self.factors.modules else []
        return digest_of([self.adapter.source.identity, sorted(self.pruned), *changed])


class AttachedAdapters:
    """The adapters attached to one model, of which none, one or several are on."""

    def __init__(self, base: LoadedBase) -> None:
        """Start with none."""
        self._base = base
        self._peft: Any = None
        self._layers: dict[str, Any] = {}
        self._replaced = ReplacedFactors()
        self.state = State()

    @property
    def model(self) -> Any:
        """Return the model with whatever is switched on."""
        return self._base.model if self._peft is None else self._peft

    def attach(self, adapter: Adapter | str | Path, source: Source | None = None) -> Attached:
        """Load an adapter beside those already attached; none is switched on by it.

        Parameters:
            adapter: a PEFT folder, or one that is open: PEFT is then given the tensors that were opened, and whatever
                happens to the files meanwhile, what is measured is what was scanned.
            source: the files of the open adapter, where a scan has hashed them already.

        Raises AdapterFileError for what is no adapter, UnsupportedAdapterError for a format that PEFT does not load and
        for what would change the base's own weights, ModelError for a module that the base does not have or that has
        another shape there. The model is then as it was.
        """
        if not isinstance(adapter, Adapter):
            with open_adapter(adapter) as opened:
                return self.attach(opened)
        path = str(adapter.path)
        check_loadable(adapter)
        check_fit(self._base.model, adapter, path)
        refuse_replaced(self._base.model, adapter, path)
        number = 0 if self._peft is None else len(self._peft.peft_config)
        modules = tuple(module.path for module in adapter.modules)
        attached = Attached(f"a{number}", source or source_of(adapter), modules, _more(adapter))
        try:
            self._load(attached, adapter, path)
        except BaseException:
            self._forget(attached.key)
            raise
        self.use(State())
        return attached

    def _load(self, attached: Attached, adapter: Adapter, path: str) -> None:
        peft = need("peft")
        with warnings.catch_warnings(), _readable(path):
            # What PEFT warns of (missing keys after pruning without excluding) is seen to here, module by module.
            warnings.simplefilter("ignore")
            config = peft.PeftConfig.from_peft_type(**peft.PeftConfig.check_kwargs(**adapter.config or {}))
            config.inference_mode = True
            if self._peft is None:
                kind = peft.MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, peft.PeftModel)
                self._peft = kind(self._base.model, config, adapter_name=attached.key)
            else:
                self._peft.add_adapter(attached.key, config)
            peft.set_peft_model_state_dict(self._peft, _tensors(adapter), adapter_name=attached.key)
            self._peft.eval().requires_grad_(False)
            self._find_layers()
            for layer_path, layer in self._layers.items():
                # PEFT builds what the configuration names, with values of its own where the file has none.
                if _holds(layer, attached.key) and layer_path not in attached.modules:
                    layer.delete_adapter(attached.key)
        built = {layer_path for layer_path, layer in self._layers.items() if _holds(layer, attached.key)}
        lost = [layer_path for layer_path in attached.modules if layer_path not in built]
        if lost:
            raise UnsupportedAdapterError(
                "PEFT did not build this module as a layer of its own", file=path, module=printable(lost[0])
            )

    def _forget(self, key: str) -> None:
        """Take out what a failed load left in the model."""
        if self._peft is None or set(self._peft.peft_config) <= {key}:
            self._peft = None
            _unwrap(self._base.model)
        elif key in self._peft.peft_config:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._peft.delete_adapter(key)
        self._find_layers()
        self.use(self.state)

    def _find_layers(self) -> None:
        kind = need("peft.tuners.lora").LoraLayer
        named = self._base.model.named_modules()
        self._layers = {name: module for name, module in named if isinstance(module, kind)}

    def use(self, state: State) -> None:
        """Switch to a state: flags are set, and no weight is touched but those of new factors."""
        self._replaced.undo()
        if self._peft is not None:
            if state.adapter is None:
                with warnings.catch_warnings():
                    # That trained biases stay: they are refused, see `refuse_replaced`.
                    warnings.simplefilter("ignore")
                    self._peft.base_model.disable_adapter_layers()
            else:
                unknown = state.pruned.difference(state.adapter.modules)
                if unknown:
                    raise KeyError(f"not in the adapter: {sorted(unknown)[0]}")
                self._peft.base_model.enable_adapter_layers()
                with _readable(self._base.name, "switch on"):  # of several, whole layers trained by more than one
                    self._peft.base_model.set_adapter(state.keys, inference_mode=True)
                for path in state.pruned:
                    self._layers[path].set_adapter([], inference_mode=True)
                for path, new in state.factors.modules.items():
                    self._replaced.put(self.layer(path), state.adapter.key, path, new)
        self.state = state

    def layer(self, path: str) -> Any:
        """Return the layer of PEFT that stands for a module; raise KeyError where there is none."""
        return self._layers[path]

    def count(self) -> Loaded:
        """Count what of LoRA takes part in the model's forward pass as it stands now."""
        modules = parameters = flops = 0
        for layer in self._layers.values():
            active = [key for key in self._active(layer) if not layer.disable_adapters]
            modules += bool(active)
            for key in active:
                embedding = key in layer.lora_embedding_A
                if embedding:
                    a, b = layer.lora_embedding_A[key], layer.lora_embedding_B[key]
                else:
                    a, b = layer.lora_A[key].weight, layer.lora_B[key].weight
                parameters += a.numel() + b.numel()
                # An embedding looks its row of A up.
                flops += 2 * (b.numel() if embedding else a.numel() + b.numel())
        return Loaded(modules, parameters, flops)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Fold what is on into the base's weights; afterwards they are put back from a copy, bit for bit."""
        active = [layer for layer in self._layers.values() if self._active(layer)]
        # LoRA with a bias adds it to that of the layer.
        saved = [(own, own.detach().clone()) for layer in active for own in layer.get_base_layer().parameters()]
        try:
            with _readable(self._base.name, "merge"):
                for layer in active:
                    layer.merge(adapter_names=self._active(layer))
            yield
        finally:
            # All of them, since an interrupted merge has changed a weight before it says so.
            for layer in active:
                layer.merged_adapters.clear()
            for own, before in saved:
                own.data.copy_(before)

    def _active(self, layer: Any) -> list[str]:
        """Return which of the adapters that are on take part in a layer."""
        return [key for key in self.state.keys if key in layer.active_adapters and _holds(layer, key)]


def _holds(layer: Any, key: str) -> bool:
    return key in layer.lora_A or key in layer.lora_embedding_A


def _unwrap(model: Any) -> None:
    """Put the base's own layers back where PEFT has wrapped them."""
    for path, module in list(model.named_modules()):
        own = getattr(module, "base_layer", getattr(module, "original_module", None))
        if own is not None:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, own)
    model.__dict__.pop("peft_config", None)


def _more(adapter: Adapter) -> bool:
    own: Iterable[str] = (name for module in adapter.modules for name in module.extras)
    return bool(set(adapter.other_tensors).difference(own))


def _tensors(adapter: Adapter) -> dict[str, Any]:
    """Return a copy of every tensor of the files; float32 holds each bfloat16 and fp8 value, and NumPy has neither.

    Raises AdapterFileError where a file was changed since it was opened.
    """
    torch = need("torch")
    found = {}
    for file in adapter.files:
        for name, tensor in file.tensors.items():
            values = tensor.array()
            native = values.dtype.isbuiltin == 1
            with np.errstate(invalid="ignore"):  # of a signalling NaN
                found[without_name(name, adapter.picked or "")] = torch.from_numpy(
                    values.copy() if native else values.astype(np.float32)
                )
    adapter.check_unchanged()  # since it was opened, and so since it was scanned
    return found


@contextmanager
def _readable(path: str, what: str = "load") -> Iterator[None]:
    try:
        yield
    except S3LoRAError:
        raise
    except Exception as error:  # whatever a configuration makes PEFT stumble over
        raise ModelError(f"PEFT cannot {what} the adapter ({reason_of(error)})", file=path) from None
