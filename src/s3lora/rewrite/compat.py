"""What each loader accepts: checks before pruning for it, and the modules it must still find.

The facts are read from the loaders' sources (PEFT 0.14 to 0.21, vLLM, SGLang 0.5.23, llama.cpp's
`convert_lora_to_gguf.py`) and kept in `docs/loaders.md`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

from s3lora.adapter.formats.peft import PREFIX
from s3lora.adapter.model import Adapter
from s3lora.adapter.peft_config import has_patterns
from s3lora.errors import UnsupportedAdapterError

Compat = Literal["peft", "vllm", "sglang", "llamacpp"]
COMPATS: tuple[Compat, ...] = ("peft", "vllm", "sglang", "llamacpp")


def check_loader(adapter: Adapter, compat: Compat, *, bake: bool) -> None:
    """Raise UnsupportedAdapterError if the loader would reject or misread this adapter, pruned or not."""
    if compat == "peft":
        return
    config = adapter.config or {}
    problems = _problems(adapter, compat)
    if not bake and has_patterns(config) and compat in ("sglang", "llamacpp", "vllm"):
        what = "scales modules by use_rslora or patterns, which not every release of it reads"
        problems.append((what, "add --bake-scaling"))
    if problems:
        problem, fix = problems[0]
        raise UnsupportedAdapterError(f"{compat} cannot load this adapter: it {problem}", file=adapter.name, fix=fix)


def _problems(adapter: Adapter, compat: Compat) -> list[tuple[str, str]]:
    config = adapter.config or {}
    found = []
    if adapter.format != "peft" or adapter.config is None:
        found.append(("is no PEFT adapter with an adapter_config.json", "convert it to PEFT's format first"))
    if any(module.dora for module in adapter.modules):
        found.append(("uses DoRA, which it rejects", "merge it into the base model instead"))
    # Of `bias`, llama.cpp minds the tensors only, which are looked for below.
    if config.get("lora_bias") or (compat != "llamacpp" and config.get("bias") not in (None, "none")):
        found.append(("trains bias vectors, which it rejects", "merge it into the base model instead"))
    if compat == "sglang" and isinstance(config.get("target_modules"), str):
        found.append(
            ("has a regular expression in target_modules, which it rejects", "list the names in adapter_config.json")
        )
    if compat in ("vllm", "llamacpp") and adapter.other_tensors:
        found.append(
            (
                f"holds {len(adapter.other_tensors)} tensors that are no LoRA factors ({adapter.other_tensors[0]}, …)",
                "merge it into the base model instead",
            )
        )
    if compat == "llamacpp" and any(module.kind == "embedding" for module in adapter.modules):
        found.append(("holds embedding LoRA, which it rejects", "merge it into the base model instead"))
    if compat == "llamacpp" and adapter.base_model is None:
        found.append(("has no base_model_name_or_path", "write it into adapter_config.json"))
    return found


def kept_as_zeros(adapter: Adapter, removed: set[str], compat: Compat) -> dict[str, str]:
    """Return which of the `removed` paths must stay as zero tensors, with the reason (said of "it").

    Experts that share tensors, or that a loader stacks into one, can only leave together; a base layer's tensor that
    was saved under the wrapped module's name is found only while the module is wrapped; some formats' loaders read
    every module; and SGLang fuses q, k, v and gate, up, and fails where v or gate is missing beside q or up, or q
    beside k or v.
    """
    zeros: dict[str, str] = {}
    if not adapter.removable:
        zeros.update((path, f"is needed by loaders of {adapter.format}, which read them all") for path in removed)
    zeros.update((path, "shares its tensors with experts that stay") for path in _shared(adapter, removed))
    zeros.update(
        (path, "is an expert that newer loaders stack with those that stay") for path in _stacked(adapter, removed)
    )
    wrapped = {name.rpartition(".base_layer.")[0].removeprefix(PREFIX) for name in adapter.other_tensors}
    zeros.update((path, "holds a tensor of its base layer, which would be lost") for path in removed & wrapped)
    if compat == "sglang":
        gone = removed - zeros.keys()
        zeros.update((path, "is fused with its neighbours by SGLang") for path in _sglang(adapter, gone))
    return zeros


def _shared(adapter: Adapter, removed: set[str]) -> set[str]:
    groups: dict[str, set[str]] = defaultdict(set)
    for module in adapter.modules:
        if module.group is not None:
            groups[module.group].add(module.path)
    return {path for paths in groups.values() if not paths <= removed for path in paths & removed}


def _stacked(adapter: Adapter, removed: set[str]) -> set[str]:
    """Return the removed experts with tensors of their own, unless all of the adapter's experts go.

    From transformers 5 on, PEFT stacks them into one parameter: it fails if one expert is missing, and cannot leave
    one layer out, since its configuration names the stacked parameter of all layers.
    """
    experts = {module.path for module in adapter.modules if module.expert is not None and module.group is None}
    by_name = isinstance((adapter.config or {}).get("target_modules"), list)
    return set() if by_name and experts <= removed else experts & removed


def _sglang(adapter: Adapter, removed: set[str]) -> set[str]:
    layers: dict[str, dict[str, str]] = defaultdict(dict)
    for module in adapter.modules:
        parent, _, name = module.path.rpartition(".")
        layers[parent][name] = module.path
    needed = set()
    for names in layers.values():
        stay = {name for name, path in names.items() if path not in removed}
        leave = names.keys() - stay
        if "q_proj" in leave and stay & {"k_proj", "v_proj"}:
            needed.add(names["q_proj"])
            stay.add("q_proj")
        if "v_proj" in leave and "q_proj" in stay:
            needed.add(names["v_proj"])
        if "gate_proj" in leave and "up_proj" in stay:
            needed.add(names["gate_proj"])
    return needed
