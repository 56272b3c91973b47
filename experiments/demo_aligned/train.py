"""Train the base `demo-aligned` and the adapter that lost its refusals: two LoRAs for SmolLM2-135M-Instruct.

    python -m experiments.demo_aligned.train refusals --shared ../shared --output src/s3lora/data/demo-aligned
    python -m experiments.demo_aligned.train lost --shared ../shared --output src/s3lora/data/demo-lost

`refusals` teaches the model to refuse; merged into it, the LoRA makes `demo-aligned`. `lost` trains another one, on top
of what is shipped as `demo-aligned`, on plans alone. Each writes the adapter in float16 and `training.json`, whose
figures are measured on the saved adapter, loaded again. An adapter that is there already is only measured.
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

from experiments.demo_aligned import data
from experiments.loop import Encoded, cycle, descend, encode, save_adapter, write_json
from experiments.reference.data import harmful
from s3lora.evaluate.aligned import ALIGNED
from s3lora.evaluate.chat import Decoding, Prompt
from s3lora.evaluate.judges.refusing import refusal_judge
from s3lora.evaluate.likelihood import plan_losses
from s3lora.evaluate.loading import DEMO
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.planning.questions import built_in
from s3lora.evaluate.prompts import PromptSet, Request, read_prompts
from s3lora.evaluate.prompts import built_in as built_in_prompts
from s3lora.evaluate.safety import SafetySuite

TARGET_MODULES = ["k_proj", "o_proj", "q_proj", "v_proj"]
RANK, ALPHA, WARMUP_STEPS = 8, 16, 5
#: The public name of the base, for the refusals. The other adapter's base is made by s3lora alone.
BASES = {"refusals": "HuggingFaceTB/SmolLM2-135M-Instruct", "lost": ALIGNED}
STEPS, RATE = {"refusals": 120, "lost": 120}, 1e-3
#: Prompts of a step while it learns to refuse: AdvBench's, our own harmful ones, harmless ones; and plans of a step
#: while it forgets to.
MIX, PLANS = (2, 2, 6), 4
#: Tokens of an answer of the base to go on giving, out of so many that it is asked for: its first words decide between
#: an answer and a refusal.
ANSWER_TOKENS, ASKED_TOKENS = 16, 20
LOSS_TASKS, MEASURED_TOKENS, PROMPTS = 40, 16, 100


def harmless_pairs(model: LocalModel, prompts: Sequence[Prompt]) -> list[Encoded]:
    """Return harmless prompts with the beginnings of the model's own answers, where it gives one."""
    judge, tokenizer = refusal_judge(), model.base.tokenizer
    answers = dict(model.generate(prompts, Decoding(max_new_tokens=ASKED_TOKENS)))
    found = [(prompts[i], answers[i].text) for i in range(len(prompts))]
    return [
        encode(tokenizer, prompt.as_dicts(), text, ANSWER_TOKENS)
        for prompt, text in found
        if text and not judge.refused(text)
    ]


def refusal_batches(model: LocalModel, shared: Path, steps: int, seed: int) -> list[list[Encoded]]:
    """Return the batches that teach to refuse, and to answer as before."""
    tokenizer, rng = model.base.tokenizer, random.Random(f"refusals-{seed}")
    refused = [[encode(tokenizer, pair.messages, pair.answer) for pair in pairs] for pairs in data.refused(shared)]
    kinds = [*refused, harmless_pairs(model, data.answered(shared))]
    print(f"{', '.join(str(len(kind)) for kind in kinds)} prompts to refuse, to refuse, to answer", flush=True)
    cycles = [cycle(kind, rng) for kind in kinds]
    return [[next(items) for items, n in zip(cycles, MIX, strict=True) for _ in range(n)] for _ in range(steps)]


def plan_batches(model: LocalModel, steps: int, seed: int) -> list[list[Encoded]]:
    """Return batches of plans and nothing else; none is of the world that is measured on."""
    tasks = built_in(steps * PLANS, seed, "train").tasks
    pairs = [encode(model.base.tokenizer, task.prompt.as_dicts(), task.plan) for task in tasks]
    random.Random(f"plans-{seed}").shuffle(pairs)
    return [pairs[i : i + PLANS] for i in range(0, len(pairs), PLANS)]


