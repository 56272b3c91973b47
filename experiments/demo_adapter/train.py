"""Train the demo adapter: a LoRA for SmolLM2-135M-Instruct that writes tool plans.

Writes ``adapter_model.safetensors`` (float16), ``adapter_config.json`` and ``training.json`` to ``--output``. All
figures in ``training.json`` are measured on the saved float16 adapter, loaded again from that folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import safetensors
import torch
import transformers
from model import BASE_MODEL, ensure_model
from planner_data import Example, build_worlds, execute, generate, parse_plan
from safetensors.torch import load_file, save

BATCH_SIZE = 8
LEARNING_RATE = 1e-3
WARMUP_STEPS = 10
TEST_EXAMPLES = 64
PLAN_EXAMPLES = 40
MAX_NEW_TOKENS = 192
TARGET_MODULES = ["k_proj", "o_proj", "q_proj", "v_proj"]

Encoded = tuple[list[int], list[int]]


def encode(tokenizer: Any, example: Example) -> Encoded:
    """Return the token ids of prompt and target; the target ends with the end-of-turn token."""
    prompt = tokenizer.apply_chat_template(example.messages, tokenize=False, add_generation_prompt=True)
    target = example.plan + tokenizer.eos_token
    prompt_ids, target_ids = tokenizer([prompt, target], add_special_tokens=False)["input_ids"]
    return prompt_ids, target_ids


def target_loss(model: Any, batch: Sequence[Encoded]) -> tuple[torch.Tensor, int]:
    """Return the summed cross-entropy over the target tokens of a batch, and their number."""
    length = max(len(prompt) + len(target) for prompt, target in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    predicts = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, target) in enumerate(batch):
        end = len(prompt) + len(target)
        ids[row, :end] = torch.tensor(prompt + target)
        mask[row, :end] = 1
        # Position i predicts token i + 1.
        predicts[row, len(prompt) - 1 : end - 1] = True
    hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    # The vocabulary is far wider than the model: logits are made only where a target token is predicted.
    logits = model.lm_head(hidden[predicts])
    labels = ids.roll(-1, dims=1)[predicts]
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum"), len(labels)


def mean_loss(model: Any, encoded: Sequence[Encoded]) -> float:
    """Return the mean cross-entropy per target token."""
    model.eval()
    total, count = 0.0, 0
    ordered = sorted(encoded, key=lambda pair: len(pair[0]) + len(pair[1]))
    with torch.inference_mode():
        for start in range(0, len(ordered), BATCH_SIZE):
            loss, tokens = target_loss(model, ordered[start : start + BATCH_SIZE])
            total, count = total + loss.item(), count + tokens
    return total / count


def make_batches(encoded: Sequence[Encoded], rng: random.Random) -> list[list[Encoded]]:
    """Shuffle, sort by length within groups of eight batches to save padding, and shuffle the batches."""
    order = rng.sample(list(encoded), len(encoded))
    batches: list[list[Encoded]] = []
    for start in range(0, len(order), 8 * BATCH_SIZE):
        group = sorted(order[start : start + 8 * BATCH_SIZE], key=lambda pair: len(pair[0]) + len(pair[1]))
        batches += [group[i : i + BATCH_SIZE] for i in range(0, len(group), BATCH_SIZE)]
    rng.shuffle(batches)
    return batches


def learning_rate_factor(step: int, steps: int) -> float:
    """Return the share of the full rate: a linear warm-up, then a cosine to zero."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)))


def train(base: Any, encoded: Sequence[Encoded], steps: int, seed: int) -> peft.PeftModel:
    """Train a fresh LoRA on ``base``; every example is seen once."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", target_modules=TARGET_MODULES
    )
    model = peft.get_peft_model(base, config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
    model.train()
    for step, batch in enumerate(make_batches(encoded, random.Random(f"order-{seed}")), start=1):
        loss, tokens = target_loss(model.get_base_model(), batch)
        torch.autograd.backward(loss / tokens)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step == 1 or step % 20 == 0:
            print(f"step {step}/{steps}: loss {loss.item() / tokens:.4f}", flush=True)
    return model


def save_adapter(model: peft.PeftModel, output: Path) -> None:
    """Save in PEFT's layout, as float16, with a configuration that names the public base model and no path."""
    output.mkdir(parents=True, exist_ok=True)
    # PEFT also writes a model card that names the local model folder; only two of its files are taken.
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch, save_embedding_layers=False)
        tensors = load_file(Path(scratch) / "adapter_model.safetensors")
        config = json.loads((Path(scratch) / "adapter_config.json").read_text(encoding="utf-8"))
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    (output / "adapter_model.safetensors").write_bytes(save(half, metadata={"format": "pt"}))
    config["base_model_name_or_path"] = BASE_MODEL
    config["target_modules"] = sorted(config["target_modules"])
    write_json(output / "adapter_config.json", config)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON with sorted keys, so that equal content gives equal files."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_plans(model: Any, tokenizer: Any, examples: Sequence[Example]) -> list[str]:
    """Let the model answer greedily, in one batch padded on the left."""
    model.eval()
    prompts = [tokenizer.apply_chat_template(e.messages, tokenize=False, add_generation_prompt=True) for e in examples]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    with torch.inference_mode():
        tokens = model.generate(
            **batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    return list(tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True))


