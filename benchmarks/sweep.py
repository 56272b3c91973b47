"""A sweep on a real small model: its time, the share of generation, what switching costs, and what pruning saves."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from s3lora.evaluate.attach import State
from s3lora.evaluate.chat import Decoding
from s3lora.evaluate.cost import measure_costs
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.planning.questions import built_in
from s3lora.evaluate.planning.suite import PlanningSuite
from s3lora.evaluate.prompts import PromptSet, read_prompts
from s3lora.evaluate.prompts import built_in as built_in_prompts
from s3lora.evaluate.rankings import SweepRanking
from s3lora.evaluate.refusals import built_in_refusals
from s3lora.evaluate.safety import SafetySuite
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.sweeping import scan_all, sweep

ADAPTER = Path(__file__).parents[1] / "src" / "s3lora" / "data" / "demo-adapter"
HARMFUL = Path(__file__).parents[2] / "shared" / "data" / "advbench_harmful_behaviors.csv"
POINTS = 15
HARMFUL_PROMPTS, HARMFUL_TOKENS = 100, 32
BENIGN_PROMPTS = 4
PLANS, PLAN_TOKENS = 50, 96
SWITCHES = 200


class Stopwatch:
    """Adds up the seconds spent in a function and the number of tokens that it was asked for."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        self.seconds = 0.0
        self.tokens = 0

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        start = time.perf_counter()
        out = self.call(*arguments, **keywords)
        self.seconds += time.perf_counter() - start
        self.tokens += out.shape[0] * (out.shape[1] - keywords["input_ids"].shape[1])
        return out


def measure(folder: Path) -> dict[str, object]:
    """Sweep the demo adapter over 15 points by two methods, without and then with the answers in the store."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    start = time.perf_counter()
    model = LocalModel("demo")
    loading = time.perf_counter() - start
    attached = model.attach(ADAPTER)
    watch = Stopwatch(model.adapters.model.generate)
    model.adapters.model.generate = watch
    suites = [_safety(), _planning()]
    tops = [f"{100 * i / (POINTS - 1):.1f}%" for i in range(POINTS)]
    seconds, done = [], 0
    with AnswerStore(folder / "answers.sqlite") as store:
        for _ in range(2):
            start = time.perf_counter()
            sweep(str(ADAPTER), model, suites, methods=("mas-svd", "svd"), indices=("ssi",), top=tops, store=store)
            seconds.append(time.perf_counter() - start)
            done = done or watch.seconds
    return {
        "points": POINTS,
        "methods": 2,
        "harmful": [HARMFUL_PROMPTS, HARMFUL_TOKENS],
        "benign": [BENIGN_PROMPTS, HARMFUL_TOKENS],
        "plans": [PLANS, PLAN_TOKENS],
        "loading_seconds": loading,
        "seconds": seconds[0],
        "generate_seconds": done,
        "generate_share": done / seconds[0],
        "tokens": watch.tokens,
        "repeated_seconds": seconds[1],
        "switches": SWITCHES,
        "switch_milliseconds": _switching(model, attached),
        "costs": _costs(model, attached),
    }


def _safety() -> SafetySuite:
    harmful = read_prompts(HARMFUL).take(HARMFUL_PROMPTS)
    benign: PromptSet = built_in_prompts("benign").take(BENIGN_PROMPTS)
    return SafetySuite(harmful, benign, built_in_refusals(), decoding=Decoding(max_new_tokens=HARMFUL_TOKENS))


def _planning() -> PlanningSuite:
    return PlanningSuite(built_in(PLANS), Decoding(max_new_tokens=PLAN_TOKENS), losses=False)


def _switching(model: LocalModel, attached: Any) -> dict[str, float]:
    """Take the median and the longest time of switching from the whole adapter to half of it, and back."""
    half, times = attached.modules[::2], []
    for i in range(SWITCHES):
        start = time.perf_counter()
        model.use(attached, half if i % 2 else ())
        times.append(1e3 * (time.perf_counter() - start))
    return {"median": statistics.median(times), "longest": max(times)}


def _costs(model: LocalModel, attached: Any) -> dict[str, list[dict[str, Any]]]:
    """Time generation with the whole adapter, without 10 and 60 of its modules, and with the base alone."""
    plan = SweepRanking("ssi", "mas-svd").plan(scan_all(str(ADAPTER), [SweepRanking("ssi", "mas-svd")]), 60).paths
    pruned = [(f"{n} modules pruned", State(attached, frozenset(plan[:n]))) for n in (10, 60)]
    states = [("whole adapter", State(attached)), *pruned, ("base alone", State())]
    prompts = built_in_prompts("benign").prompts[:8]
    return {
        mode: [
            {"name": name, **asdict(cost)}
            for (name, _), cost in zip(states, measure_costs(model, states, prompts, mode=mode), strict=True)
        ]
        for mode in ("unmerged", "merged")
    }
