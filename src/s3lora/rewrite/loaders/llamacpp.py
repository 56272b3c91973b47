"""llama.cpp: its `convert_lora_to_gguf.py` stops at every tensor that is no LoRA factor. Read in its source."""

from __future__ import annotations

from collections.abc import Iterator

from s3lora.adapter.model import Adapter
from s3lora.rewrite.loaders.base import MERGE, Loader, Problem, dora, not_peft, other_tensors, trained_bias


def _problems(adapter: Adapter) -> Iterator[Problem]:
    yield from not_peft(adapter)
    yield from dora(adapter)
    yield from trained_bias(adapter, of_base=False)  # it minds the tensors only, which are looked for next
    yield from other_tensors(adapter)
    if any(module.kind == "embedding" for module in adapter.modules):
        yield "holds embedding LoRA, which it rejects", MERGE
    if adapter.base_model is None:
        yield "has no base_model_name_or_path", "write it into adapter_config.json"


LOADER = Loader("llamacpp", _problems, divides_by_tensor=True)
