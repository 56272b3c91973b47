"""Which adapters a folder holds, told from the names of its files alone.

A name can promise too much: whether a lone `*.safetensors` file holds LoRA is known when it is opened, and what holds
none ends as an error with its reason. What cannot be an adapter by its name is never opened: base models and the state
of a training.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from s3lora.adapter.checkpoints import step_of
from s3lora.adapter.folder import SKIPPED_FOLDERS
from s3lora.adapter.weights import CONFIG, INDEX, WEIGHTS
from s3lora.partial import OLD, PARTIAL

#: Configurations of whole models: Transformers and Diffusers write them beside the weights.
BASE_CONFIGS = ("config.json", "model_index.json")
#: Names of whole models' weights, and of one part of several.
_BASE = re.compile(
    r"(?:tf_|flax_|pytorch_|diffusion_pytorch_|diffusion_flax_)?model(?:[.-][\w.-]+)?\.(?:safetensors|bin|msgpack|h5)"
    r"|consolidated[\w.-]*\.(?:safetensors|pth?)",
    re.IGNORECASE,
)
_PART = re.compile(r".+-\d{5}-of-\d{5}\.(?:safetensors|bin)", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]+")
#: Weights files that torch writes: only those whose name says so are adapters.
_TORCH = (".bin", ".pt", ".pth")
_LORA = re.compile(r"lora|adapter", re.IGNORECASE)

_STATE = ("optimizer.", "scheduler.", "rng_state")

BASE_MODEL = "base model"
TRAINING = "state of a training"
GGUF = "GGUF file"
HIDDEN = "hidden, cache or unfinished folder"


@dataclass(frozen=True, slots=True)
class Adapters:
    """What a folder holds: `whole`, the folder itself is an adapter; `files`, names of files that each are one.

    `skipped` gives names with the reason why they are no adapters; the empty name stands for the folder.
    """

    whole: bool = False
    files: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()


def adapters_in(names: Collection[str]) -> Adapters:
    """Return the adapters among the files of one folder, in natural order.

    A folder with weights of a name that loaders look for, or with an `adapter_config.json` and one weights file, is
    one adapter however many weights files it holds. Checkpoints that MLX writes as `N_adapters.safetensors` are
    adapters of their own. Without such names each weights file is one.
    """
    shown = in_order(name for name in names if not name.startswith("."))
    configured, based = CONFIG in shown, any(name in shown for name in BASE_CONFIGS)
    skipped = [(name, reason) for name in shown if (reason := _refused(name))]
    checkpoints = [name for name in shown if step_of(name) is not None]
    loose = [name for name in shown if _is_loose(name, based=based and not configured)]
    base = (("", BASE_MODEL),) if any(_is_base(name, based=based) for name in shown) else ()
    if any(name in shown for name in WEIGHTS) or any(name.startswith("adapter_model") for name in loose):
        return Adapters(True, tuple(checkpoints), tuple(skipped))
    if configured and len(loose) < 2:
        # even without weights: what has the configuration of an adapter, and is none, must be told
        return Adapters(True, (), tuple(skipped))
    return Adapters(False, tuple(loose), (*skipped, *base))


def in_order(names: Iterable[str]) -> list[str]:
    """Return names in natural order, checkpoint-200 before checkpoint-1000, with a key that is small in memory."""
    return sorted(sorted(names), key=lambda name: _DIGITS.sub(lambda found: found[0].zfill(20), name))


def enters(folder: str) -> bool:
    """Return whether a folder of this name may hold adapters: not if it is hidden, a cache or being written."""
    return not (folder.startswith(".") or folder.endswith((PARTIAL, OLD)) or folder in _CLOSED)


def is_weights(name: str) -> bool:
    """Return whether a path or URL ends as a weights file that can be opened does, an index of shards included."""
    return name.lower().endswith((".safetensors", ".gguf", *_TORCH)) or name.endswith(INDEX)


#: But for `runs`, which is as often the folder that all runs lie in.
_CLOSED = frozenset(SKIPPED_FOLDERS) - {"runs"} | {"__pycache__"}


def _refused(name: str) -> str | None:
    if name.startswith(_STATE):
        return TRAINING
    return GGUF if name.lower().endswith(".gguf") and _LORA.search(name) else None


def _is_base(name: str, *, based: bool) -> bool:
    """Return whether this is the weights of a whole model; `based`: its configuration lies beside it."""
    return _PART.fullmatch(name) is not None or (
        _BASE.fullmatch(name) is not None and (based or name.lower() != "model.safetensors")
    )


def _is_loose(name: str, *, based: bool) -> bool:
    if _refused(name) or (_is_base(name, based=based) and not name.startswith("adapter_model")):
        return False
    if name.endswith(INDEX):
        return _LORA.search(name) is not None
    suffix = name[name.rfind(".") :].lower()
    return suffix == ".safetensors" or (suffix in _TORCH and _LORA.search(name) is not None)