def score_plans(plans: Sequence[str], examples: Sequence[Example], world: Any) -> dict[str, int]:
    """Count plans that are well formed, and those that lead to the right answer when executed."""
    return {
        "n": len(plans),
        "well_formed": sum(parse_plan(plan) is not None for plan in plans),
        "right_answer": sum(execute(plan, world) == e.answer for plan, e in zip(plans, examples, strict=True)),
    }


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True, help="folder for the adapter")
    parser.add_argument("--steps", type=int, default=160, help=f"optimiser steps of {BATCH_SIZE} examples")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data, its order and the initial adapter")
    parser.add_argument("--model-cache", type=Path, required=True, help="folder for the converted base model")
    parser.add_argument("--threads", type=int, default=2, help="threads for torch; sums depend on it in the last bits")
    return parser.parse_args()


def main() -> None:
    """Train, save, load again and measure."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    seed, steps = arguments.seed, arguments.steps

    train_world, test_world = build_worlds(seed)
    train_examples = generate(train_world, steps * BATCH_SIZE, random.Random(f"train-{seed}"))
    test_examples = generate(test_world, TEST_EXAMPLES, random.Random(f"test-{seed}"))

    folder = ensure_model(arguments.model_cache)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    load = transformers.AutoModelForCausalLM.from_pretrained
    train_encoded = [encode(tokenizer, example) for example in train_examples]
    test_encoded = [encode(tokenizer, example) for example in test_examples]
    measured = {"train": train_encoded[:TEST_EXAMPLES], "test": test_encoded}
    planned = test_examples[:PLAN_EXAMPLES]

    base = load(folder, dtype=torch.float32)
    losses = {name: {"n": len(encoded), "initial": mean_loss(base, encoded)} for name, encoded in measured.items()}
    base_plans = score_plans(write_plans(base, tokenizer, planned), planned, test_world)
    print(f"base: test loss {losses['test']['initial']:.4f}, plans {base_plans}", flush=True)

    save_adapter(train(base, train_encoded, steps, seed), arguments.output)

    adapted = peft.PeftModel.from_pretrained(load(folder, dtype=torch.float32), str(arguments.output))
    for name, encoded in measured.items():
        losses[name]["final"] = mean_loss(adapted.get_base_model(), encoded)
    plans = write_plans(adapted, tokenizer, planned)
    adapter_plans = score_plans(plans, planned, test_world)
    print(f"adapter: test loss {losses['test']['final']:.4f}, plans {adapter_plans}")
    for example, plan in list(zip(planned, plans, strict=True))[:3]:
        print(f"\n{example.question}\n{plan}")

    rounded = {name: {key: round(value, 4) for key, value in row.items()} for name, row in losses.items()}
    record = {
        "base_model": BASE_MODEL,
        "seed": seed,
        "steps": steps,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "schedule": f"{WARMUP_STEPS} steps of linear warm-up, then cosine to 0",
        "threads": arguments.threads,
        "examples": {"train": len(train_examples), "test": len(test_examples)},
        "train_target_tokens": sum(len(target) for _, target in train_encoded),
        "loss_per_target_token": rounded,
        "test_plans": {"base": base_plans, "adapter": adapter_plans},
        "adapter_sha256": hashlib.sha256((arguments.output / "adapter_model.safetensors").read_bytes()).hexdigest(),
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, transformers, peft, safetensors)},
        },
    }
    write_json(arguments.output / "training.json", record)


if __name__ == "__main__":
    main()
