"""`ensure_weight_tying`: PEFT makes one update of those of embeddings and output layer, and so is told and written."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from s3lora import UnsupportedAdapterError, check, open_adapter
from tests.peft_models import INPUT, LLAMA, peft, torch, transformers
from tests.planning import prune_to, tensors_of
from tests.support import write_safetensors

READ, WRITTEN, QUERY = "model.embed_tokens", "lm_head", "model.layers.0.self_attn.q_proj"
pytestmark = pytest.mark.filterwarnings("ignore")


def model() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(num_hidden_layers=1, tie_word_embeddings=True, **LLAMA)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter that names the embeddings alone, and holds both."""
    config = peft.LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True)
    adapted = peft.get_peft_model(model(), config)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    return tmp_path / "adapter"


def outputs(folder: Path) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(model(), str(folder)).eval()(INPUT).logits


def test_the_output_layer_is_loaded_though_nothing_names_it(folder: Path) -> None:
    with open_adapter(folder) as adapter:
        assert {module.path for module in adapter.modules} == {READ, WRITTEN, QUERY}
        assert not adapter.inventory.unapplied
        assert any("ensure_weight_tying" in warning for warning in adapter.warnings)
    assert check(folder, loaders=["peft"])["peft"].verdict == "same"


@pytest.mark.parametrize("half", [READ, WRITTEN])
def test_half_of_it_is_not_pruned_since_peft_would_load_both(folder: Path, half: str, tmp_path: Path) -> None:
    before = outputs(folder)
    with pytest.raises(UnsupportedAdapterError, match="choose both or neither"):
        prune_to(folder, tmp_path / "out", [half])
    left = {name: tensor for name, tensor in tensors_of(folder).items() if f"{half}." not in name}
    write_safetensors(folder / "adapter_model.safetensors", left, {"format": "pt"})
    assert torch.equal(outputs(folder), before)


def test_both_are_pruned_together(folder: Path, tmp_path: Path) -> None:
    prune_to(folder, tmp_path / "both", [READ, WRITTEN])
    config = peft.LoraConfig(r=2, target_modules=["q_proj"])
    peft.get_peft_model(model(), config).save_pretrained(str(tmp_path / "query"))
    left = {name: tensor for name, tensor in tensors_of(folder).items() if "q_proj" in name}
    write_safetensors(tmp_path / "query" / "adapter_model.safetensors", left, {"format": "pt"})
    assert torch.allclose(outputs(tmp_path / "both"), outputs(tmp_path / "query"), atol=1e-6)
