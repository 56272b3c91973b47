"""Train the demo adapter: a LoRA for SmolLM2-135M-Instruct that writes tool plans.

Writes ``adapter_model.safetensors`` (float16), ``adapter_config.json`` and ``training.json`` to ``--output``. All
figures in ``training.json`` are measured on the saved float16 adapter, loaded again from that folder.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import safetensors
import torch
import transformers

from experiments.comparing import ComparingModel
from experiments.demo_adapter.model import BASE_MODEL, ensure_model
from experiments.loop import Encoded, answer_loss, descend, encode, save_adapter, write_json
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.planning.questions import built_in
from s3lora.evaluate.planning.suite import PlanningSuite
from s3lora.evaluate.planning.tasks import TaskSet

BATCH_SIZE = 8
LEARNING_RATE = 1e-3
WARMUP_STEPS = 10
TEST_EXAMPLES = 64
PLAN_EXAMPLES = 40
TARGET_MODULES = ["k_proj", "o_proj", "q_proj", "v_proj"]


def mean_loss(model: Any, encoded: Sequence[Encoded]) -> float:
    """Return the mean cross-entropy per target token."""
    model.eval()
    total, count = 0.0, 0
    ordered = sorted(encoded, key=lambda pair: len(pair[0]) + len(pair[1]))
    with torch.inference_mode():
        for first in range(0, len(ordered), BATCH_SIZE):
            loss, tokens = answer_loss(model, ordered[first : first + BATCH_SIZE])
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


def train(base: Any, encoded: Sequence[Encoded], seed: int) -> peft.PeftModel:
    """Train a fresh LoRA on ``base``; every example is seen once."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", target_modules=TARGET_MODULES
    )
    model = peft.get_peft_model(base, config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    batches = make_batches(encoded, random.Random(f"order-{seed}"))
    descend(model.get_base_model(), parameters, batches, rate=LEARNING_RATE, warmup=WARMUP_STEPS, label="demo")
    return model


def score_plans(model: LocalModel, tasks: TaskSet) -> dict[str, int]:
    """Let the model plan greedily, and count plans that are well formed and those that give the right answer."""
    suite = PlanningSuite(tasks, helper=ComparingModel())
    columns = suite.run(model, None).columns
    found = {name: sum(value or 0.0 for value in columns[name].values) for name in ("well_formed", "exact_match")}
    return {"n": len(tasks), "well_formed": int(found["well_formed"]), "right_answer": int(found["exact_match"])}


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

    train_examples = built_in(steps * BATCH_SIZE, seed, "train").tasks
    test = built_in(TEST_EXAMPLES, seed)

    folder = ensure_model(arguments.model_cache)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    load = transformers.AutoModelForCausalLM.from_pretrained
    train_encoded, test_encoded = (
        [encode(tokenizer, task.prompt.as_dicts(), task.plan) for task in tasks]
        for tasks in (train_examples, test.tasks)
    )
    measured = {"train": train_encoded[:TEST_EXAMPLES], "test": test_encoded}
    planned = test.subset(range(PLAN_EXAMPLES))

    base = load(folder, dtype=torch.float32)
    losses = {name: {"n": len(encoded), "initial": mean_loss(base, encoded)} for name, encoded in measured.items()}
    base_plans = score_plans(LocalModel(str(folder)), planned)
    print(f"base: test loss {losses['test']['initial']:.4f}, plans {base_plans}", flush=True)

    save_adapter(train(base, train_encoded, seed), arguments.output, BASE_MODEL)

    adapted = peft.PeftModel.from_pretrained(load(folder, dtype=torch.float32), str(arguments.output))
    for name, encoded in measured.items():
        losses[name]["final"] = mean_loss(adapted.get_base_model(), encoded)
    planner = LocalModel(str(folder))
    planner.use(planner.attach(arguments.output))
    adapter_plans = score_plans(planner, planned)
    print(f"adapter: test loss {losses['test']['final']:.4f}, plans {adapter_plans}")

    rounded = {name: {key: round(value, 4) for key, value in row.items()} for name, row in losses.items()}
    record = {
        "base_model": BASE_MODEL,
        "seed": seed,
        "steps": steps,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "schedule": f"{WARMUP_STEPS} steps of linear warm-up, then cosine to 0",
        "threads": arguments.threads,
        "examples": {"train": len(train_examples), "test": len(test)},
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
