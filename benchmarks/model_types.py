"""The same answers and losses with the base in float32 and in bfloat16, on a processor."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ADAPTER = Path(__file__).parents[1] / "src" / "s3lora" / "data" / "demo-adapter"
TYPES = ("float32", "bfloat16")
PROMPTS, TOKENS, PLANS = 32, 32, 16
#: Flags of processors that multiply in bfloat16.
FLAGS = ("avx512_bf16", "amx_bf16", "bf16")


def measure(repeats: int) -> dict[str, Any]:
    """Return seconds of CPU of each type, medians of `repeats`, and the medians of the paired ratios."""
    from s3lora.evaluate.likelihood import plan_losses
    from s3lora.evaluate.local import LocalModel
    from s3lora.evaluate.planning.questions import built_in as questions
    from s3lora.evaluate.prompts import built_in

    models = {name: LocalModel("demo", dtype=name, batch_size=PROMPTS) for name in TYPES}
    for model in models.values():
        model.use(model.attach(str(ADAPTER)))
    prompts = built_in("benign").prompts[:PROMPTS]
    asked, plans = zip(*plan_losses(questions(PLANS)).pairs, strict=True)
    works: dict[str, Callable[[LocalModel], object]] = {
        "answers": lambda model: model.answer_exactly(prompts, TOKENS),
        "losses": lambda model: model.losses(asked, plans),
    }
    found: dict[str, Any] = {
        "prompts": PROMPTS,
        "tokens": TOKENS,
        "plans": PLANS,
        "repeats": repeats,
        "flags": _flags(),
    }
    for work, do in works.items():
        for model in models.values():
            do(model)
        runs = [{name: _seconds(do, model) for name, model in models.items()} for _ in range(repeats)]
        found[work] = {name: statistics.median(run[name] for run in runs) for name in TYPES}
        found[work]["ratio"] = statistics.median(run["bfloat16"] / run["float32"] for run in runs)
    return found


def _seconds(do: Callable[[Any], object], model: Any) -> float:
    start = time.process_time()
    do(model)
    return time.process_time() - start


def _flags() -> list[str]:
    info = Path("/proc/cpuinfo")
    words = info.read_text().split() if info.exists() else []
    return [flag for flag in FLAGS if flag in words]
