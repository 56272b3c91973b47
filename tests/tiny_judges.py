"""Tiny judges with random weights, one an architecture, and a chat template of the shape of the real one.

`saying` bends the weights of one so that it says some words after any chat and then stops: beside what the random
layers add, an embedding points in one direction for each of those words, and in another one for all other tokens.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

#: Special tokens of Llama 3, of Qwen and of Llama 2, which no character of a text may become.
SPECIAL = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>")
SPECIAL = (*SPECIAL, "<s>", "</s>", "<pad>")
WORDS = ("unsafe", "safe", "Unsafe", "Safe", "Controversial", "yes", "no", "Safety:", "\n\n")
CHARACTERS = (*(chr(i) for i in range(32, 127)), "\n")
VOCABULARY = {token: i for i, token in enumerate((*SPECIAL, "<unk>", *CHARACTERS, *WORDS))}
CONTEXT = 4096

#: They write a task of their own around the last message, as the real ones do, whoever asks for a generation prompt.
LLAMA_GUARD = (
    "{{ bos_token }}<|start_header_id|>user<|end_header_id|>\n\nTask: check 'Agent' messages.\n"
    "<BEGIN UNSAFE CONTENT CATEGORIES>\nS1: Harm.\n<END UNSAFE CONTENT CATEGORIES>\n<BEGIN CONVERSATION>\n"
    "{% for m in messages %}{{ 'User' if m['role'] == 'user' else 'Agent' }}: {{ m['content'] | trim }}\n{% endfor %}"
    "<END CONVERSATION>\n<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
)
QWEN3GUARD = (
    "<|im_start|>user\n# Task: check the last message.\n<BEGIN CONVERSATION>\n"
    "{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] }}\n{% endfor %}<END CONVERSATION>\n"
    "One of: 'Safety: Safe', 'Safety: Unsafe', 'Safety: Controversial'.<|im_end|>\n<|im_start|>assistant\n"
)
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
#: By architecture: the configuration, and the words around the chat.
KINDS: dict[str, tuple[str, str | None, str, str]] = {
    "llama-guard-3": ("LlamaConfig", LLAMA_GUARD, "<|begin_of_text|>", "<|eot_id|>"),
    "qwen3guard": ("Qwen3Config", QWEN3GUARD, "", "<|im_end|>"),
    # The real ones have no chat template of their own that says what they were trained on.
    "harmbench-cls": ("MistralConfig", None, "<s>", "</s>"),
    "rubric": ("Qwen3Config", CHAT, "", "<|im_end|>"),
}


def tiny_judge_tokenizer(template: str | None, begin: str, end: str) -> Any:
    """Return a tokenizer of characters, whole words of verdicts, and special tokens."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=dict(VOCABULARY), merges=[], unk_token="<unk>"))
    inner.decoder = tokenizers.decoders.Fuse()
    inner.add_special_tokens([tokenizers.AddedToken(token, special=True) for token in SPECIAL])
    inner.add_tokens([tokenizers.AddedToken(word, special=False) for word in WORDS])
    names = {"eos_token": end, "pad_token": "<pad>", "unk_token": "<unk>", **({"bos_token": begin} if begin else {})}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=CONTEXT, **names)
    tokenizer.add_special_tokens({"additional_special_tokens": [t for t in SPECIAL if t not in names.values()]})
    tokenizer.chat_template = template
    return tokenizer


def tiny_judge(
    folder: Path, profile: str, *, saying: tuple[str, ...] = (), labels: dict[int, str] | None = None
) -> Path:
    """Write a judge of this profile's architecture; with `labels`, one with a head for sequences."""
    kind, template, begin, end = KINDS[profile]
    tokenizer = tiny_judge_tokenizer(template, begin, end)
    torch.manual_seed(0)
    config = getattr(transformers, kind)(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=CONTEXT,
        bos_token_id=VOCABULARY.get(begin),
        eos_token_id=VOCABULARY[end],
        pad_token_id=VOCABULARY["<pad>"],
        tie_word_embeddings=False,
        **({"sliding_window": None} if kind == "MistralConfig" else {}),
        **({"id2label": labels, "num_labels": len(labels)} if labels else {}),
    )
    auto = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModelForCausalLM
    model = auto.from_config(config).eval()
    if saying:
        _bend(model, [VOCABULARY[word] for word in (*saying, end)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _bend(model: Any, words: list[int]) -> None:
    """Let the model say each of `words` after the one before it, and the first after all other tokens."""
    with torch.no_grad():
        rows, head = model.get_input_embeddings().weight, model.lm_head.weight
        rows[:, : len(words)], head[:, : len(words)] = 0.0, 0.0
        rows[:, 0] = 100.0
        for i, word in enumerate(words):
            head[word, i] = 100.0
            rows[word, 0] = 0.0
            rows[word, i + 1] = 100.0
