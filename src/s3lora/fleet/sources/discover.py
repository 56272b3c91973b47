"""Which adapters a folder holds, told from the names of its files alone.

A name can promise too much: whether a lone `*.safetensors` file holds LoRA is known when it is opened, and what holds
none ends as an error with its reason. What cannot be an adapter by its name is never opened: base models, the state of
a training, formats that are not read. No file that could hold weights is passed over without a word: it is an adapter,
lies in the folder of one, or is skipped with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass

from s3lora.adapter.checkpoints import step_of
from s3lora.adapter.folder import SKIPPED_FOLDERS
from s3lora.adapter.inventory import kinds
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
_PART = re.compile(r"(.+)-\d{5}-of-\d{5}\.(?:safetensors|bin)", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]+")
#: Files that often hold something else: only those whose name says so are taken for adapters.
_NAMED = (*kinds.TORCH, ".npz", ".gguf", ".lora")
_LORA = re.compile(r"lora|adapter", re.IGNORECASE)

#: Beginnings of names of what only resumes a training, whatever wrote it.
_STATE = ("optimizer.", "scheduler.", "rng_state")

BASE_MODEL = "base model"
TRAINING = "state of a training"
GGUF = "GGUF file whose name tells of no adapter"
SHARD = "part of an adapter that has an index"
UNNAMED = "torch or NumPy file whose name tells of no adapter"
UNREAD = "format that is not read"
HIDDEN = "hidden, or in a hidden, cache or unfinished folder"
LINK = "link to a folder, not followed"


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

    Every file whose name is that of weights lies in a folder that is `whole`, is one of `files`, or is in `skipped`:
    those of a base model not one by one, but as their folder.
    """
    ordered = in_order(names)
    shown = [name for name in ordered if not name.startswith(".")]
    configured, based = CONFIG in shown, any(name in shown for name in BASE_CONFIGS)
    beside, based = {*shown}, based and not configured
    told = {name: _refused(name, beside, based=based) for name in shown if may_be_weights(name)}
    checkpoints = [name for name in shown if step_of(name) is not None]
    loose = [name for name, reason in told.items() if reason is None]
    if any(name in shown for name in WEIGHTS) or any(name.startswith("adapter_model") for name in loose):
        return Adapters(True, tuple(checkpoints), _of_no_adapter(told))
    if configured and len(loose) < 2:
        # even without weights: what has the configuration of an adapter, and is none, must be told
        return Adapters(True, (), _of_no_adapter(told))
    hidden = tuple((name, HIDDEN) for name in ordered if name.startswith(".") and may_be_weights(name))
    others = tuple((name, reason) for name, reason in told.items() if reason not in (None, BASE_MODEL))
    base = (("", BASE_MODEL),) if BASE_MODEL in told.values() else ()
    return Adapters(False, tuple(loose), (*hidden, *others, *base))


def hidden_in(names: Iterable[str]) -> Adapters:
    """Return what a folder holds that is not looked for adapters: the weights in it are skipped."""
    return Adapters(skipped=tuple((name, HIDDEN) for name in in_order(names) if may_be_weights(name)))


def _of_no_adapter(told: Mapping[str, str | None]) -> tuple[tuple[str, str], ...]:
    """Return what is skipped in the folder of an adapter; all other weights there are told with the adapter."""
    return tuple((name, reason) for name, reason in told.items() if reason in (TRAINING, GGUF))


def in_order(names: Iterable[str]) -> list[str]:
    """Return names in natural order, checkpoint-200 before checkpoint-1000, with a key that is small in memory."""
    return sorted(sorted(names), key=lambda name: _DIGITS.sub(lambda found: found[0].zfill(20), name))


def enters(folder: str) -> bool:
    """Return whether a folder of this name may hold adapters: not if it is hidden, a cache or being written."""
    return not (folder.startswith(".") or folder.endswith((PARTIAL, OLD)) or folder in _CLOSED)


def is_weights(name: str) -> bool:
    """Return whether a path or URL ends as a weights file that can be opened does, an index of shards included."""
    return name.lower().endswith((".safetensors", *_NAMED)) or name.endswith(INDEX)


def may_be_weights(name: str) -> bool:
    """Return whether a file may hold weights by its name, in whatever format, or is an index of such files."""
    return name.lower().endswith((*kinds.WEIGHTS, *kinds.INDEXES))


#: But for `runs`, which is as often the folder that all runs lie in.
_CLOSED = frozenset(SKIPPED_FOLDERS) - {"runs"} | {"__pycache__"}


def _refused(name: str, beside: Set[str], *, based: bool) -> str | None:
    """Return why a weights file is no adapter, None where it may be one."""
    small, named = name.lower(), _LORA.search(name) is not None
    if name.startswith(_STATE) or kinds.is_training_state(small):
        return TRAINING
    if small.endswith(".gguf") and not named:
        return GGUF
    if named and (part := _PART.fullmatch(name)) and f"{part[1]}{INDEX}" in beside:
        return SHARD
    if small.endswith(kinds.INDEXES) and not named:
        return BASE_MODEL
    if _is_base(name, based=based) and not name.startswith("adapter_model"):
        return BASE_MODEL
    if small.endswith(".safetensors") or name.endswith(INDEX):
        return None
    if small.endswith(_NAMED):
        return None if named else UNNAMED
    return UNREAD


def _is_base(name: str, *, based: bool) -> bool:
    """Return whether this is the weights of a whole model; `based`: its configuration lies beside it."""
    return _PART.fullmatch(name) is not None or (
        _BASE.fullmatch(name) is not None and (based or name.lower() != "model.safetensors")
    )
