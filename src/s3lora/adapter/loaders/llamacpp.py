"""llama.cpp: its `convert_lora_to_gguf.py` stops at every tensor that is no LoRA factor. Run, with library 0.5.0.

What is GGUF already goes to the library as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from s3lora.adapter.loaders.base import Loader, alpha_over_tensor
from s3lora.adapter.loaders.folder import LoaderView, Taken, of_peft, peft_files
from s3lora.adapter.loaders.problems import (
    CONV1D,
    MERGE,
    SAVED_ALONG,
    Problem,
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

GGUF = "gguf"
#: Parts of names of norms, which the converter keeps and the library then leaves out.
_NORMS = ("_layernorm", ".norm")


def _problems(adapter: Adapter) -> Iterator[Problem]:
    if adapter.format == GGUF:
        yield from _embeddings(adapter, "with which decoding stops")
        return
    foreign = [*not_peft(adapter)]
    yield from foreign or lacking(adapter, "lora_alpha")
    if foreign:
        return
    yield from dora(adapter)
    yield from trained_bias(adapter, of_base=False)  # it minds the tensors only, which are looked for next
    others = [tensor.name for tensor in others_of(adapter) if not tensor.name.endswith(SAVED_ALONG)]
    skipped = [name for name in others if ".base_layer.weight" in name]
    norms = [name for name in others if any(part in name for part in _NORMS) and name not in skipped]
    if rest := [name for name in others if name not in (*skipped, *norms)]:
        what = f"holds {len(rest)} tensors that are no LoRA factors ({some(rest)}), at which its converter stops"
        yield Problem(what, MERGE, mends=("all",))
    if skipped:
        what = f"holds {len(skipped)} weights of the base model ({some(skipped)}), which its converter leaves out"
        yield Problem(what, MERGE, "other")
    if norms:
        what = f"holds {len(norms)} norms ({some(norms)}), which its converter keeps and the library leaves out"
        yield Problem(what, MERGE, "other")
    yield from _embeddings(adapter, "which its converter takes and with which decoding stops")
    yield from default_names(adapter, "at which its converter stops")
    yield from in_wrappers(adapter, "has keys inside a wrapper, which its converter cannot map", "fails")
    if experts := fused_experts(adapter):
        what = "holds the fused experts of `target_parameters`, which its converter takes for one matrix"
        yield Problem(what, "store each expert by itself", modules=experts)
    yield from unseen_layers(
        adapter, CONV1D, "whose weights its converter turns, with which it was not seen", known=False
    )
    yield from replicated(adapter, "other")
    yield from changed_at_load(adapter)
    if adapter.base_model is None:
        fix = "give its converter `--base FOLDER`, or write the name into adapter_config.json"
        yield Problem("has no base_model_name_or_path", fix, told="prune")


def _embeddings(adapter: Adapter, does: str) -> Iterator[Problem]:
    if embeddings := [module.path for module in adapter.modules if module.kind == "embedding"]:
        yield Problem(f"holds embedding LoRA, {does}", MERGE, modules=tuple(embeddings))


def reads(view: LoaderView) -> bool:
    """Return whether the folder is a PEFT adapter's, or holds GGUF."""
    return of_peft(view) or view.format == GGUF


def takes(view: LoaderView) -> Taken:
    """Return what the converter takes, or the files that the library can be given."""
    if view.format != GGUF:
        return peft_files(view)
    return tuple(view.ending(".gguf")), "finds no .gguf file"


def _notes(adapter: Adapter) -> Iterator[str]:
    if adapter.base_model is None and adapter.format != GGUF:
        yield "needs `--base FOLDER` for its converter, since the configuration names no base"


LOADER = Loader(
    "llamacpp",
    _problems,
    scaling=alpha_over_tensor,
    divides_by_tensor=True,
    reads=reads,
    takes=takes,
    formats=("peft", "gguf"),
    seen=("0.5.0",),
    how="library and converter were run",
    notes=_notes,
    missing=("fails", "cannot convert them"),
    renamed=("unknown", "maps names by a table for each model, which was not tried"),
    tied_head=("fails", "finds no output layer of its own (read in the source of the library)"),
)
