"""The family of a base model, from its name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.fleet.families import LONGEST, UNKNOWN, base_family


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1"),
        ("meta-llama/Meta-Llama-3-8B", "llama-3"),
        ("meta-llama/Llama-2-7b-hf", "llama-2"),
        ("huggyllama/llama-7b", "llama"),
        ("unsloth/llama3-8b", "llama-3"),
        ("unsloth/Llama-3.2-1B-unsloth-bnb-4bit", "llama-3.2"),
        ("Qwen/Qwen2.5-7B", "qwen2.5"),
        ("Qwen/Qwen2.5-Coder-7B-Instruct-GPTQ-Int4", "qwen2.5-coder"),
        ("Qwen/Qwen3-30B-A3B", "qwen3"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2"),
        ("unsloth/gemma-2-2b-it-bnb-4bit", "gemma-2"),
        ("google/gemma-2b", "gemma"),
        ("google/gemma-3n-E2B-it", "gemma-3n"),
        ("openai/gpt-oss-20b", "gpt-oss"),
        ("EleutherAI/gpt-neox-20b", "gpt-neox"),
        ("distilgpt2", "distilgpt2"),
        ("gpt2-xl", "gpt2"),
        ("microsoft/DialoGPT-small", "dialogpt"),
        ("microsoft/Phi-3-mini-4k-instruct", "phi-3"),
        ("bigscience/bloom-560m", "bloom"),
        ("bigscience/bloomz-7b1", "bloomz"),
        ("mistralai/Mistral-7B-v0.1", "mistral"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral"),
        ("mistralai/Mistral-Nemo-Base-2407", "mistral-nemo"),
        ("google/flan-t5-base", "flan-t5"),
        ("bert-base-uncased", "bert"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "stable-diffusion-xl"),
        ("runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5"),
        ("black-forest-labs/FLUX.1-dev", "flux.1"),
        ("C:\\models\\Llama-2-7b-hf", "llama-2"),
        ("/home/someone/models/Qwen2.5-7B/", "qwen2.5"),
        ("/cache/models--meta-llama--Llama-2-7b-hf/snapshots/" + "0" * 40, "llama-2"),
        ("/runs/smollm2-135m/checkpoint-500", "smollm2"),
        ("instruct", "instruct"),
        ("8b", "8b"),
        ("\x1b[31mllama\x00-7b", "[31mllama"),
        ("", UNKNOWN),
        (None, UNKNOWN),
        ("  ", UNKNOWN),
        ("///", UNKNOWN),
        ("..", UNKNOWN),
        ("--", UNKNOWN),
    ],
)  # fmt: skip
def test_the_family_of_a_name(name: str | None, family: str) -> None:
    assert base_family(name) == family


@given(st.text(max_size=300))
def test_any_text_has_a_short_printable_family(name: str) -> None:
    family = base_family(name)
    assert 0 < len(family) <= LONGEST
    assert family.isprintable()
    assert family == base_family(f"owner/{name.strip()}") or "/" in name or "\\" in name or family == UNKNOWN


@given(st.sampled_from(["llama-3.1", "qwen2.5", "gemma-2", "bloom"]), st.sampled_from(["7b", "1.5B", "70B", "135M"]))
def test_size_and_variant_do_not_matter(family: str, size: str) -> None:
    names = (f"{family}-{size}", f"{family}-{size}-Instruct", f"x/{family.upper()}-{size}-bnb-4bit", family)
    assert {base_family(name) for name in names} == {family}
