"""What the training scripts here share: a chat as token ids, the loss on its answer, and a seeded loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

#: Token ids of a prompt and of the answer to it.
Encoded = tuple[list[int], list[int]]


def encode(tokenizer: Any, messages: Sequence[dict[str, str]], answer: str, limit: int | None = None) -> Encoded:
    """Return the token ids of a chat and of its answer with the end-of-turn token, or of its first `limit` tokens."""
    prompt = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    prompt_ids, answer_ids = tokenizer([prompt, answer + tokenizer.eos_token], add_special_tokens=False)["input_ids"]
    return prompt_ids, answer_ids[:limit]


def answer_loss(model: Any, batch: Sequence[Encoded]) -> tuple[torch.Tensor, int]:
    """Return the summed cross-entropy over the answer tokens of a batch, and their number."""
    device = next(model.parameters()).device
    length = max(len(prompt) + len(answer) for prompt, answer in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    predicts = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(batch):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        mask[row, :end] = 1
        # Position i predicts token i + 1.
        predicts[row, len(prompt) - 1 : end - 1] = True
    ids, mask, predicts = ids.to(device), mask.to(device), predicts.to(device)
    hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    # The vocabulary is far wider than the model: logits are made only where an answer token is predicted.
    logits = model.lm_head(hidden[predicts])
    labels = ids.roll(-1, dims=1)[predicts]
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum"), len(labels)


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """Return the share of the full rate: a linear warm-up, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def descend(
    model: Any,
    parameters: Iterable[Any],
    batches: Sequence[Sequence[Encoded]],
    *,
    rate: float,
    warmup: int,
    label: str,
    after: Callable[[int], None] = lambda step: None,
) -> None:
    """Take one AdamW step on each batch, in order, call `after(step)`, and print the loss now and then."""
    parameters = list(parameters)
    steps = len(batches)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps, warmup))
    model.train()
    for step, batch in enumerate(batches, start=1):
        loss, tokens = answer_loss(model, batch)
        torch.autograd.backward(loss / tokens)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step == 1 or step % 20 == 0 or step == steps:
            print(f"{label}: step {step}/{steps}: loss {loss.item() / tokens:.4f}", flush=True)
        after(step)
    model.eval()