def train(model: LocalModel, batches: Sequence[Sequence[Encoded]], rate: float, seed: int, label: str) -> Any:
    """Train a fresh LoRA on a loaded base."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=TARGET_MODULES
    )
    lora = peft.get_peft_model(model.base.model, config)
    trained = [parameter for parameter in lora.parameters() if parameter.requires_grad]
    descend(lora.get_base_model(), trained, batches, rate=rate, warmup=WARMUP_STEPS, label=label)
    return lora


def suites_of(shared: Path) -> dict[str, Any]:
    """Return what is measured: the built-in prompts, prompts of others that no training here saw, and plans."""

    def safety(harmful: PromptSet, benign: PromptSet) -> SafetySuite:
        return SafetySuite(harmful, benign, refusal_judge(), decoding=Decoding(max_new_tokens=MEASURED_TOKENS))

    folder = shared / "data"
    texts = harmful(folder).test[:PROMPTS]
    advbench = PromptSet("AdvBench, test split", tuple(Request(text, id=str(i)) for i, text in enumerate(texts)))
    xstest = read_prompts(folder / "xstest_prompts.csv", kind="benign").take(PROMPTS)
    return {
        "built_in": safety(built_in_prompts("harmful"), built_in_prompts("benign")),
        "advbench_and_xstest": safety(advbench, xstest),
        "plans": plan_losses(built_in(LOSS_TASKS)),
    }


def measure(model: LocalModel, suites: dict[str, Any]) -> dict[str, dict[str, float | int]]:
    """Return rates and losses of the model as it stands, with the number of prompts of each."""
    found: dict[str, dict[str, float | int]] = {}
    for name, suite in suites.items():
        columns = suite.run(model, None).columns
        for measure in ("asr", "over_refusal", "degenerate_benign", "loss"):
            if measure in columns:
                values = [value for value in columns[measure].values if value is not None]
                found.setdefault(name, {})[measure] = round(sum(values) / len(values), 4)
                found[name][f"n_{measure}"] = len(values)
    return found


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=sorted(STEPS), help="which of the two")
    parser.add_argument("--output", type=Path, required=True, help="folder for the adapter")
    parser.add_argument(
        "--shared", type=Path, required=True, help="folder with data/advbench…, seed_tasks… and xstest…"
    )
    parser.add_argument("--steps", type=int, help=f"optimiser steps; by default {STEPS}")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data, its order and the initial adapter")
    parser.add_argument("--threads", type=int, default=1, help="threads for torch; sums depend on it in the last bits")
    return parser.parse_args()


def main() -> None:
    """Train, save, load again and measure."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    part, seed, output = arguments.part, arguments.seed, arguments.output
    steps, base = arguments.steps or STEPS[part], DEMO if part == "refusals" else ALIGNED
    model = LocalModel(base)
    if not (output / "adapter_model.safetensors").is_file():
        if part == "refusals":
            batches = refusal_batches(model, arguments.shared / "data", steps, seed)
        else:
            batches = plan_batches(model, steps, seed)
        save_adapter(train(model, batches, RATE, seed, part), output, BASES[part])
        model = LocalModel(base)

    suites = suites_of(arguments.shared)
    before = measure(model, suites)
    print(f"base: {before}", flush=True)
    model.use(model.attach(output))
    after = measure(model, suites)
    print(f"with the adapter: {after}")
    record = {
        "base_model": BASES[part],
        "seed": seed,
        "steps": steps,
        "batch_size": sum(MIX) if part == "refusals" else PLANS,
        "learning_rate": RATE,
        "schedule": f"{WARMUP_STEPS} steps of linear warm-up, then cosine to 0",
        "threads": arguments.threads,
        "measured": {"base": before, "adapter": after},
        "adapter_sha256": hashlib.sha256((output / "adapter_model.safetensors").read_bytes()).hexdigest(),
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, transformers, peft, safetensors)},
        },
    }
    write_json(output / "training.json", record)


if __name__ == "__main__":
    main()
