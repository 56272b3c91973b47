"""SGLang 0.5.23: joins projections while loading, and stops where parts of them are missing.

It goes by the number of the layer and the projection in a key, whatever stands before them. Its loading code was run as
far as the buffers of a Llama's layers, which the first request fills; what is said of other models was read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from s3lora.adapter.loaders.base import Loader, alpha_over_r
from s3lora.adapter.loaders.folder import LoaderView, Taken
from s3lora.adapter.loaders.problems import (
    MERGE,
    SAVED_ALONG,
    Problem,
    activated,
    changed_at_load,
    dora,
    fused_experts,
    lacking,
    more_layers,
    not_peft,
    others_of,
    replicated,
    some,
    tensors,
    unseen_layers,
)
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.errors import printable

#: What SGLang leaves out of the files of torch.
_SKIPS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
#: Texts that it takes for `target_modules`.
_ALL = ("all", "all-linear")
#: Projections that become one: where some are missing, it stops at the others.
FAMILIES = (
    ("in_proj_q", "in_proj_k", "in_proj_v", "in_proj_z"),
    ("in_proj_qkv", "in_proj_z"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
)
#: Of Mamba: `gate_proj` belongs to `x_proj` where a layer has it, and to `up_proj` elsewhere.
MAMBA = ("gate_proj", "x_proj")
#: Projection → what it is a part of, and experts of the same.
JOINED = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    **dict.fromkeys(("gate_proj", "up_proj", "w1", "w3"), "gate_up_proj"),
    **dict.fromkeys(("q_a_proj", "kv_a_proj_with_mqa"), "fused_qkv_a_proj_with_mqa"),
    "w2": "down_proj",
}
#: Projections that it has sizes for, whatever the model.
KNOWN = frozenset(
    (
        *(
            "q_proj",
            "k_proj",
            "v_proj",
            "qkv_proj",
            "o_proj",
            "out_proj",
            "gate_proj",
            "up_proj",
            "gate_up_proj",
            "down_proj",
        ),
        *("w1", "w2", "w3", "x_proj", "in_proj", "in_proj_q", "in_proj_k", "in_proj_v", "in_proj_z"),
        *("in_proj_qkvz", "q_a_proj", "kv_a_proj_with_mqa", "q_b_proj", "kv_b_proj", "fused_qkv_a_proj_with_mqa"),
        *("embed_tokens", "lm_head"),
    )
)
_LAYER = re.compile(r"layers\.\d+\.")
_NEEDED = ("r", "lora_alpha", "target_modules")


def takes(view: LoaderView) -> Taken:
    """Follow the default loader of SGLang 0.5.23: all files of the first kind of which there is one."""
    index = "model.safetensors.index.json" in view.names
    for suffix in (".safetensors", ".bin", ".pt"):
        found = [name for name in view.ending(suffix) if not name.startswith(".") and name not in _SKIPS]
        if found:
            several = len(found) > 1
            note = f"takes every {suffix} file, the last of two tensors with one name" if several else ""
            return tuple(found), "takes those that model.safetensors.index.json names" if index and several else note
    return (), "finds no .safetensors, .bin or .pt file"


def _problems(adapter: Adapter) -> Iterator[Problem]:
    foreign = [*not_peft(adapter)]
    yield from foreign or lacking(adapter, *_NEEDED)
    if foreign:
        return
    yield from dora(adapter)
    targets = (adapter.config or {}).get("target_modules")
    if isinstance(targets, str) and targets not in _ALL:
        what = "has a regular expression in target_modules, which it rejects"
        yield Problem(what, "list the names in adapter_config.json", mends=())
    yield from _ranks(adapter)
    yield from _incomplete(adapter)
    yield from _unnamed(adapter)
    yield from _dropped(adapter)
    if experts := fused_experts(adapter):
        what = "holds the fused experts of `target_parameters`, of which nobody has seen what it makes"
        yield Problem(what, "store each expert by itself", "unknown", experts)
    yield from unseen_layers(adapter, KNOWN, "which it takes for models alone that define them", known=True)
    yield from activated(adapter, "other")
    yield from replicated(adapter, "fails" if more_layers(adapter) else "other")
    yield from changed_at_load(adapter)


def _ranks(adapter: Adapter) -> Iterator[Problem]:
    """Yield a problem unless every module has the rank `r`: it asserts that the shapes are of it."""
    given = (adapter.config or {}).get("r")
    if wrong := [module for module in adapter.modules if module.rank != given]:
        rank, path = printable(given, 40), some([wrong[0].path])
        what = f"has modules of another rank than r = {rank}, and it stops at their shapes: {path}"
        fix = "pad lora_A and lora_B with zeros to one rank, which changes nothing"
        # Of modules of one rank, the scaling says what `prune` has to do: baking it sets `r` right.
        one = len({module.rank for module in adapter.modules}) == 1
        paths = tuple(module.path for module in wrong)
        yield Problem(what, fix, modules=paths, mends=(), told="check" if one else "both")


def _layers(adapter: Adapter) -> list[dict[str, str]]:
    """Return the paths of the modules of each parent by their last name."""
    layers: dict[str, dict[str, str]] = defaultdict(dict)
    for module in adapter.modules:
        parent, _, name = module.path.rpartition(".")
        layers[parent][name] = module.path
    return list(layers.values())


def _incomplete(adapter: Adapter) -> Iterator[Problem]:
    """Yield the modules at which it stops, since projections that it joins with them are missing."""
    stops: list[str] = []
    for names in _layers(adapter):
        if "q_proj" in names and "v_proj" not in names and "kv_a_proj_with_mqa" not in names:
            stops.append(names["q_proj"])
        if "q_proj" not in names:
            stops += [names[name] for name in ("k_proj", "v_proj") if name in names]
        stops += [names[name] for name in ("up_proj", "x_proj") if name in names and "gate_proj" not in names]
        for family in FAMILIES:
            there = [name for name in family if name in names]
            if there and len(there) < len(family) and not _of_another(family, names):
                stops += [names[name] for name in there]
    if stops:
        what = f"lacks projections that it joins with others, at which it stops: {some(stops)}"
        yield Problem(what, "add the missing modules with lora_B = 0, which changes nothing", modules=tuple(stops))


def _targets(adapter: Adapter) -> set[str]:
    """Return the projections that `target_modules` names, joined; all that it knows where that is a text."""
    targets = (adapter.config or {}).get("target_modules")
    given = [str(name).rpartition(".")[2] for name in targets] if isinstance(targets, list) else KNOWN
    return {JOINED.get(name, name) for name in given}


def _unnamed(adapter: Adapter) -> Iterator[Problem]:
    """Yield the modules of layers that `target_modules` does not name, at which it stops."""
    targets = _targets(adapter)
    unnamed = [
        one.path
        for one in adapter.modules
        if one.layer is not None
        and one.group is None
        and not _named(f"{one.path}.".replace(f".{one.projection}.", f".{_whole(one)}."), targets)
    ]
    if unnamed:
        what = f"has {some(unnamed)}, which `target_modules` does not name, and it stops"
        yield Problem(what, "name it in `target_modules`", modules=tuple(unnamed))


def _whole(module: LoraModule) -> str:
    return JOINED.get(module.projection, module.projection)


def _named(name: str, targets: set[str]) -> bool:
    """Return whether a name holds one of these: it goes by that."""
    return any(target in name for target in targets)


def _of_another(family: tuple[str, ...], names: dict[str, str]) -> bool:
    """Return whether the parts belong to another family, which is complete: `in_proj_z` stands in two."""
    there = {name for name in family if name in names}
    return any(there < set(other) and names.keys() >= set(other) for other in FAMILIES if other != family) or (
        there == {"in_proj_z"} and bool(names.keys() & {"in_proj_q", "in_proj_k", "in_proj_v", "in_proj_qkv"})
    )


def _dropped(adapter: Adapter) -> Iterator[Problem]:
    """Yield what it never stores, and says nothing of; of a layer, it stops at what no target names."""
    names = [tensor.name for tensor in others_of(adapter) if not tensor.name.endswith(SAVED_ALONG)]
    stray = [name for name in names if _LAYER.search(name) and _strays(name, names, _targets(adapter))]
    if stray:
        what = f"holds {tensors(stray)} of no module that it fills ({some(stray)}), at which it stops"
        yield Problem(what, MERGE, mends=("all",))
    if others := [name for name in names if name not in stray]:
        what = f"holds {tensors(others)} that it drops with no word ({some(others)})"
        yield Problem(what, MERGE, "other")
    targets = (adapter.config or {}).get("target_modules")
    named = {str(name).rpartition(".")[2] for name in targets} if isinstance(targets, list) else set()
    ends = ("embed_tokens", "lm_head")
    if lost := [
        one.path for one in adapter.modules if one.projection in ends and named and one.projection not in named
    ]:
        what = f"has {some(lost)}, which `target_modules` does not name, and it drops it with no word"
        yield Problem(what, "name it in `target_modules`", "other", tuple(lost))


def _strays(name: str, names: list[str], targets: set[str]) -> bool:
    """Return whether a tensor of a layer is left over when it has joined the parts of projections."""
    part = next((part for part in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj") if f".{part}." in name), None)
    if part is None:
        return not _named(name, targets)

    def has(other: str) -> bool:
        return name.replace(f".{part}.", f".{other}.") in names

    stays = (
        part == "gate_proj" or has("gate_proj") if part in ("gate_proj", "up_proj") else has("q_proj") and has("v_proj")
    )
    return not (stays and JOINED[part] in targets)


def _needed(adapter: Adapter, removed: set[str]) -> dict[str, str]:
    """Return v and gate where q and up stay, q where k or v stays, and the rest of every set that is fused."""
    needed: list[str] = []
    for names in _layers(adapter):
        stay = {name for name, path in names.items() if path not in removed}
        leave = names.keys() - stay
        if "q_proj" in leave and stay & {"k_proj", "v_proj"}:
            needed.append(names["q_proj"])
            stay.add("q_proj")
        if "v_proj" in leave and "q_proj" in stay:
            needed.append(names["v_proj"])
        mamba = "x_proj" in names
        if "gate_proj" in leave and "up_proj" in stay and not mamba:
            needed.append(names["gate_proj"])
        for family in (*FAMILIES, *((MAMBA,) if mamba else ())):
            if stay.intersection(family):
                needed += [names[name] for name in family if name in leave]
    return dict.fromkeys(needed, "is fused with its neighbours by SGLang")


LOADER = Loader(
    "sglang",
    _problems,
    _needed,
    scaling=alpha_over_r,
    one_rank=True,
    lists_targets=True,
    takes=takes,
    seen=("0.5.23",),
    how="its adapter-loading code was run",
    missing=("fails", "stops at layers and projections that the model has not"),
    by_layer=True,
    cuts=frozenset(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")),
    more_words="takes no adapter that adds words",
)
