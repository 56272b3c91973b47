"""Tiny random models with LoRA from PEFT itself, and the reference that a pruned adapter must equal."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from peft.tuners.lora.layer import LoraLayer  # noqa: E402

Model = Callable[[], Any]
INPUT = torch.arange(8)[None]
SIZES = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, **SIZES}


def llama() -> Any:
    """Return a Llama of 3 layers, always the same."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(num_hidden_layers=3, **LLAMA)
    return transformers.LlamaForCausalLM(config).eval()


def gpt2() -> Any:
    """Return a GPT-2 of 3 layers, whose projections are Conv1D."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=32, n_layer=3, n_head=4, n_positions=32, **SIZES)
    return transformers.GPT2LMHeadModel(config).eval()


def mixtral() -> Any:
    """Return a Mixtral of 2 layers and 4 experts."""
    torch.manual_seed(0)
    config = transformers.MixtralConfig(num_hidden_layers=2, num_local_experts=4, **LLAMA)
    return transformers.MixtralForCausalLM(config).eval()


def qwen3_moe() -> Any:
    """Return a Qwen3-MoE of 2 layers and 4 experts."""
    torch.manual_seed(0)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}
    config = transformers.Qwen3MoeConfig(num_hidden_layers=2, **experts, **LLAMA)
    return transformers.Qwen3MoeForCausalLM(config).eval()


@contextlib.contextmanager
def warnings_as_errors() -> Iterator[None]:
    """Let every warning fail, but one that PEFT 0.21 and transformers 5.23 have with each other for any adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        yield


def save(folder: Path, model: Model, **config: Any) -> Path:
    """Write the adapter of a randomly filled PEFT model and return its folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = filled(model, **config)
        wrapped.save_pretrained(folder)
    return folder


def filled(model: Model, **config: Any) -> Any:
    """Return a PEFT model whose trainable parameters are random, as if it had been trained."""
    wrapped = get_peft_model(model(), LoraConfig(**{"r": 4, "lora_alpha": 8, **config})).eval()
    random = torch.Generator().manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        noise = torch.randn(parameter.shape, generator=random)
        if "lora_magnitude" in name:
            parameter.data *= 1 + 0.2 * noise
        elif parameter.requires_grad:
            parameter.data += 0.2 * noise
    return wrapped


def load(folder: Path, model: Model, **keywords: Any) -> Any:
    """Load an adapter; any warning fails."""
    with warnings_as_errors():
        return PeftModel.from_pretrained(model(), folder, **keywords).eval()


def logits(model: Any) -> Any:
    """Return what the model makes of eight tokens."""
    with torch.no_grad():
        return model(INPUT).logits


def without(folder: Path, model: Model, paths: Collection[str]) -> Any:
    """Return the logits of the full adapter with the LoRA layers at `paths` taken out of the model by hand."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = PeftModel.from_pretrained(model(), folder).eval()
    inner = wrapped.base_model.model
    for path in paths:
        parent, _, name = path.rpartition(".")
        layer = getattr(inner.get_submodule(parent), name)
        while isinstance(layer, LoraLayer):
            layer = layer.base_layer
        setattr(inner.get_submodule(parent), name, layer)
    return logits(wrapped)


def layers(model: Any) -> set[str]:
    """Return the paths of all LoRA layers."""
    return {
        name.removeprefix("base_model.model.").removesuffix(".base_layer")
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def difference(first: Any, second: Any) -> float:
    """Return the largest difference of two outputs."""
    return float((first - second).abs().max().detach())
