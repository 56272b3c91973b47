"""SGLang 0.5.23: fuses q, k, v and gate, up while loading, and fails where certain parts are missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from s3lora.adapter.model import Adapter
from s3lora.rewrite.loaders.base import Loader, Problem, dora, not_peft, trained_bias


def _problems(adapter: Adapter) -> Iterator[Problem]:
    yield from not_peft(adapter)
    yield from dora(adapter)
    yield from trained_bias(adapter)
    if isinstance((adapter.config or {}).get("target_modules"), str):
        what = "has a regular expression in target_modules, which it rejects"
        yield what, "list the names in adapter_config.json"


def _needed(adapter: Adapter, removed: set[str]) -> dict[str, str]:
    """Return v and gate where q and up stay, and q where k or v stays."""
    layers: dict[str, dict[str, str]] = defaultdict(dict)
    for module in adapter.modules:
        parent, _, name = module.path.rpartition(".")
        layers[parent][name] = module.path
    needed = []
    for names in layers.values():
        stay = {name for name, path in names.items() if path not in removed}
        leave = names.keys() - stay
        if "q_proj" in leave and stay & {"k_proj", "v_proj"}:
            needed.append(names["q_proj"])
            stay.add("q_proj")
        if "v_proj" in leave and "q_proj" in stay:
            needed.append(names["v_proj"])
        if "gate_proj" in leave and "up_proj" in stay:
            needed.append(names["gate_proj"])
    return dict.fromkeys(needed, "is fused with its neighbours by SGLang")


LOADER = Loader("sglang", _problems, _needed, one_rank=True)
