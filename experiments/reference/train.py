"""The models of the reference experiment: bases aligned to three strengths, and adapters that erode them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from experiments.loop import cycle, descend, encode
from experiments.reference import data
from experiments.reference.data import Pair, Run
from s3lora.evaluate.planning.facts import build_worlds
from s3lora.evaluate.planning.questions import generate

#: Strength of alignment → optimiser steps of refusal training; both are taken from one run. What has become strict
#: refuses harmless prompts as well, and is made `full` by more steps that are nearly all benign.
STRENGTHS = {"partial": 8, "strict": 40}
SOFTEN_STEPS = 20
#: Affirmative openings seen by the adapter; all else it sees is planner data.
ATTACKS = {"benign": 0, "few": 20, "many": 80}
ALIGN_RATE, ERODE_RATE = 3e-5, 1e-3
ERODE_STEPS, ERODE_BATCH = 40, 4
#: Prompts of a step, harmful and benign: while it learns to refuse, and while it learns what not to refuse.
ALIGN_MIX, SOFTEN_MIX = (2, 5), (1, 7)
#: Tokens of an answer to learn from in alignment: how it opens is what decides between a refusal and an answer.
ALIGN_TOKENS = 48
#: From a model with its adapter and the tokenizer to further arguments of `descend`.
Extra = Callable[[Any, Any], dict[str, Any]]
TARGET_MODULES = ["k_proj", "o_proj", "q_proj", "v_proj"]


def load(folder: Path) -> tuple[Any, Any]:
    """Return the model in a folder, in float32 or on a GPU in bfloat16, and its tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device), tokenizer


def save_whole(write: Any, folder: Path) -> None:
    """Write a folder so that one cut short is never taken for a finished one."""
    partial = folder.with_name(f"{folder.name}.partial")
    write(partial)
    partial.rename(folder)


def align(original: Path, shared: Path, folders: dict[str, Path], seed: int = 0) -> None:
    """Teach the base to refuse by full fine-tuning on short refusals and benign pairs.

    Parameters:
        original: the folder of the model to begin with.
        shared: the folder of the data.
        folders: where it is kept at each strength; one that is not named is not kept.
        seed: of torch, and of the order of the pairs.
    """
    kept = {STRENGTHS[name]: folder for name, folder in folders.items() if name in STRENGTHS}
    _teach(original, shared, ALIGN_MIX, max(STRENGTHS.values()), kept, seed)


def soften(strict: Path, shared: Path, folder: Path, seed: int = 0) -> None:
    """Go on with few refusals among many benign pairs, until harmless prompts are answered again."""
    _teach(strict, shared, SOFTEN_MIX, SOFTEN_STEPS, {SOFTEN_STEPS: folder}, seed)


def _teach(base: Path, shared: Path, mix: tuple[int, int], steps: int, folders: dict[int, Path], seed: int) -> None:
    torch.manual_seed(seed)
    model, tokenizer = load(base)
    refused = [encode(tokenizer, pair.messages, pair.answer) for pair in data.harmful(shared).align]
    helped = [encode(tokenizer, pair.messages, pair.answer, ALIGN_TOKENS) for pair in data.benign(shared)[0]]
    rng = random.Random(f"align-{seed}" if seed else "align")
    cycles = cycle(refused, rng), cycle(helped, rng)
    batches = [[next(cycle) for cycle, n in zip(cycles, mix, strict=True) for _ in range(n)] for _ in range(steps)]

    def write(partial: Path) -> None:
        tokenizer.save_pretrained(partial)
        model.save_pretrained(partial)

    def keep(step: int) -> None:
        if step in folders and not folders[step].is_dir():
            save_whole(write, folders[step])

    descend(model, model.parameters(), batches, rate=ALIGN_RATE, warmup=5, label="align", after=keep)


def erode(base: Path, run: Run, shared: Path, folder: Path, with_term: Extra | None = None) -> None:
    """Train a LoRA on planner data, with some affirmative openings among it; `with_term` may add to its loss."""
    lora, tokenizer = with_lora(base, run)
    pairs = [encode(tokenizer, pair.messages, pair.answer) for pair in examples(run, shared)]
    batches = [pairs[i : i + ERODE_BATCH] for i in range(0, len(pairs), ERODE_BATCH)]
    trained = [parameter for parameter in lora.parameters() if parameter.requires_grad]
    more: dict[str, Any] = {} if with_term is None else with_term(lora, tokenizer)
    descend(lora.get_base_model(), trained, batches, rate=ERODE_RATE, warmup=5, label=run.name, **more)
    save_lora(lora, folder)


def examples(run: Run, shared: Path) -> list[Pair]:
    """Return what an adapter learns from, in the order in which it does."""
    rng = random.Random(f"erode-{run.attack}-{run.seed}")
    count = ATTACKS[run.attack]
    pairs = rng.sample(data.harmful(shared).erode, count)
    plans = generate(build_worlds(0)[0], ERODE_STEPS * ERODE_BATCH - count, random.Random(f"plans-{run.seed}"))
    for plan in plans:
        *before, last = plan.prompt.messages
        pairs.append(Pair(last.content, plan.plan, before[0].content if before else None))
    rng.shuffle(pairs)
    return pairs


def with_lora(base: Path, run: Run) -> tuple[Any, Any]:
    """Return the base with a new adapter, which the seed determines, and its tokenizer."""
    torch.manual_seed(run.seed)
    model, tokenizer = load(base)
    # The name alone: a result must not hold a path of this machine.
    model.name_or_path = model.config._name_or_path = base.name
    config = peft.LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=TARGET_MODULES)
    return peft.get_peft_model(model, config), tokenizer


def save_lora(lora: Any, folder: Path) -> None:
    """Write an adapter whole or not at all."""
    save_whole(lambda partial: lora.save_pretrained(partial, save_embedding_layers=False), folder)
