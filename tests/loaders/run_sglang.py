"""Load adapters with SGLang's own code, and give ΔW of each layer of a Llama as its buffers then hold it.

The sources lie unpacked in the folder `sources`. What runs is SGLang's: what `--lora-paths` does at a start
(configuration, files, joining of projections, check of targets), and what the first request does, which copies the
tensors into the buffers of its LoRA layers. The layers of the base are stand-ins that only have a shape; no kernel
runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from layers import EMBEDDING, LINEAR, Llama, NoExperts, divide, no
from stand_ins import Anything, install
from torch import nn
from transformers import LlamaConfig
from worker import serve

#: What a Llama's projections are called together in SGLang, and their parts in a checkpoint.
PACKED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
REAL = (
    *(f"sglang.srt.lora{end}" for end in (".lora", ".lora_config", ".lora_manager", ".lora_registry", ".mem_pool")),
    *(f"sglang.srt.lora.{end}" for end in ("utils", "layers", "eviction_policy")),
    *("sglang.srt.layers.utils", "sglang.srt.layers.utils.common", "sglang.srt.configs.load_config"),
    *("sglang.srt.model_loader.loader", "sglang.srt.model_loader.weight_utils"),
)


class Backend:
    """Where SGLang's kernels would be; loading asks it for nothing but its name."""

    name, skip_inactive_lora_batches, skip_inactive_dense_lora = "none", False, False
    supports_dp_attention = is_moe_lora = False

    def __init__(self, **_given: Any) -> None: ...

    def validate_lora_targets(self, **_given: Any) -> None: ...


def settings(**given: Any) -> Any:
    """Return a function that returns what a server was started with."""
    return lambda: SimpleNamespace(**given)


def group(given: Any) -> tuple[int, int]:
    """Return the place among several devices: the only one."""
    return 0, 1


def replace_submodule(model: nn.Module, path: str, layer: nn.Module) -> nn.Module:
    """Put a layer into the place of another."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, layer)
    return layer


class Variable(Anything):
    """A variable of the environment that is not set."""

    def get(self) -> Any:
        return False


class Variables:
    """The variables of the environment; weight files are sorted, as by default."""

    SGLANG_SORT_WEIGHT_FILES = SimpleNamespace(get=lambda: 0)

    def __getattr__(self, _name: str) -> Any:
        return Variable()


PARALLEL = settings(
    tp_size=1, tp_rank=0, attn_tp_size=1, attn_dp_enabled=False, attn_cp_size=1, moe_ep_size=1, moe_ep_rank=0,
    moe_tp_size=1, moe_tp_rank=0, dcp_replicate_q_proj=False,
)  # fmt: skip
LORA = settings(
    enable_lora_overlap_loading=False, lora_eviction_policy="lru", experts_shared_outer_loras=None,
    lora_use_virtual_experts=False, lora_strict_loading=False, max_loras_per_batch=2,
)  # fmt: skip
MODEL = settings(
    model_checksum=None, weight_loader_disable_mmap=False, weight_loader_prefetch_checkpoints=False,
    weight_loader_prefetch_num_threads=1, weight_loader_drop_cache_after_load=False,
)  # fmt: skip
GIVEN: dict[str, dict[str, Any]] = {
    "sglang.srt.layers.linear": LINEAR,
    "sglang.srt.layers.vocab_parallel_embedding": EMBEDDING,
    "sglang.srt.layers.moe.fused_moe_triton.layer": {"FusedMoE": NoExperts},
    "sglang.srt.models.inkling_common.dense_mlp": {"InklingBatchDenseMLP": NoExperts},
    "sglang.srt.distributed": {"divide": divide},
    "sglang.srt.distributed.utils": {"get_group_rank_size": group},
    "sglang.srt.environ": {"envs": Variables()},
    "sglang.srt.runtime_context": {
        "get_parallel": PARALLEL, "get_lora": LORA, "get_model": MODEL, "get_server_args": no,
        "get_spec": settings(speculative_algorithm=None),
    },
    "sglang.srt.lora.backend.lora_registry": {"get_backend_from_name": lambda name: Backend},
    "sglang.srt.managers.io_struct": {"LoRAUpdateOutput": SimpleNamespace},
    "sglang.srt.utils": {
        "replace_submodule": replace_submodule, "is_pin_memory_available": no, "is_hip": no,
        "ConcurrentCounter": SimpleNamespace,
    },
    "sglang.utils": {"is_in_ci": no},
}  # fmt: skip


def without_pinning() -> None:
    """Let tensors be made and kept where there is no accelerator to pin them for."""
    plain = torch.tensor
    torch.tensor = lambda *given, pin_memory=False, **named: plain(*given, **named)
    torch.Tensor.pin_memory = lambda self, *_given: self  # type: ignore[method-assign,assignment]


def manager(model: Llama, config: dict[str, Any], name: str, folder: str) -> Any:
    """Return SGLang's manager after a server's start with `--lora-paths`, and after the first request."""
    from sglang.srt.configs.load_config import LoadConfig
    from sglang.srt.lora.lora_manager import LoRAManager
    from sglang.srt.lora.lora_registry import LoRARef

    base, reference = LlamaConfig(**config), LoRARef(lora_name=name, lora_path=folder, lora_id=name, pinned=False)
    found = LoRAManager(model, base, 2, LoadConfig(), torch.float32, None, "none", lora_paths=[reference])
    found.fetch_new_loras({name})
    return found


def held(found: Any, name: str) -> dict[str, Any]:
    """Return scaling times B·A by the path that each part has in a checkpoint."""
    pool, adapter = found.memory_pool, found.loras[name]
    slot, rank, scaling = pool.uid_to_buffer_id[name], adapter.config.r, adapter.scaling
    updates = {}
    for layers in found.lora_modules:
        for path, layer in layers.items():
            parent, _, whole = path.rpartition(".")
            A, B, at = layer.lora_a[slot].double(), layer.lora_b[slot].double(), layer.lora_offsets
            for i, part in enumerate(PACKED.get(whole, [whole])):
                rows = B[at[i] : at[i + 1], :rank] if whole in PACKED else B[:, :rank]
                updates[f"{parent}.{part}"] = (scaling * rows @ A[i * rank : (i + 1) * rank]).numpy()
    for where, kept in (("model.embed_tokens", "embedding"), ("lm_head", "lm_head")):
        first, second = (getattr(pool, f"{kept}_{letter}_buffer") for letter in "AB")
        for key in first:
            update = scaling * second[key][slot].double()[:, :rank] @ first[key][slot].double()[:rank]
            updates[where] = (update.T if kept == "embedding" else update).numpy()
    return updates


def job(given: Any, one: Any) -> tuple[Any, Any]:
    install(Path(given["sources"]), ("sglang", "triton", "orjson"), REAL, GIVEN)
    config = json.loads(Path(given["base"], "config.json").read_text())
    found = manager(Llama(config, PACKED, {}), config, "adapter", one["adapter"])
    return held(found, "adapter"), {}


without_pinning()
serve(job)
