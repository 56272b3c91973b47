"""vLLM: builds modules from the keys of the file, so that none is missed.

0.33.0 was run as far as `validate_legal` and `from_local_checkpoint`; what is said of older releases was read in their
sources.
"""

from __future__ import annotations

from collections.abc import Iterator

from s3lora.adapter.inventory.model import InventoryTensor
from s3lora.adapter.loaders.base import Loader, alpha_over_r
from s3lora.adapter.loaders.folder import first_of
from s3lora.adapter.loaders.problems import (
    CONV1D,
    MERGE,
    SAVED_ALONG,
    DropPart,
    Problem,
    activated,
    changed_at_load,
    default_names,
    dora,
    fused_experts,
    in_wrappers,
    lacking,
    not_peft,
    others_of,
    replicated,
    some,
    trained_bias,
    unseen_layers,
)
from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import PEFT_WEIGHTS

#: What its `--max-lora-rank` may be, and is by default.
MAX_RANKS, DEFAULT_RANK = (1, 8, 16, 32, 64, 128, 256, 320, 512), 16
#: The release that was run. It reads patterns, takes the heads of classifiers, and rejects what it does not implement.
RUN = "0.33.0"
#: Heads that it takes.
_HEADS = ("score", "classifier")
#: Fields without which it stops.
_NEEDED = ("r", "lora_alpha", "target_modules")


def _problems(adapter: Adapter) -> Iterator[Problem]:
    foreign = [*not_peft(adapter)]
    yield from foreign or lacking(adapter, *_NEEDED)
    if foreign:
        return
    yield from dora(adapter)
    yield from trained_bias(adapter)
    yield from _others(adapter)
    yield from default_names(adapter, "at which it stops")
    yield from in_wrappers(
        adapter, "has keys inside a wrapper, so that no module of the model has their names", "other"
    )
    if experts := fused_experts(adapter):
        what = "holds fused experts, which it reads for those models alone whose experts it keeps as one tensor"
        yield Problem(what, "store each expert by itself", "unknown", experts)
    yield from unseen_layers(adapter, CONV1D, "layers of GPT-2 and its kin, with which it was not seen", known=False)
    yield from activated(adapter, "fails", since=RUN)
    yield from activated(adapter, "other", before=RUN)
    yield from replicated(adapter, "fails", since=RUN)
    yield from replicated(adapter, "other", before=RUN)
    yield from changed_at_load(adapter)
    if (rank := max((module.rank for module in adapter.modules), default=0)) > MAX_RANKS[-1]:
        yield Problem(f"has modules of rank {rank}, and it takes {MAX_RANKS[-1]} at most", MERGE)


def _others(adapter: Adapter) -> Iterator[Problem]:
    """Yield the tensors at which it stops, and the configuration that it refuses for them."""
    config = adapter.config or {}
    others = [tensor for tensor in others_of(adapter) if not tensor.name.endswith(SAVED_ALONG)]
    heads = [tensor for tensor in others if tensor.role == "head" and _is_class_head(tensor)]
    if rest := [tensor.name for tensor in others if tensor not in heads]:
        what = f"holds {len(rest)} tensors that are no LoRA factors ({some(rest)}), at which it stops"
        yield Problem(what, MERGE, mends=("all",))
    saved = config.get("modules_to_save")
    named = [str(name) for name in saved] if isinstance(saved, list | tuple) else []
    if unknown := [name for name in named if name not in _HEADS]:
        mends: tuple[DropPart, ...] | None = ("heads",) if any(tensor.role == "head" for tensor in others) else None
        yield Problem(f"has {some(unknown)} in `modules_to_save`, which it rejects", MERGE, mends=mends)
    if heads or named:
        yield Problem("has a trained head, which it takes from 0.33.0 on", "use vLLM 0.33.0 or newer", before=RUN)


def _is_class_head(tensor: InventoryTensor) -> bool:
    return any(name in _HEADS for name in (tensor.module or "").split("."))


def _notes(adapter: Adapter) -> Iterator[str]:
    rank = max((module.rank for module in adapter.modules), default=0)
    if DEFAULT_RANK < rank <= MAX_RANKS[-1]:
        needed = next(one for one in MAX_RANKS if one >= rank)
        yield f"needs --max-lora-rank {needed} for rank {rank}; its default is {DEFAULT_RANK}"


def _rank_note(before: int, after: int) -> str | None:
    """Return what its `--max-lora-rank` must be where the one that was enough no longer is; its default is 16."""
    enough, needed = (next((rank for rank in MAX_RANKS if rank >= given), given) for given in (before, after))
    if needed <= max(enough, DEFAULT_RANK):
        return None
    return f"vLLM needs --max-lora-rank {needed} for rank {after}"


LOADER = Loader(
    "vllm",
    _problems,
    scaling=alpha_over_r,
    reads_patterns=RUN,
    rank_note=_rank_note,
    # `LoRAModel.from_local_checkpoint`
    takes=first_of(*PEFT_WEIGHTS, "adapter_model.pt"),
    seen=(RUN,),
    how="its adapter-loading code was run",
    notes=_notes,
    missing=("fails", "stops at projections that the model has not"),
    missing_layer=("other", "leaves out layers that the model has not"),
    renamed=("unknown", "maps names by a table for each model, which was not tried"),
)
