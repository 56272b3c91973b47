from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s3lora.evaluate import local
from s3lora.evaluate.chat import Generation, Prompt
from s3lora.evaluate.local import LocalModel
from tests.evaluate.local_models import ENDS, PLAIN, SHARED, answers, reference, tiny_gpt2
from tests.tiny_model import END, PAD, VOCABULARY, tiny_folder, tiny_llama, torch, transformers


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("stage", [1, 3, 8, 24, 1000])
@pytest.mark.parametrize("prompts", [PLAIN, SHARED])
def test_answers_that_have_ended_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, prompts: list[Prompt], stage: int
) -> None:
    monkeypatch.setattr(local, "STAGE", stage)
    model = LocalModel(str(tiny_folder(tmp_path / "base", model=make(), ends=ENDS)))
    generate, rows = model.adapters.model.generate, []

    def counted(**how: Any) -> Any:
        rows.append(len(how["input_ids"]))
        return generate(**how)

    monkeypatch.setattr(model.adapters.model, "generate", counted)
    found = answers(model, prompts)
    assert found == reference(model.base.model, model.base.tokenizer, prompts)
    # So many are longer than each stage begins with.
    assert rows == [n for start in range(0, 24, stage) if (n := sum(_goes_on(one, start) for one in found))]
    assert len(set(rows)) > 1 or stage >= 24


def _goes_on(answer: Generation, tokens: int) -> bool:
    return answer.tokens > tokens or (answer.tokens == tokens and not answer.finished)


def tiny_sliding(kind: str) -> Any:
    """Return a model whose attention sees the last six tokens, in all layers or in one of two."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": len(VOCABULARY), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.4, "sliding_window": 6,
        "eos_token_id": VOCABULARY[END], "pad_token_id": VOCABULARY[PAD],
    }  # fmt: skip
    if kind == "mistral":
        return transformers.MistralForCausalLM(transformers.MistralConfig(**shape)).eval()
    more = {"use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]}
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**shape, **more)).eval()


@pytest.mark.parametrize("prompts", [PLAIN, SHARED])
@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_models_that_forget(tmp_path: Path, kind: str, prompts: list[Prompt]) -> None:
    model = LocalModel(str(tiny_folder(tmp_path / "base", model=tiny_sliding(kind), ends=ENDS)))
    assert answers(model, prompts) == reference(model.base.model, model.base.tokenizer, prompts)
