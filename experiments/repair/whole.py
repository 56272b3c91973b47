"""Repair adapters of the reference experiment, and write what came out as JSON.

    python -m experiments.repair.whole --shared ../shared --method auto

The adapters are trained as in `experiments/reference`: on the base aligned there, with plans alone, with 20 or with 80
affirmative openings among them. Harmful prompts are those of AdvBench that neither alignment nor attack has seen;
harmless prompts and plans are built in. It may be stopped at any moment and goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import s3lora
from experiments.reference import data
from experiments.reference.run import ROOT, _limit, folder_of, make_bases, write
from s3lora.evaluate.store import AnswerStore
from s3lora.repair.build_data import repair_data
from s3lora.repair.repairing import repair
from s3lora.report.documents import to_json

#: (attack, seed): task data alone, 20 openings, 80 openings.
RUNS = [(attack, seed) for attack in ("few", "benign", "many") for seed in (0, 1, 2)]


def main() -> None:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data/advbench…")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "reference", help="models, adapters, answers")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "repair", help="results as JSON")
    parser.add_argument("--method", default="auto", help="as for `s3lora repair`")
    parser.add_argument("--only", help="one adapter, such as full-few-0")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    _limit(2)
    make_bases(options.work, options.shared / "data", None)
    for attack, seed in RUNS:
        name = f"full-{attack}-{seed}"
        if options.only in (None, name):
            one(options, name, attack, seed)


def one(options: argparse.Namespace, name: str, attack: str, seed: int) -> None:
    """Train one adapter unless it is there, repair it, and keep what came out."""
    from experiments.reference import train

    target = options.output / f"{name}-{options.method.replace('+', '-')}.json"
    if target.is_file():
        return
    base, adapter = folder_of(options.work, "full"), options.work / "adapters" / name
    adapter.parent.mkdir(exist_ok=True)
    if not adapter.is_dir():
        train.erode(base, data.Run("full", attack, seed), options.shared / "data", adapter)
    start = time.perf_counter()
    with AnswerStore(options.work / "repair.sqlite") as store:
        found = repair(
            adapter,
            str(base),
            repair_data(harmful=prompts(options), task="planning"),
            method=options.method,
            store=store,
            tell=lambda said: print(f"{name}: {said}", flush=True),
        )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name}: {found.sentence} {seconds:.0f} s, {peak:.2f} GB", flush=True)
    cost = {"seconds": round(seconds), "peak_gigabytes": round(peak, 2)}
    document = json.loads(to_json(found))
    (document["attribution"] or {}).pop("modules", None)  # 80 KB an adapter, which no page shows
    write(target, json.dumps({**cost, "repair": document}, indent=1) + "\n")


def prompts(options: argparse.Namespace) -> Path:
    """Write the harmful prompts into the work folder, which is not in the repository, and return the file."""
    path = options.work / "harmful.jsonl"
    known = data.harmful(options.shared / "data")
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in (*known.tune, *known.test)))
    return path


if __name__ == "__main__":
    print(s3lora.__version__)
    main()
