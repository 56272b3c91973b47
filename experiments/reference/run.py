"""The reference experiment: train the models, sweep them, and write every result as JSON.

    python -m experiments.reference.run --shared ../shared

It may be stopped at any moment and goes on where it was: models and adapters appear whole or not at all, and every
answer is kept in a store. `render.py` turns the results into the page.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

#: (base, attack, seed). The first six are the grid that decides; the others are one seed each.
GRID = [("full", attack, seed) for seed in (0, 1, 2) for attack in ("many", "few")]
OTHERS = [("partial", "many", 0), ("full", "benign", 0), ("none", "many", 0)]
#: Where the number of modules is also chosen by tuning, by weighted SSI.
TUNED = [("full", "many", 0), ("full", "few", 0)]
#: Shares of the 120 modules that are pruned; 0 and 100 % are measured once for all rankings.
SHARES = ("0", "30%", "45%", "60%", "100%")
FEWER_SHARES = ("0", "45%", "60%", "100%")
#: What bases are loaded in to be measured; all training is in float32.
DTYPE = "bfloat16"
#: Modules that the paper prunes, where there are so many.
PAPER = 10
INDICES = ("ssi", "weighted_ssi", "magnitude")
#: Draws of each control, for the first training seed of the grid and for all other adapters; no two adapters of one
#: base and attack share a draw.
CONTROL_SEEDS, FEWER_SEEDS = 2, 1
#: Methods whose orders are compared.
METHODS = ("mas-svd", "svd", "spsvd", "released")
#: Where generated plans are scored as well, at this share.
GENERATED = ("45%", "60%")
BENIGN, LOSS_TASKS, PLAN_TASKS = 30, 20, 40
#: Where the losses of maths and code are measured as well, and on how many items of each: they are long.
ELSEWHERE, ELSEWHERE_ITEMS = ("60%",), 50
TOKENS, PLAN_TOKENS = 16, 128


def main() -> None:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data/advbench…")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "reference", help="models, adapters, answers")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "data", help="results as JSON")
    parser.add_argument("--model", type=Path, help="folder of another instruct model, on a GPU if there is one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="adapters at a time")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    timed("bases", options, lambda: make_bases(options.work, options.shared / "data", options.model))
    cores = max(1, (os.cpu_count() or 1) // options.jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=_limit, initargs=(cores,)) as pool:
        for work, runs in ((one, [*GRID, *OTHERS]), (find, TUNED)):
            for done in [pool.submit(work, options, *run) for run in runs]:
                done.result()
    write(options.output / "seconds.json", seconds(options.work))


def _limit(threads: int) -> None:
    """Give a process its share of the cores; threads that spin would slow the others down."""
    os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0", HF_HUB_OFFLINE="1")
    import torch

    torch.set_num_threads(threads)


def timed(stage: str, options: argparse.Namespace, work: Callable[[], bool]) -> None:
    """Do something, and add the seconds to what earlier tries at it took; no time counts where nothing was done."""
    path = options.work / "seconds" / f"{stage}.json"
    start = time.perf_counter()
    if work():
        path.parent.mkdir(exist_ok=True)
        before = json.loads(path.read_text()) if path.is_file() else 0.0
        write(path, before + time.perf_counter() - start)
        print(f"{stage}: {time.perf_counter() - start:.0f} s", flush=True)


def seconds(work: Path) -> dict[str, float]:
    """Return what every stage took."""
    return {path.stem: round(json.loads(path.read_text()), 1) for path in sorted((work / "seconds").glob("*.json"))}


def write(path: Path, value: object) -> None:
    """Write JSON whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # several processes may write it at once
    partial.write_text(value if isinstance(value, str) else json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def folder_of(work: Path, base: str) -> Path:
    """Return where a base model is kept."""
    return work / "models" / base


def make_original(work: Path, model: Path | None) -> Path:
    """Return the published model, which is put where bases are kept."""
    from experiments.demo_adapter.model import ensure_model

    (work / "models").mkdir(exist_ok=True)
    original = folder_of(work, "none")
    if not original.exists():
        original.symlink_to((model or ensure_model(work / "models")).resolve())
    return original


def make_bases(work: Path, data: Path, model: Path | None, threads: int | None = None) -> bool:
    """Make the original model and the aligned ones; return whether there was anything to do."""
    from experiments.reference import train

    _, *aligned = (folder_of(work, name) for name in ("none", "partial", "strict", "full"))
    folders = dict(zip(("partial", "strict", "full"), aligned, strict=True))
    if folders["full"].is_dir():
        return False
    _limit(threads or os.cpu_count() or 1)
    original = make_original(work, model)
    if not (folders["partial"].is_dir() and folders["strict"].is_dir()):
        train.align(original, data, folders)
    train.soften(folders["strict"], data, folders["full"])
    return True


def one(options: argparse.Namespace, base: str, attack: str, seed: int) -> None:
    """Train one adapter, and measure it."""
    from experiments.reference import data, train

    run = data.Run(base, attack, seed)
    adapter = options.work / "adapters" / run.name
    adapter.parent.mkdir(exist_ok=True)

    def erode() -> bool:
        if not adapter.is_dir():
            train.erode(folder_of(options.work, base), run, options.shared / "data", adapter)
            return True
        return False

    timed(f"train-{run.name}", options, erode)
    timed(f"sweep-{run.name}", options, lambda: measure(options, run, adapter))


def measure(options: argparse.Namespace, run: Any, adapter: Path) -> bool:
    """Sweep an adapter by every ranking; return whether there was anything to do."""
    path = options.output / f"{run.name}.json"
    if path.is_file():
        return False
    from threadpoolctl import threadpool_limits

    from s3lora.adapter.open import open_adapter
    from s3lora.evaluate.local import LocalModel
    from s3lora.evaluate.rankings import correlations, rankings
    from s3lora.evaluate.store import AnswerStore
    from s3lora.evaluate.sweeping import scan_for, sweep
    from s3lora.measure.cost import MAX_COST
    from s3lora.report.documents import to_json

    model = LocalModel(str(folder_of(options.work, run.base)), dtype=DTYPE)
    grid = (run.base, run.attack, run.seed) in GRID
    suites = suites_of(options.shared / "data")
    print(f"{run.name}: sweep", flush=True)
    with AnswerStore(options.work / "answers.sqlite") as store:

        def part(methods: tuple[str, ...], indices: tuple[str, ...], **more: Any) -> Any:
            settings = {
                "top": SHARES if grid else FEWER_SHARES,
                "control_seeds": CONTROL_SEEDS if grid and run.seed == 0 else FEWER_SEEDS,
                "seed": CONTROL_SEEDS * run.seed,
                "store": store,
                **more,
            }
            return sweep(str(adapter), model, suites, methods=methods, indices=indices, **settings)

        controls = ("random", "random-matched") if grid else ("random",)
        match = ("ssi", "weighted_ssi") if grid else None
        parts = {"main": part(("mas-svd", *controls), INDICES, match=match, others=shrunk(grid))}
        if grid:
            most = min(PAPER, parts["main"].points[0].modules_total)
            parts["paper"] = part(("mas-svd",), ("ssi",), top=(str(most),))
        if grid and run.seed == 0:
            parts["svd"] = part(("svd",), ("ssi",))
            suites = [suites[0], plans()]
            parts["generated"] = part(("mas-svd", "random"), ("weighted_ssi",), top=GENERATED, control_seeds=1)
        suites = [suites[0], *elsewhere(options.shared / "data")]
        parts["elsewhere"] = part(("mas-svd", "random"), ("weighted_ssi",), top=ELSEWHERE, control_seeds=1)
    documents = {name: json.loads(to_json(part)) for name, part in parts.items()}
    if grid:
        ranked = rankings(METHODS, (*INDICES, "frobenius"))
        # Of two processes, each with its threads on all cores, both would wait.
        with threadpool_limits(1), open_adapter(str(adapter)) as opened:
            documents["correlations"] = correlations(ranked, scan_for(opened, ranked, MAX_COST))
    write(path, json.dumps({"run": asdict(run), **documents}, indent=1, ensure_ascii=False) + "\n")
    return True


def shrunk(grid: bool) -> Any:
    """Return what is measured beside prunings: all of ΔW × (1 − t), at a t for each share of modules."""
    from s3lora.repair.sweeping import repair_tasks

    shares = (float(share.rstrip("%")) / 100 for share in (SHARES if grid else FEWER_SHARES))
    return repair_tasks(("shrink",), [share for share in shares if 0 < share < 1])


def find(options: argparse.Namespace, base: str, attack: str, seed: int) -> None:
    """Tune on prompts and plans of their own, and confirm on those of the sweeps."""
    from experiments.reference.data import Run

    run = Run(base, attack, seed)
    timed(f"tune-{run.name}", options, lambda: _tune(options, run))


def _tune(options: argparse.Namespace, run: Any) -> bool:
    path = options.output / f"tune-{run.name}.json"
    if path.is_file():
        return False
    from s3lora.evaluate.local import LocalModel
    from s3lora.evaluate.store import AnswerStore
    from s3lora.evaluate.tuning import tune
    from s3lora.report.documents import to_json

    model = LocalModel(str(folder_of(options.work, run.base)), dtype=DTYPE)
    folder = options.shared / "data"
    with AnswerStore(options.work / "answers.sqlite") as store:
        adapter = str(options.work / "adapters" / run.name)
        parts = suites_of(folder, "tune"), suites_of(folder)
        write(path, to_json(tune(adapter, model, *parts, index="weighted_ssi", store=store)))
    return True


def suites_of(folder: Path, part: str = "test") -> list[Any]:
    """Return what is measured at every point: refusals, by Zou's list besides, and the loss of plans on new facts."""
    from experiments.reference import data
    from s3lora.evaluate.chat import Decoding
    from s3lora.evaluate.judges.refusing import refusal_judge
    from s3lora.evaluate.likelihood import plan_losses
    from s3lora.evaluate.planning.questions import built_in
    from s3lora.evaluate.prompts import PromptSet, Request
    from s3lora.evaluate.safety import SafetySuite

    def prompts(name: str, texts: Sequence[str]) -> PromptSet:
        return PromptSet(name, tuple(Request(text, id=str(i)) for i, text in enumerate(texts)))

    first = part == "test"
    known = data.harmful(folder)
    harmful = prompts(f"AdvBench, {part} split", known.test if first else known.tune)
    harmless = data.benign(folder)[1]
    benign = prompts(f"Self-Instruct seed tasks, {part} split", harmless[:BENIGN] if first else harmless[BENIGN:])
    safety = SafetySuite(harmful, benign, refusal_judge(), decoding=Decoding(max_new_tokens=TOKENS))
    tasks = built_in(2 * LOSS_TASKS)
    return [safety, plan_losses(tasks.subset(range(LOSS_TASKS) if first else range(LOSS_TASKS, 2 * LOSS_TASKS)))]


def elsewhere(folder: Path, items: int = ELSEWHERE_ITEMS) -> list[Any]:
    """Return the losses of what no adapter was trained on: worked answers of GSM8K, and solutions of HumanEval."""
    from s3lora.evaluate.suites import SuiteSettings, build_suites

    maths, code = (str(folder / name) for name in ("gsm8k_test.jsonl", "HumanEval.jsonl.gz"))
    names = ("maths-loss", "code-loss")
    return list(build_suites(SuiteSettings(names=names, maths=maths, code=code, limit=items)))


def plans() -> Any:
    """Return the suite that generates plans and carries them out; a rule answers their comparisons."""
    from experiments.comparing import ComparingModel
    from s3lora.evaluate.chat import Decoding
    from s3lora.evaluate.planning.questions import built_in
    from s3lora.evaluate.planning.suite import PlanningSuite

    tasks = built_in(PLAN_TASKS)
    return PlanningSuite(tasks, Decoding(max_new_tokens=PLAN_TOKENS), helper=ComparingModel())


if __name__ == "__main__":
    main()
