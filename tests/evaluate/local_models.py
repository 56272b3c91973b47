"""Prompts for tiny models, and what they answer, found one token after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from s3lora.evaluate.chat import Decoding, Generation, Prompt
from s3lora.evaluate.local import LocalModel
from tests.tiny_model import END, VOCABULARY, torch, transformers

TEXTS = ["x", "Why?", "12 + 3", "hello there", "a much longer question about one thing or another", "Zebra", "no", "."]
PLAIN = [Prompt.ask(text) for text in TEXTS]
#: They share the first 23 tokens.
SHARED = [Prompt.ask(text, "You answer briefly.") for text in TEXTS]
#: Tokens that the checkpoints here say end an answer: besides <end>, two that these models write now and then.
ENDS = [VOCABULARY[END], VOCABULARY["="], VOCABULARY["j"]]
DECODING = Decoding(max_new_tokens=24)


def tiny_gpt2() -> Any:
    """Return a model that learned its positions, which left padding must not shift."""
    torch.manual_seed(0)
    names = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
    config = transformers.GPT2Config(
        vocab_size=len(VOCABULARY), n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.4, **names
    )
    return transformers.GPT2LMHeadModel(config).eval()


def answers(model: LocalModel, prompts: Sequence[Prompt], decoding: Decoding = DECODING) -> list[Generation]:
    found = dict(model.generate(prompts, decoding))
    return [found[i] for i in range(len(prompts))]


def encoded(tokenizer: Any, prompt: Prompt) -> list[int]:
    text = tokenizer.apply_chat_template(prompt.as_dicts(), tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def reference(model: Any, tokenizer: Any, prompts: Sequence[Prompt], tokens: int = 24) -> list[Generation]:
    """Answer one prompt after the other, by taking the likeliest token of the whole text again and again."""
    found = []
    for prompt in prompts:
        ids, written = encoded(tokenizer, prompt), []
        while len(written) < tokens and not (written and written[-1] in ENDS):
            with torch.no_grad():
                written.append(int(model(torch.tensor([ids + written])).logits[0, -1].argmax()))
        text = tokenizer.decode(written, skip_special_tokens=True)
        found.append(Generation(text, len(written), written[-1] in ENDS))
    return found
