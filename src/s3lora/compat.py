"""What each loader accepts: checks before pruning for it, and the modules it must still find.

The facts are read from the loaders' sources (PEFT 0.14 to 0.21, vLLM, SGLang 0.5.23, llama.cpp's
`convert_lora_to_gguf.py`) and kept in `docs/loaders.md`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

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
        # Some releases of vLLM read the patterns; none of them minds a uniform scaling.
        problems.append(("scales modules by use_rslora or patterns, which it ignores", "add --bake-scaling"))
    if problems:
        what, fix = problems[0]
        raise UnsupportedAdapterError(f"{compat} cannot load this adapter: it {what}", file=adapter.name, fix=fix)


def _problems(adapter: Adapter, compat: Compat) -> list[tuple[str, str]]:
    config = adapter.config or {}
    found = []
    if adapter.format != "peft" or adapter.config is None:
        found.append(("is no PEFT adapter with an adapter_config.json", "convert it to PEFT's format first"))
    if any(module.dora for module in adapter.modules):
        found.append(("uses DoRA, which it rejects", "merge it into the base model instead"))
    if compat in ("vllm", "sglang") and (config.get("lora_bias") or config.get("bias") not in (None, "none")):
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
    """Return which of the `removed` paths must stay as zero tensors, with the reason.

    Experts that share tensors can only leave together; some formats' loaders read every module; and SGLang fuses
    q, k, v and gate, up, and fails where v or gate is missing beside q or up, or q beside k or v.
    """
    zeros: dict[str, str] = {}
    groups: dict[str, list[str]] = defaultdict(list)
    for module in adapter.modules:
        if module.group is not None:
            groups[module.group].append(module.path)
    for paths in groups.values():
        if not removed.issuperset(paths):
            zeros.update((path, "shares its tensors with experts that stay") for path in paths if path in removed)
    if not adapter.removable:
        zeros.update((path, f"{adapter.format} loaders read every module") for path in removed)
    if compat == "sglang":
        zeros.update((path, "SGLang fuses it with its neighbours") for path in _sglang(adapter, removed))
    return zeros


def _sglang(adapter: Adapter, removed: set[str]) -> set[str]:
    layers: dict[str, dict[str, str]] = defaultdict(dict)
    for module in adapter.modules:
        parent, _, name = module.path.rpartition(".")
        layers[parent][name] = module.path
    needed = set()
    for names in layers.values():

        def stays(name: str, names: dict[str, str] = names) -> bool:
            return name in names and names[name] not in removed

        def leaves(name: str, names: dict[str, str] = names) -> bool:
            return name in names and names[name] in removed

        if leaves("v_proj") and stays("q_proj"):
            needed.add(names["v_proj"])
        if leaves("q_proj") and (stays("k_proj") or stays("v_proj")):
            needed.add(names["q_proj"])
        if leaves("gate_proj") and stays("up_proj"):
            needed.add(names["gate_proj"])
    return needed
