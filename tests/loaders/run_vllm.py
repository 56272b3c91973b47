"""Load adapters with vLLM's own code, and give ΔW of each layer of a Llama as its buffers then hold it.

The sources lie unpacked in the folder `sources`. What runs is vLLM's: the reading of the configuration and its check,
the reading of the tensors, the packing of q, k, v and of gate, up, and the copying into the buffers of its LoRA layers.
The layers of the base are stand-ins that only have a shape; no kernel runs.
"""

from __future__ import annotations

import ast
import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from layers import EMBEDDING, LINEAR, Llama, LogitsProcessor, NoExperts, divide, no
from stand_ins import install
from torch import nn
from worker import serve

#: The highest rank that `--max-lora-rank` takes.
RANK = 512
#: Words that an adapter could add before 0.12.
EXTRA = 256
#: Classes of a model that is no language model; layers of which each row is a word.
LABELS, WORDY = 2, ("embed_tokens", "lm_head")
PARTS_NEW = ("lora_model", "lora_weights", "peft_helper", "model_manager", "worker_manager", "utils", "request")
PARTS_OLD = ("models", "lora", "peft_helper", "worker_manager", "utils", "request", "layers")


class LRUCache(dict):  # type: ignore[type-arg]
    """Room for every adapter that is asked for."""

    def __init__(self, *_given: Any) -> None:
        super().__init__()

    @property
    def cache(self) -> LRUCache:
        return self

    def touch(self, _key: int) -> None: ...


def classifies(model: Any) -> bool:
    """Return whether a model gives classes and no tokens."""
    return hasattr(model, "score")


GIVEN: dict[str, dict[str, Any]] = {
    "vllm.model_executor.layers.linear": LINEAR,
    "vllm.model_executor.layers.vocab_parallel_embedding": EMBEDDING,
    "vllm.model_executor.layers.logits_processor": {"LogitsProcessor": LogitsProcessor},
    "vllm.model_executor.layers.fused_moe": {"MoERunner": NoExperts, "FusedMoE": NoExperts},
    "vllm.model_executor.models.utils": {"PPMissingLayer": type("PPMissingLayer", (nn.Module,), {})},
    "vllm.model_executor.models": {"SupportsLoRA": object, "supports_multimodal": no, "is_pooling_model": classifies},
    "vllm.model_executor.models.interfaces": {"is_pooling_model": no},
    "vllm.model_executor.utils": {"get_packed_modules_mapping": lambda model: dict(model.packed_modules_mapping)},
    "vllm.model_executor.custom_op": {"maybe_get_oot_by_class": lambda one: one},
    "vllm.distributed.utils": {"divide": divide},
    "vllm.distributed": {
        "get_tensor_model_parallel_world_size": lambda: 1, "get_tensor_model_parallel_rank": lambda: 0,
    },
    "vllm.utils": {"is_pin_memory_available": no, "LRUCache": LRUCache},
    "vllm.utils.cache": {"LRUCache": LRUCache},
    "vllm.utils.gpu_sync_debug": {"gpu_sync_allowed": contextlib.nullcontext},
    "vllm.utils.torch_utils": {"PIN_MEMORY": False},
}  # fmt: skip


def real(sources: Path, old: bool) -> list[str]:
    """Return the names of the modules that run as they are."""
    found = ["vllm.lora", *(f"vllm.lora.{one}" for one in (PARTS_OLD if old else PARTS_NEW))]
    if old:
        names = ("models", "utils", "request", "worker_manager", "layers")
        return [*found, "vllm.adapter_commons", *(f"vllm.adapter_commons.{one}" for one in names)]
    layers = sorted(one.stem for one in (sources / "vllm/lora/layers").glob("*.py"))
    return [*found, "vllm.lora.layers", *(f"vllm.lora.layers.{one}" for one in layers if one != "__init__")]


