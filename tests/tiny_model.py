"""A tiny random Llama with a tokenizer of one token a character, in memory and as a model folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

END, PAD, UNKNOWN = "<end>", "<pad>", "<unk>"
CHARACTERS = [chr(i) for i in range(32, 127)] + ["\n"]
VOCABULARY = {token: i for i, token in enumerate([END, PAD, UNKNOWN, *CHARACTERS])}
TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[a]{% endif %}"
)
LAYERS = 2


def tiny_llama(seed: int = 0) -> Any:
    """Return a Llama of 2 layers; wide weights keep its answers from one repeated token and from near ties."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=VOCABULARY[END],
        pad_token_id=VOCABULARY[PAD],
    )
    return transformers.LlamaForCausalLM(config).eval()


def tiny_tokenizer(template: str | None = TEMPLATE, **special: str | None) -> Any:
    """Return a tokenizer for printable ASCII; `special` replaces its special tokens, None leaves one out."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=dict(VOCABULARY), merges=[], unk_token=UNKNOWN))
    inner.decoder = tokenizers.decoders.Fuse()
    tokens = {"eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN, **special}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, **{name: token for name, token in tokens.items() if token is not None}
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_folder(
    folder: Path,
    *,
    model: Any = None,
    seed: int = 0,
    ends: Sequence[int] | None = None,
    template: str | None = TEMPLATE,
    **special: str | None,
) -> Path:
    """Write model and tokenizer; `ends` are the tokens that end an answer as the checkpoint says it."""
    model = tiny_llama(seed) if model is None else model
    if ends is not None:
        model.generation_config.eos_token_id = list(ends)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
        tiny_tokenizer(template, **special).save_pretrained(folder)
    return folder
