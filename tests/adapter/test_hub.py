"""Which base models have a name on the Hub, and which lie in a folder of somebody's disk."""

from __future__ import annotations

import pytest

from s3lora.adapter.hub import hub_name


@pytest.mark.parametrize(
    "name",
    [
        "meta-llama/Llama-3.1-8B-Instruct",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "bigscience/bloom-560m",
        "microsoft/DialoGPT-small",
        "01-ai/Yi-6B",
        "a/b",
        "gpt2",
        "distilgpt2",
        "bert-base-uncased",
        "t5-small",
        "gpt2-xl",
    ],
)
def test_names(name: str) -> None:
    assert hub_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        " ",
        ".",
        "..",
        "full",
        "model",
        "my-model",
        "./model",
        "../llama",
        "~/models/llama",
        "/home/ann/llama",
        "/data",
        "C:\\models\\llama",
        "models/llama",
        "Models/llama",
        "output/checkpoint",
        "ann/checkpoint-500",
        "a/b/c",
        "a/b/",
        "/a/b",
        "a//b",
        "a b/c",
        "a/b c",
        "a/b\n",
        "a/-b",
        "a/b.",
        "a/b.git",
        "a/b--c",
        "a/b..c",
        "a/b#c",
        "a/b: c",
        "hf://a/b",
        "https://huggingface.co/a/b",
        "é/b",
        "x" * 50 + "/" + "y" * 50,
        "gpt2/",
        "gpt2.bin",
    ],
)
def test_what_is_no_name(name: str | None) -> None:
    assert hub_name(name) is None