def of_llama(sources: Path, name: str) -> Any:
    """Return a literal of vLLM's class for Llama."""
    tree = ast.parse((sources / "vllm/model_executor/models/llama.py").read_text())
    model = next(one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == "LlamaForCausalLM")
    for one in model.body:
        if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name) and one.targets[0].id == name:
            return ast.literal_eval(one.value)
    raise LookupError(name)


def manager(model: Llama, config: dict[str, Any], old: bool) -> Any:
    """Return vLLM's worker manager, as `--enable-lora --max-lora-rank 512` has it, after it has wrapped the model."""
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager as Worker

    given = SimpleNamespace(
        max_lora_rank=RANK, max_loras=1, max_cpu_loras=1, fully_sharded_loras=False, lora_dtype=torch.float32,
        target_modules=None, lora_extra_vocab_size=EXTRA, lora_vocab_padding_size=256, bias_enabled=False,
        enable_mixed_moe_lora_format=False, enable_moe_shared_loras=False, enable_tower_connector_lora=False,
        max_lora_cls_labels=None,
    )  # fmt: skip
    words, device = config["vocab_size"], torch.device("cpu")
    if old:
        padding = list(model.embedding_padding_modules)
        worker = Worker(1, 8, words, given, device, model.embedding_modules, padding, max_position_embeddings=4096)
        worker.create_lora_manager(model)
        return worker
    inner = SimpleNamespace(get_text_config=lambda: SimpleNamespace(**config))
    whole = SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_seqs=1, max_num_batched_tokens=8),
        model_config=SimpleNamespace(
            get_vocab_size=lambda: words, is_encoder_decoder=False, hf_config=inner,
            get_pooling_task=lambda tasks: "classify",
        ),
        parallel_config=SimpleNamespace(enable_expert_parallel=False),
        lora_config=given,
    )  # fmt: skip
    worker = Worker(whole, device, model.embedding_modules)
    worker.create_lora_manager(model, whole)
    return worker


def held(layers: dict[str, Any], packed: dict[str, list[str]], words: int) -> dict[str, Any]:
    """Return ΔW = B·A by the path that each part has in a checkpoint, and the head that an adapter brings."""
    found = {}
    for path, layer in layers.items():
        if getattr(layer, "full_module_enabled", [False])[0]:
            found[f"{path}.weight"] = layer.full_weight_stacked[0, 0].numpy()
        if path == "score":
            continue
        parent, _, name = path.rpartition(".")
        pairs = (layer.lora_a_stacked, layer.lora_b_stacked)
        first, second = (one if isinstance(one, tuple) else (one,) for one in pairs)
        for part, a, b in zip(packed.get(name, [name]), first, second, strict=True):
            A, B = (one[0].reshape(one.shape[-2:]).double() for one in (a, b))
            # The A of embeddings is kept as a table of words. There may be room for more words.
            update = A @ B.T if name == "embed_tokens" else B @ A
            found[f"{parent}.{part}" if parent else part] = update[:words].numpy() if name in WORDY else update.numpy()
    return found


def job(given: Any, one: Any) -> tuple[Any, Any]:
    sources, config = Path(given["sources"]), json.loads(Path(given["base"], "config.json").read_text())
    old = not (sources / "vllm/lora/lora_model.py").exists()
    install(sources, ("vllm", "triton"), real(sources, old), GIVEN)
    packed, embeddings = of_llama(sources, "packed_modules_mapping"), of_llama(sources, "embedding_modules")
    model = Llama(config, packed, embeddings, EXTRA if old else 0)
    asked = Path(one["adapter"], "adapter_config.json")
    if not old and asked.exists() and json.loads(asked.read_text()).get("task_type") == "SEQ_CLS":
        model.classify(LABELS)
    worker = manager(model, config, old)
    request = SimpleNamespace(
        lora_name="adapter", lora_int_id=1, adapter_id=1, lora_path=one["adapter"], tensorizer_config_dict=None,
        is_3d_lora_weight=False, load_inplace=False,
    )  # fmt: skip
    worker.add_adapter(request)
    return held(worker._adapter_manager.modules, packed, config["vocab_size"]), {}


serve(job)
