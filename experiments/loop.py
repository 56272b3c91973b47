"""What the training scripts here share: a chat as token ids, the loss on its answer, and a seeded loop."""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save

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
    term: Callable[[], torch.Tensor] | None = None,
) -> None:
    """Take one AdamW step on each batch, in order, call `after(step)`, and print the loss now and then.

    `term` is computed at every step and added to the loss in nats a token; what is printed is without it.
    """
    parameters = list(parameters)
    steps = len(batches)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps, warmup))
    model.train()
    for step, batch in enumerate(batches, start=1):
        loss, tokens = answer_loss(model, batch)
        torch.autograd.backward(loss / tokens if term is None else loss / tokens + term())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step == 1 or step % 20 == 0 or step == steps:
            print(f"{label}: step {step}/{steps}: loss {loss.item() / tokens:.4f}", flush=True)
        after(step)
    model.eval()


def cycle(items: Sequence[Encoded], rng: random.Random) -> Iterator[Encoded]:
    """Yield every item once in a random order, again and again."""
    while True:
        yield from rng.sample(items, len(items))


def save_adapter(model: peft.PeftModel, output: Path, base: str) -> None:
    """Save in PEFT's layout, as float16, with a configuration that names the base so, and no path."""
    output.mkdir(parents=True, exist_ok=True)
    # PEFT also writes a model card that names the local model folder; only two of its files are taken.
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch, save_embedding_layers=False)
        tensors = load_file(Path(scratch) / "adapter_model.safetensors")
        config = json.loads((Path(scratch) / "adapter_config.json").read_text(encoding="utf-8"))
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    (output / "adapter_model.safetensors").write_bytes(save(half, metadata={"format": "pt"}))
    config["base_model_name_or_path"] = base
    config["target_modules"] = sorted(config["target_modules"])
    write_json(output / "adapter_config.json", config)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON with sorted keys, so that equal content gives equal files."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
