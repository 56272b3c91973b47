"""A fair comparison of repairs: find the strengths of every row, test them, and write every result as JSON.

    python -m experiments.repair.run --shared ../shared --tier 1

The plan is `docs/results/repair-plan.md`. It may be stopped at any moment and goes on where it was: models and adapters
appear whole or not at all, answers and what was learned are kept in a store. The strengths of an adapter are found and
written first; only then is its test part measured, at those strengths. `render.py` turns the results into the page.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from experiments.reference.data import Run
from experiments.reference.run import ROOT, _limit, make_original, write
from experiments.repair import first, second
from experiments.repair.costs import all_costs
from experiments.repair.setting import RESULTS, TIERS, Places, Settings, make_adapter, make_base


def main() -> None:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data/advbench…")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "reference", help="models, adapters, answers")
    parser.add_argument("--output", type=Path, default=RESULTS, help="results as JSON")
    parser.add_argument("--model", type=Path, help="folder of another instruct model, on a GPU if there is one")
    parser.add_argument("--tier", type=int, choices=sorted(TIERS), default=1, help="which rows, on which adapters")
    parser.add_argument("--only", metavar="NAME", help="one adapter, such as full-few-1")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="adapters at a time")
    parser.add_argument("--threads", type=int, help="threads of each; by default the cores are shared out")
    options = parser.parse_args()
    runs = [run for run in TIERS[options.tier] if options.only in (None, run.name)]
    if not runs:
        parser.error(f"tier {options.tier} has no adapter {options.only}")
    places = Places(options.shared, options.work, options.output)
    places.work.mkdir(parents=True, exist_ok=True)
    threads = options.threads or max(1, (os.cpu_count() or 1) // options.jobs)
    make_original(places.work, options.model)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=_limit, initargs=(threads,)) as pool:
        # With as many threads as what follows: the last digits of the weights depend on their number.
        for made in [pool.submit(make_base, places, base, threads) for base in sorted({run.base for run in runs})]:
            made.result()
        for done in [pool.submit(measure, options.tier, places, Settings(), run) for run in runs]:
            done.result()
    costs = places.output / f"tier{options.tier}" / "seconds.json"
    before = json.loads(costs.read_text(encoding="utf-8")) if costs.is_file() else {}
    write(costs, {**before, **all_costs(places.costs)})


def measure(tier: int, places: Places, settings: Settings, run: Run) -> None:
    """Make an adapter, find the strengths of its rows, and test them."""
    of = {1: first, 2: second}[tier]
    for stage in (make_adapter, of.find_strengths, of.measure_test):
        stage(places, settings, run)


if __name__ == "__main__":
    main()
