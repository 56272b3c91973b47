"""A look of the training callback, and the terms for a loss, beside a step of LoRA training on the same model."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

#: A batch of training, and prompts of a look at refusals.
ROWS, TOKENS, PROMPTS = 4, 128, 16
#: Steps from look to look: the default of the callback.
EVERY = 10
ANSWER = "I'm sorry, but I can't help with that."


def measure(repeats: int) -> dict[str, Any]:
    """Return CPU seconds, medians, and the share of a step that looks at the modules take."""
    import peft
    import torch

    from s3lora.adapter.memory import from_model
    from s3lora.evaluate.loading import load_base
    from s3lora.evaluate.prompts import built_in
    from s3lora.measure.configuration import Configuration
    from s3lora.repair.batches import tokens_of
    from s3lora.repair.losses import Term, anchors_of, loss_of, row_values
    from s3lora.repair.targets import TargetPair
    from s3lora.training import spectral_penalty
    from s3lora.training.recording import Recording
    from s3lora.training.running import LiveModel

    base = load_base("demo", dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
        model = peft.get_peft_model(base.model, config)
    leaves = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.01, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(leaves, lr=1e-5)
    ids = torch.randint(0, 40_000, (ROWS, TOKENS), generator=torch.Generator().manual_seed(1))
    live = LiveModel(model, base.tokenizer)
    rows = tokens_of(live, [TargetPair(prompt, ANSWER) for prompt in built_in("benign").prompts[:PROMPTS]], 8)
    with live.resting(base=True):
        anchors = anchors_of(live, rows)
    recording = Recording(Configuration(), None)
    recording.begin("default", None)
    looks = iter(range(10_000))

    def step(term: Callable[[], Any] | None = None) -> None:
        model.train()
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        (loss if term is None else loss + term()).backward()
        optimizer.step()

    def refusals() -> None:
        with live.resting():
            row_values(live, Term(rows))

    def anchor() -> Any:
        with live.resting():
            return loss_of(live, Term(rows[:4], anchors=anchors[:4]))

    works = {
        "step": step,
        "look": lambda: recording.measure(from_model(model), next(looks)),
        "refusals": refusals,
        "penalty": lambda: spectral_penalty(model).backward(),
        "anchor": lambda: anchor().backward(),
    }
    found: dict[str, list[float]] = {name: [] for name in works}
    for i in range(repeats + 1):
        for name, work in works.items():
            took = timed(work)
            if i:  # the first of each is warmer than none
                found[name].append(took)
    made = {name: statistics.median(values) for name, values in found.items()}
    share = statistics.median(a / (EVERY * b) for a, b in zip(found["look"], found["step"], strict=True))
    return {
        "modules": len(list(from_model(model).modules)),
        "rows": ROWS,
        "tokens": ROWS * TOKENS,
        "prompts": len(rows),
        "every": EVERY,
        "repeats": repeats,
        "share": share,
        **made,
    }


def timed(work: Callable[[], Any]) -> float:
    """Return the CPU seconds of some work."""
    start = time.process_time()
    work()
    return time.process_time() - start
