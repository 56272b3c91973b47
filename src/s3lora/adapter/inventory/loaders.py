"""Which files of a folder each loader would take, and whether these are what was measured.

Told from names alone, as the loaders do. Each function names the version whose source or behaviour it follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3lora.adapter.inventory.model import InventoryFile, LoaderChoice
from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import MLX_WEIGHTS, PEFT_WEIGHTS, is_mlx, is_peft

#: Formats that diffusers reads besides PEFT's.
_PICTURES = ("diffusers", "kohya")
_DIFFUSERS = "pytorch_lora_weights"
#: What SGLang leaves out of the files of torch.
_SGLANG_SKIPS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")


@dataclass(frozen=True, slots=True)
class LoaderView:
    """What a loader looks at: the names of the files in the folder, its configuration and the format of the adapter."""

    names: tuple[str, ...]
    config: Mapping[str, Any] | None
    format: str

    def first(self, *names: str) -> tuple[str, ...]:
        """Return the first of these names that is there, as a tuple of one or none."""
        return next(((name,) for name in names if name in self.names), ())

    def ending(self, suffix: str) -> list[str]:
        """Return the names with this ending, in order."""
        return [name for name in self.names if name.endswith(suffix)]


@dataclass(frozen=True, slots=True)
class LoaderRule:
    """How a loader picks its files: `reads` tells whether it is meant for such a folder, `takes` what it takes.

    `takes` returns no file where the loader finds none or refuses, and then a note that says why.
    """

    loader: str
    reads: Callable[[LoaderView], bool]
    takes: Callable[[LoaderView], tuple[tuple[str, ...], str]]


def choices(adapter: Adapter, files: Sequence[InventoryFile]) -> tuple[LoaderChoice, ...]:
    """Return what each loader that is meant for such an adapter would take of its folder.

    An adapter in memory, or opened as one file, has no folder to choose from.
    """
    if adapter.path is None or adapter.path == adapter.entry:
        return ()
    names = tuple(file.path for file in files if "/" not in file.path)
    view = LoaderView(names, adapter.config, adapter.format)
    measured = {file.path for file in files if file.role == "weights"}
    same = {file.path for file in files if file.content == "same"}
    made = []
    for rule in RULES:
        if not rule.reads(view):
            continue
        taken, note = rule.takes(view)
        fits = set(taken) in (set(), measured) or all(name in same or {name} == measured for name in taken)
        if not fits and not note:
            note = f"{', '.join(taken)} {'is' if len(taken) == 1 else 'are'} not what was measured"
        made.append(LoaderChoice(loader=rule.loader, files=taken, measured=fits, note=note))
    return tuple(made)


def _of_peft(view: LoaderView) -> bool:
    return is_peft(view.config)


def _of_diffusers(view: LoaderView) -> bool:
    """Return whether the weights may be of a picture model: then PEFT keys have no configuration beside them."""
    plain = view.config is None and view.format == "peft"
    return plain or view.format in _PICTURES or any(name.startswith(_DIFFUSERS) for name in view.names)


def _of_mlx(view: LoaderView) -> bool:
    return is_mlx(view.config) or view.format == "mlx"


def _first_of(*names: str) -> Callable[[LoaderView], tuple[tuple[str, ...], str]]:
    def takes(view: LoaderView) -> tuple[tuple[str, ...], str]:
        found = view.first(*names)
        return found, "" if found else f"finds no {' or '.join(names)}"

    return takes


def _diffusers(view: LoaderView) -> tuple[tuple[str, ...], str]:
    """Follow `_best_guess_weight_name` of diffusers 0.35 and later: safetensors first, then `.bin`."""
    for suffix in (".safetensors", ".bin"):
        found = [
            name
            for name in view.ending(suffix)
            if not any(word in name for word in ("scheduler", "optimizer", "checkpoint"))
        ]
        named = [name for name in found if name.endswith(_DIFFUSERS + suffix)]
        found = named or found
        if len(found) > 1:
            return (), f"refuses to choose among {len(found)} {suffix} files unless it is given a name"
        if found:
            return tuple(found), ""
    return (), "finds no .safetensors or .bin file"


def _mlx(view: LoaderView) -> tuple[tuple[str, ...], str]:
    """Follow `load_adapters` of mlx-lm 0.32.2; versions before 0.14 took `adapters.npz`."""
    if view.config is None:
        return (), "finds no adapter_config.json"
    found = view.first(MLX_WEIGHTS[0])
    if found:
        return found, ""
    old = view.first(MLX_WEIGHTS[1])
    return old, "only versions before 0.14 take it" if old else f"finds no {MLX_WEIGHTS[0]}"


def _sglang(view: LoaderView) -> tuple[tuple[str, ...], str]:
    """Follow the default loader of SGLang 0.5.23: all files of the first kind of which there is one."""
    index = "model.safetensors.index.json" in view.names
    for suffix in (".safetensors", ".bin", ".pt"):
        found = [name for name in view.ending(suffix) if not name.startswith(".") and name not in _SGLANG_SKIPS]
        if found:
            several = len(found) > 1
            note = f"takes every {suffix} file, the last of two tensors with one name" if several else ""
            return tuple(found), "takes those that model.safetensors.index.json names" if index and several else note
    return (), "finds no .safetensors, .bin or .pt file"


#: In the order in which they are shown.
RULES = (
    # PEFT 0.21.2, `load_peft_weights`: where the folder has neither, it looks for a repository of that name.
    LoaderRule("peft", _of_peft, _first_of(*PEFT_WEIGHTS)),
    # Transformers 5.24, `load_adapter`: the same two names, in this order unless `use_safetensors=False`.
    LoaderRule("transformers", _of_peft, _first_of(*PEFT_WEIGHTS)),
    LoaderRule("diffusers", _of_diffusers, _diffusers),
    LoaderRule("mlx", _of_mlx, _mlx),
    # vLLM 0.33, `LoRAModel.from_local_checkpoint`.
    LoaderRule("vllm", _of_peft, _first_of(*PEFT_WEIGHTS, "adapter_model.pt")),
    LoaderRule("sglang", _of_peft, _sglang),
    # llama.cpp, `convert_lora_to_gguf.py` of 2026.
    LoaderRule("llamacpp", _of_peft, _first_of(*PEFT_WEIGHTS)),
)
