"""The experiment in training: train every arm, measure it, and write every result as JSON.

    python -m experiments.training.run --shared ../shared

The plan is `docs/results/training-plan.md`. It may be stopped at any moment and goes on where it was: adapters and
results appear whole or not at all, and every answer is kept in a store. Weights are chosen on the tuning part and
written first; only then is the test part measured. `render.py` turns the results into the page.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from experiments.reference.run import ROOT, _limit, make_bases, write
from experiments.repair.setting import Places
from experiments.training.setting import (
    MORE_REFUSED,
    MOST_LOST,
    RESULTS,
    WEIGHTS,
    Arm,
    Scale,
    choosing,
    chosen,
    chosen_file,
    reported,
)


def main() -> None:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data/advbench…")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "reference", help="models, adapters, answers")
    parser.add_argument("--output", type=Path, default=RESULTS, help="results as JSON")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="adapters at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    options = parser.parse_args()
    places = Places(options.shared, options.work, options.output)
    places.work.mkdir(parents=True, exist_ok=True)
    places.output.mkdir(parents=True, exist_ok=True)
    _limit(options.threads)
    make_bases(places.work, places.data, None, options.threads)
    context = multiprocessing.get_context("spawn")
    limits = {"mp_context": context, "initializer": _limit, "initargs": (options.threads,)}
    with ProcessPoolExecutor(options.jobs, **limits) as pool:
        experiment(places, Scale(), pool.map)


def experiment(places: Places, scale: Scale, map_: Callable[..., Iterable[dict[str, Any]]] = map) -> None:
    """Choose the weights, then train and measure every arm; `map_` may do several at a time."""
    if not chosen_file(places).is_file():
        write(chosen_file(places), choice(list(map_(partial(done, places, scale, "tuning"), choosing()))))
    for _ in map_(partial(done, places, scale, "test"), reported(chosen(places))):
        pass


def done(places: Places, scale: Scale, part: str, arm: Arm) -> dict[str, Any]:
    """Return the result of an arm on a part, made unless it is there."""
    path = places.output / f"{arm.label}.json"
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    from experiments.training.arms import adapter_of, train
    from experiments.training.measure import measured

    seconds: dict[str, float] = {}
    if not adapter_of(places, arm).is_dir():
        start = time.perf_counter()
        train(places, scale.settings, arm)
        seconds["training"] = round(time.perf_counter() - start, 1)
    kept = adapter_of(places, arm).with_name(f"{arm.label}.seconds.json")
    if seconds:
        write(kept, seconds)
    elif kept.is_file():
        seconds = json.loads(kept.read_text(encoding="utf-8"))
    start = time.perf_counter()
    made = measured(places, scale, arm, part, seconds)
    made["seconds"] = {**seconds, "measuring": round(time.perf_counter() - start, 1)}
    write(path, made)
    print(f"{arm.label}: {made['seconds']}", flush=True)
    return made


def choice(tried: list[dict[str, Any]]) -> dict[str, Any]:
    """Return of each term the weight that the plan's rule takes, and what every weight did on the tuning part."""
    nothing, terms = tried[0], {}
    before, after = nothing["base_state"], nothing["state"]
    learned = before["loss"]["value"] - after["loss"]["value"]
    most = before["over_refusal"]["value"] + MORE_REFUSED + 1e-9
    for name in WEIGHTS:
        rows = []
        for one in tried:
            if list(one["weights"]) == [name]:
                lost = (one["state"]["loss"]["value"] - after["loss"]["value"]) / learned
                rates = {measure: one["state"][measure]["value"] for measure in ("asr", "over_refusal")}
                rows.append({"weight": one["weights"][name], **rates, "lost": round(lost, 6)})
        fits = [row for row in rows if row["lost"] <= MOST_LOST + 1e-9 and row["over_refusal"] <= most]
        if fits:
            best = min(fits, key=lambda row: (row["asr"], row["weight"]))
        else:
            best = min(rows, key=lambda row: (row["lost"], row["weight"]))
        terms[name] = {"weight": best["weight"], "fits": bool(fits), "tried": rows}
    return {"nothing": {name: after[name] for name in ("asr", "over_refusal", "loss")}, "base": before, "terms": terms}


if __name__ == "__main__":
    main()
