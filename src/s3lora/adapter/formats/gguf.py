"""GGUF, as llama.cpp's `convert_lora_to_gguf.py` writes it: `blk.0.attn_q.weight.lora_a` (r, n) and `….lora_b` (m, r).

One alpha holds for all modules, and llama.cpp scales each by alpha over its own rank. The factors of the token
embeddings lie turned, (vocabulary, r), and those of experts are stacked, (E, r, n) and (E, m, r).

Modules get the names that Transformers has for them, where it has one name for all models of that kind. For some
architectures the converter orders the rows of q and k by pairs; that is undone where the file says how many heads there
are. Where it does not, no index is wrong, for none depends on the order of rows.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

from s3lora.adapter.formats.base import Format, Reading, StoredAdapter, check_pair, matrix, missing_half, positive
from s3lora.adapter.formats.experts import of_experts
from s3lora.adapter.formats.rows import KEY, QUERY, heads_of, unpaired
from s3lora.adapter.model import LoraModule, Scaling, natural_key, path_parts
from s3lora.adapter.tensor import Tensor
from s3lora.errors import AdapterFileError, UnsupportedAdapterError, printable

TYPE, KIND, ARCHITECTURE = "general.type", "adapter.type", "general.architecture"
ALPHA = "adapter.lora.alpha"
_KEY = re.compile(r"(?P<path>.+?)(?:\.weight)?\.lora_(?P<half>[ab])")
_BLOCK = re.compile(r"blk\.(?P<layer>\d{1,9})\.(?P<name>.+)")
_LAYER = re.compile(r"model\.layers\.(?P<layer>\d{1,9})\.(?P<name>.+)")
_EMBEDDING = "token_embd"
#: Names of llama.cpp → names of Transformers, within a layer and outside of it.
_IN_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}
#: Experts that every token takes, by what Transformers calls them: the names of llama.cpp are the same.
_SHARED = {
    **{f"mlp.shared_expert{s}.{name}_proj": f"ffn_{name}_shexp" for s in ("", "s") for name in ("gate", "up", "down")},
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}
#: Architectures with one of either name; those of others keep llama.cpp's.
_ONE, _SEVERAL = ("qwen2moe", "qwen3next"), ("deepseek", "deepseek2", "glm4moe", "dots1", "bailingmoe")
_OUTSIDE = {_EMBEDDING: "model.embed_tokens", "output": "lm_head"}
#: Architectures whose layers Transformers calls otherwise: these modules keep llama.cpp's names.
_OTHERWISE = frozenset((
    *("gpt2", "gptj", "gptneox", "falcon", "bloom", "mpt", "starcoder", "codeshell", "phi2", "bert", "nomic-bert"),
    *("mamba", "rwkv6", "chatglm", "qwen", "baichuan", "internlm2", "dbrx", "refact", "grok", "jais", "t5"),
    "t5encoder",
))  # fmt: skip
#: Architectures of which the converter orders the rows of q and k by pairs (`undo_permute`).
PAIRED = frozenset((
    *("llama", "deci", "granite", "granitemoe", "minicpm", "smollm3", "arcee", "olmo", "xverse", "baichuan"),
    "internlm2",
))  # fmt: skip


def _recognises(source: StoredAdapter) -> bool:
    return source.metadata.get(TYPE) == "adapter" or (
        ARCHITECTURE in source.metadata and any(_KEY.fullmatch(name) for name in source.tensors)
    )


def _read(source: StoredAdapter) -> Reading:
    kind = source.metadata.get(KIND, "lora")
    if kind != "lora":
        raise UnsupportedAdapterError(
            f"is a GGUF adapter of the type {printable(kind, 40)}", file=source.label, fix="s3lora reads LoRA"
        )
    halves, others = _halves(source)
    modules = [module for path, found in halves.items() for module in _modules(path, found, source)]
    ordered = tuple(sorted(modules, key=lambda module: natural_key(module.path)))
    return Reading(ordered, tuple(others), tuple(_notes(ordered, source)))


def _halves(source: StoredAdapter) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    halves: dict[str, dict[str, Tensor]] = {}
    others = []
    for name, tensor in source.tensors.items():
        match = _KEY.fullmatch(name)
        if match is None:
            others.append(name)
            continue
        found = halves.setdefault(match["path"], {})
        if match["half"] in found:
            raise AdapterFileError(f"has two lora_{match['half']} tensors", file=source.label, module=match["path"])
        found[match["half"]] = tensor
    return halves, others


def _modules(path: str, halves: Mapping[str, Tensor], source: StoredAdapter) -> list[LoraModule]:
    if len(halves) < 2:
        has, lacks = ("lora_a", "lora_b") if "a" in halves else ("lora_b", "lora_a")
        raise missing_half(path, has, lacks, source.label)
    a, b = halves["a"], halves["b"]
    place = transformers_name(path, source.metadata.get(ARCHITECTURE, ""))
    if len(b.shape) == 3:
        found = of_experts(place, a, b, Scaling(1.0, "unknown"), source.label, (), dora=False)
        rank = found[0].rank
        return [_scaled(module, _scaling(source, rank)) for module in found]
    embedding = path == _EMBEDDING
    first, second = matrix(a, source.label, transpose=embedding), matrix(b, source.label)
    check_pair(place, first, second, source.label)
    layer, projection, expert = path_parts(place)
    paired = source.metadata.get(ARCHITECTURE, "") in PAIRED and projection in (QUERY, KEY)
    heads = _heads(projection, source) if paired else None
    return [
        LoraModule(
            path=place,
            A=first,
            B=second if heads is None else unpaired(second, heads, place, source.label),
            scaling=_scaling(source, first.shape[0]),
            layer=layer,
            projection=projection,
            expert=expert,
            kind="embedding" if embedding else "linear",
            order="pairs" if paired and heads is None else "halves",
        )
    ]


def transformers_name(path: str, architecture: str) -> str:
    """Return what Transformers calls a tensor of llama.cpp, or its own name where that depends on the model.

    >>> transformers_name("blk.3.attn_q", "llama"), transformers_name("blk.3.attn_qkv", "phi3")
    ('model.layers.3.self_attn.q_proj', 'blk.3.attn_qkv')
    """
    if architecture in _OTHERWISE:
        return path
    if path in _OUTSIDE:
        return _OUTSIDE[path]
    match = _BLOCK.fullmatch(path)
    name = _IN_LAYER.get(match["name"]) or _shared(match["name"], architecture) if match else None
    return path if match is None or name is None else f"model.layers.{match['layer']}.{name}"


def _shared(name: str, architecture: str) -> str | None:
    """Return what Transformers calls a part of the shared experts in a layer, None where that is not known."""
    theirs = [long for long, short in _SHARED.items() if short == name]
    wanted = "mlp.shared_experts." if architecture in _SEVERAL else "mlp.shared_expert"
    known = architecture in (*_ONE, *_SEVERAL)
    one = (long for long in theirs if long.startswith(wanted) and (architecture in _SEVERAL or "experts" not in long))
    return next(one, None) if known else None


def llama_name(path: str) -> str | None:
    """Return what llama.cpp calls a module of Transformers, without `.weight`; None where there is no one name.

    >>> llama_name("model.layers.3.self_attn.q_proj"), llama_name("model.layers.3.mlp.fc1")
    ('blk.3.attn_q', None)
    """
    outside = next((name for name, theirs in _OUTSIDE.items() if theirs == path), None)
    match = _LAYER.fullmatch(path)
    if outside is not None or match is None:
        return outside
    name = next((name for name, theirs in _IN_LAYER.items() if theirs == match["name"]), _SHARED.get(match["name"]))
    return None if name is None else f"blk.{match['layer']}.{name}"


def _scaling(source: StoredAdapter, rank: int) -> Scaling:
    text = source.metadata.get(ALPHA)
    if text is None:
        return Scaling(1.0, "unknown")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if value == 0:
        return Scaling(1.0, "metadata")  # llama.cpp then leaves the scaling out
    return Scaling((positive({ALPHA: value}, ALPHA, source.label) or 1.0) / rank, "metadata")


def _scaled(module: LoraModule, scaling: Scaling) -> LoraModule:
    return dataclasses.replace(module, scaling=scaling)


def _heads(projection: str, source: StoredAdapter) -> int | None:
    """Return the number of heads whose rows lie in pairs, None where nothing says how many."""
    architecture = source.metadata.get(ARCHITECTURE, "")
    query = source.metadata.get(f"{architecture}.attention.head_count", "")
    text = source.metadata.get(f"{architecture}.attention.head_count_kv", query) if projection == KEY else query
    told = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    return told or heads_of(source.model, projection)


def _notes(modules: tuple[LoraModule, ...], source: StoredAdapter) -> Iterator[str]:
    if any(module.scaling.origin == "unknown" for module in modules):
        yield f"no `{ALPHA}`: the scaling is unknown and taken as 1, so magnitudes are relative"
    unnamed = source.metadata.get(ARCHITECTURE) in PAIRED
    if any(one.order == "pairs" or (unnamed and one.projection in ("attn_q", "attn_k")) for one in modules):
        yield (
            "llama.cpp orders the rows of q and k by pairs, and neither the file nor a config.json beside it says how "
            "many heads there are: no index depends on it, and comparing with an adapter in another format does"
        )


FORMAT = Format("gguf", _recognises, _read)
