"""llama.cpp: its `convert_lora_to_gguf.py` stops at every tensor that is no LoRA factor. Run, with library 0.5.0.

What is GGUF already goes to the library as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from s3lora.adapter.loaders.base import Loader, alpha_over_tensor
from s3lora.adapter.loaders.folder import LoaderView, Taken, of_peft
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
    more_layers,
    not_peft,
    others_of,
    replicated,
    some,
    tensors,
    trained_bias,
    unseen_layers,
)
from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import PEFT_WEIGHTS

#: Parts of names of norms, which the converter keeps and the library then leaves out.
_NORMS = ("_layernorm", ".norm")


def _problems(adapter: Adapter) -> Iterator[Problem]:
    if adapter.format == "gguf":  # which its library takes as it is
        yield from _embedded(adapter)
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
        what = f"holds {tensors(rest)} of no LoRA factor ({some(rest)}), at which its converter stops"
        yield Problem(what, MERGE, mends=("all",))
    if skipped:
        what = f"holds {len(skipped)} weights of the base model ({some(skipped)}), which its converter leaves out"
        yield Problem(what, MERGE, "other")
    if norms:
        what = f"holds {len(norms)} norms ({some(norms)}), which its converter keeps and the library leaves out"
        yield Problem(what, MERGE, "other")
    yield from _embedded(adapter)
    yield from default_names(adapter, "at which its converter stops")
    yield from in_wrappers(adapter, "has keys inside a wrapper, which its converter cannot map", "fails")
    if experts := fused_experts(adapter):
        what = "holds the fused experts of `target_parameters`, which its converter takes for one matrix"
        yield Problem(what, "store each expert by itself", modules=experts)
    yield from unseen_layers(
        adapter, CONV1D, "whose weights its converter turns, with which it was not seen", known=False
    )
    yield from replicated(adapter, "fails" if more_layers(adapter) else "other")
    if (adapter.config or {}).get("alora_invocation_tokens"):
        what = "is an aLoRA, whose tokens its converter keeps: its server minds them (read in its source), and the "
        yield Problem(f"{what}library alone lets it act on every token", "use its server", "unknown", told="check")
    yield from changed_at_load(adapter)
    if adapter.base_model is None:
        fix = "give its converter `--base FOLDER`, or write the name into adapter_config.json"
        yield Problem("has no base_model_name_or_path", fix, told="prune")


def _embedded(adapter: Adapter) -> Iterator[Problem]:
    """Yield what comes of LoRA of embeddings, which a GGUF calls `token_embd`."""
    found = [one.path for one in adapter.modules if one.kind == "embedding"]
    if found:
        what = "holds embedding LoRA, with which decoding stops where the output layer is tied to the embeddings"
        yield Problem(what, MERGE, modules=tuple(found), tied=True)


def _notes(adapter: Adapter) -> Iterator[str]:
    if adapter.base_model is None and adapter.format != "gguf":
        yield "needs `--base FOLDER` for its converter, since the configuration names no base"


def _reads(view: LoaderView) -> bool:
    return of_peft(view) or view.format == "gguf"


def _takes(view: LoaderView) -> Taken:
    """Follow its converter, and its library where there is nothing to convert."""
    found = view.first(*PEFT_WEIGHTS) or tuple(view.ending(".gguf")[:1])
    return found, "" if found else f"finds no {' or '.join(PEFT_WEIGHTS)} and no GGUF"


LOADER = Loader(
    "llamacpp",
    _problems,
    scaling=alpha_over_tensor,
    divides_by_tensor=True,
    reads=_reads,
    takes=_takes,
    formats=("peft", "gguf"),
    seen=("0.5.0",),
    how="library and converter were run",
    notes=_notes,
    missing=("fails", "cannot convert them"),
    renamed=("unknown", "maps names by a table for each model, which was not tried"),
    tied_head=("fails", "finds no output layer of its own (read in the source of the library)"),
)
