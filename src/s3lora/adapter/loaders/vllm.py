"""vLLM: builds modules from the keys of the file, so that none is missed.

The loading code of 0.10.0 and 0.33.0 was run, up to the buffers of the layers. Where releases between them changed was
read in the sources of 0.6.6, 0.7.0, 0.11.2, 0.12.0, 0.25.0, 0.30.0, 0.31.0 and 0.32.0.
"""

from __future__ import annotations

from collections.abc import Iterator

from s3lora.adapter.formats.peft_notes import changed_base
from s3lora.adapter.inventory.model import InventoryTensor
from s3lora.adapter.loaders.base import Loader, alpha_over_pattern, alpha_over_r, alpha_over_root
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
    other_kinds,
    others_of,
    replicated,
    some,
    tensors,
    trained_bias,
    unseen_layers,
)
from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import PEFT_WEIGHTS

#: What its `--max-lora-rank` may be, and is by default.
MAX_RANKS, DEFAULT_RANK = (1, 8, 16, 32, 64, 128, 256, 320, 512), 16
#: The releases that were run.
RUN = ("0.10.0", "0.33.0")
#: The first that reads rsLoRA; that passes over weights of the base beside LoRA of embeddings; that takes the heads of
#: classifiers; and that reads patterns and rejects what it does not implement.
ROOTS, ALONG, CLASSES, PATTERNS = "0.7.0", "0.12.0", "0.31.0", "0.32.0"
#: Heads that it takes.
_HEADS = ("score", "classifier")
#: Fields without which it stops.
_NEEDED = ("r", "lora_alpha", "target_modules")


def _problems(adapter: Adapter) -> Iterator[Problem]:
    pooled = any(module.form == "QALoRA" for module in adapter.modules)
    foreign = [] if pooled else [*not_peft(adapter)]
    yield from foreign or lacking(adapter, *_NEEDED)
    if foreign:
        return
    if pooled:
        what = "is QALoRA, and it reads LoRA only"
        yield from (*other_kinds(adapter, but="QALoRA"), Problem(what, MERGE, since=PATTERNS),
                    Problem(f"{what}, which it takes it for", MERGE, "other", before=PATTERNS))  # fmt: skip
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
    yield from activated(adapter, "fails", since=PATTERNS)
    yield from activated(adapter, "other", before=PATTERNS)
    yield from replicated(adapter, "fails", since=PATTERNS)
    yield from replicated(adapter, "other", before=PATTERNS)
    if (changed_base(adapter.config) or "").lower() == "lora_ga":
        yield from changed_at_load(adapter)
    else:
        yield from changed_at_load(adapter, "fails", since=PATTERNS)
        yield from changed_at_load(adapter, before=PATTERNS)
    if (rank := max((module.rank for module in adapter.modules), default=0)) > MAX_RANKS[-1]:
        yield Problem(f"has modules of rank {rank}, and it takes {MAX_RANKS[-1]} at most", MERGE)


def _others(adapter: Adapter) -> Iterator[Problem]:
    """Yield the tensors at which it stops, and the configuration that it refuses for them."""
    config = adapter.config or {}
    told = others_of(adapter)
    others = [tensor for tensor in told if not tensor.name.endswith(SAVED_ALONG)]
    if along := [tensor.name for tensor in told if tensor not in others]:
        what = f"holds {some(along)}, at which it stops before {ALONG}"
        yield Problem(what, f"use vLLM {ALONG} or newer", before=ALONG)
    heads = [tensor for tensor in others if tensor.role == "head" and _is_class_head(tensor)]
    if rest := [tensor.name for tensor in others if tensor not in heads]:
        what = f"holds {tensors(rest)} of no LoRA factor ({some(rest)}), at which it stops"
        yield Problem(what, MERGE, mends=("all",))
    saved = config.get("modules_to_save")
    named = [str(name) for name in saved] if isinstance(saved, list | tuple) else []
    if unknown := [name for name in named if name not in _HEADS]:
        mends: tuple[DropPart, ...] | None = ("heads",) if any(tensor.role == "head" for tensor in others) else None
        yield Problem(f"has {some(unknown)} in `modules_to_save`, which it rejects", MERGE, mends=mends)
    if heads or named:
        what = f"has a trained head, which a model that classifies takes from {CLASSES} on, and a language model never"
        yield Problem(what, f"use vLLM {CLASSES} or newer", before=CLASSES)


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
    newer=((ROOTS, alpha_over_root), (PATTERNS, alpha_over_pattern)),
    rank_note=_rank_note,
    # `LoRAModel.from_local_checkpoint`
    takes=first_of(*PEFT_WEIGHTS, "adapter_model.pt"),
    seen=RUN,
    how="its adapter-loading code was run",
    notes=_notes,
    missing=("fails", "stops at projections that the model has not"),
    missing_layer=("other", "leaves out layers that the model has not"),
    renamed=("unknown", "maps names by a table for each model, which was not tried"),
)
