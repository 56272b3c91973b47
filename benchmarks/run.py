"""Measure speed and memory, and write `benchmarks/results.json` and the table in `docs/benchmarks.md`.

    python benchmarks/run.py [--work FOLDER] [--repeats N] [--before SRC]
                             [--only scan,large,compared,prune,imports,module,growth,cost,page,first,types,step,
                              look,sweep,fleet]

`compared` sets this version beside an earlier one, whose folder `src` is given by `--before`. Runs are paired and
alternate; figures are medians, ratios are medians of paired ratios. It needs about 6 GB of disk
and, for the dense `released` script, some minutes. Seven parts are run when named only. `sweep` takes half an hour,
torch, the small model, and AdvBench as `../shared/data/advbench_harmful_behaviors.csv`. `first` takes minutes, torch
and the small model; so do `types`, `step` and `look`. `page` takes minutes and Chromium. `fleet` takes half an hour,
the extra of that name, and 15 GB of disk.
"""

from __future__ import annotations

import argparse
import compileall
import datetime
import json
import os
import platform
import shutil
import tempfile
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import cost
import growth
import page
import render
import shapes
from measure import median, paired, ratio, seconds

HERE = Path(__file__).parent
FLOOR = str(HERE / "floor.py")


def scan(folder: Path, name: str, repeats: int) -> dict[str, object]:
    """Compare a whole `scan --format json` with the plain floor and with the tuned one."""
    adapter = shapes.model(folder, name)
    weights = str(adapter / "adapter_model.safetensors")
    costs = paired(
        {
            "floor": [FLOOR, weights],
            "tuned": [FLOOR, weights, "blocks"],
            "scan": ["-m", "s3lora", "scan", "--format", "json", str(adapter)],
        },
        repeats,
    )
    return {
        "shape": name,
        "megabytes": round(os.path.getsize(weights) / 1e6, 1),
        "repeats": repeats,
        **{key: median(cost)._asdict() for key, cost in costs.items()},
        "cpu_ratio": ratio(costs["scan"], costs["floor"], "cpu"),
        "wall_ratio": ratio(costs["scan"], costs["floor"], "wall"),
        "cpu_ratio_tuned": ratio(costs["scan"], costs["tuned"], "cpu"),
        "wall_ratio_tuned": ratio(costs["scan"], costs["tuned"], "wall"),
    }


#: What `compared` measures: the adapter, and the options of `scan`.
WORKS = {
    "experts": ("experts", ("--format", "json")),
    "8b": ("8b", ("--format", "json")),
    "8b page": ("8b", ("--format", "html")),
    "r512": ("r512", ("--format", "json")),
}
#: Runs the version whose sources lie in a folder.
OTHER = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("s3lora", run_name="__main__", alter_sys=True)
"""


def compared(folder: Path, repeats: int, before: Path) -> dict[str, object]:
    """Compare scans, and the help, with those of an earlier version, and scans with the floors."""
    results: dict[str, object] = {}
    for name, (shape, options) in WORKS.items():
        adapter = shapes.model(folder, shape)
        weights = str(adapter / "adapter_model.safetensors")
        given = ["scan", *options, str(adapter)]
        costs = paired(
            {
                "floor": [FLOOR, weights],
                "tuned": [FLOOR, weights, "blocks"],
                "now": ["-m", "s3lora", *given],
                "before": ["-c", OTHER, str(before), *given],
            },
            max(1, repeats // 2) if shape in ("experts", "r512") else repeats,
        )
        results[name] = {
            **{key: median(cost)._asdict() for key, cost in costs.items()},
            **{f"{a} × {b}": ratio(costs[a], costs[b], "cpu") for a in ("now", "before") for b in ("floor", "tuned")},
            "repeats": len(costs["now"]),
        }
    costs = paired({"now": ["-m", "s3lora", "--help"], "before": ["-c", OTHER, str(before), "--help"]}, repeats)
    results["help"] = {key: median(cost)._asdict() for key, cost in costs.items()}
    return results


def module() -> dict[str, object]:
    """Compare one 4096 × 4096 module of rank 8 with `released` and with MAS-SVD on the dense ΔW."""
    from s3lora.spectrum.factored import FactoredUpdate
    from s3lora.spectrum.methods import mas_svd, released

    random = np.random.default_rng(0)
    a = random.standard_normal((8, 4096), dtype=np.float32)
    b = random.standard_normal((4096, 8), dtype=np.float32)

    def dense() -> np.ndarray:
        delta = b.astype(np.float64) @ a.astype(np.float64)
        rows, columns = np.linalg.norm(delta, axis=1), np.linalg.norm(delta, axis=0)
        s_r = np.linalg.svd(delta / rows[:, None], compute_uv=False)[:8]
        s_c = np.linalg.svd(delta / columns, compute_uv=False)[:8]
        return np.sqrt(rows.mean() * s_r * columns.mean() * s_c)

    with threadpool_limits(limits=1, user_api="blas"):
        ours = seconds(lambda: mas_svd(FactoredUpdate(a, b)), 200)
    # The dense ones may use all cores: that is how they are run.
    error = float(np.max(np.abs(mas_svd(FactoredUpdate(a, b)) / dense() - 1)))
    theirs = seconds(dense, 1)
    script = seconds(lambda: released(FactoredUpdate(a, b)), 1)
    return {
        "mas_svd_seconds": ours,
        "dense_mas_svd_seconds": theirs,
        "released_seconds": script,
        "times_faster_than_dense": theirs / ours,
        "times_faster_than_released": script / ours,
        "largest_relative_difference_to_dense": error,
    }


def prune(folder: Path, repeats: int) -> dict[str, object]:
    """Compare `prune` of the 70B shape with copying the file and scanning it."""
    adapter = shapes.model(folder, "70b")
    out, copy = folder / "pruned", folder / "copy.safetensors"
    source = str(adapter / "adapter_model.safetensors")
    copier = "import shutil, sys; shutil.copyfile(*sys.argv[1:])"
    commands = {
        "copy": ["-c", copier, source, str(copy)],
        "scan": ["-m", "s3lora", "scan", "--format", "json", str(adapter)],
        "prune": ["-m", "s3lora", "prune", str(adapter), "-o", str(out), "--force", "--force-flat"],
    }
    costs = paired(commands, repeats)
    shutil.rmtree(out)
    copy.unlink()
    sums = [a.wall + b.wall for a, b in zip(costs["copy"], costs["scan"], strict=True)]
    ratios = sorted(p.wall / total for p, total in zip(costs["prune"], sums, strict=True))
    return {
        **{key: median(cost)._asdict() for key, cost in costs.items()},
        "repeats": repeats,
        "wall_ratio": ratios[len(ratios) // 2],
    }


def imports(repeats: int) -> dict[str, object]:
    """Take the CPU time of imports in a fresh interpreter; names of s3lora are imported when they are first used."""
    statements = {"nothing": "", "numpy": "import numpy", "s3lora": "import s3lora", "all": "from s3lora import *"}
    costs = paired({name: ["-c", statement] for name, statement in statements.items()}, repeats)
    return {name: median(cost).cpu for name, cost in costs.items()}


def _look(repeats: int) -> dict[str, object]:
    import training_look  # needs torch

    return {"machine": machine(), **training_look.measure(repeats)}


def _step(repeats: int) -> dict[str, object]:
    import repair_step  # needs torch

    return {"machine": machine(), **repair_step.measure(repeats)}


def _types(repeats: int) -> dict[str, object]:
    import model_types  # needs torch

    return {"machine": machine(), **model_types.measure(repeats)}


def _sweep(folder: Path) -> dict[str, object]:
    import sweep  # needs torch

    return {"machine": machine(), **sweep.measure(folder)}


def _first(folder: Path, repeats: int) -> dict[str, object]:
    import first_token  # needs torch

    return {"machine": machine(), "rows": first_token.measure(folder, repeats)}


def _fleet(folder: Path, repeats: int) -> dict[str, object]:
    import fleet  # needs the extra

    return {
        "machine": machine(),
        "local": fleet.local(folder, repeats),
        "ray": fleet.ray(folder, repeats),
        "memory": fleet.memory(folder),
        "large": fleet.large(folder, repeats),
        "simulated": fleet.simulated(folder, repeats),
        "parts": fleet.parts(folder, repeats),
    }


def machine() -> dict[str, object]:
    """Describe the machine without naming it."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="folder for the adapters (kept); by default a temporary one")
    parser.add_argument("--only", default="scan,large,prune,imports,module,growth,cost")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--before", type=Path, help="sources of the version that `compared` sets this one beside")
    options = parser.parse_args()
    if "compared" in options.only.split(",") and options.before is None:
        parser.error("compared needs --before")
    # As pip leaves a package: with bytecode, whatever this environment says of writing it.
    for source in filter(None, (HERE.parent / "src", options.before)):
        compileall.compile_dir(source, quiet=2)
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        parts = {
            "scan": lambda: [scan(folder, name, options.repeats) for name in ("8b", "1b")],
            "large": lambda: scan(folder, "70b", max(1, options.repeats // 2)),
            "compared": lambda: compared(folder, options.repeats, options.before.resolve()),
            "prune": lambda: prune(folder, max(1, options.repeats // 2)),
            "imports": lambda: imports(options.repeats),
            # Last: a process started later would count the memory these take as its own peak.
            "module": module,
            "growth": growth.measure,
            "cost": lambda: cost.measure(folder),
            "page": lambda: {"machine": machine(), "rows": page.measure(folder)},
            "first": lambda: _first(folder, max(1, options.repeats // 2)),
            "types": lambda: _types(max(1, options.repeats // 2)),
            "step": lambda: _step(options.repeats),
            "look": lambda: _look(options.repeats),
            "sweep": lambda: _sweep(folder),
            "fleet": lambda: _fleet(folder, max(1, options.repeats // 2)),
        }
        for name in (name for name in parts if name in options.only.split(",")):
            results[name] = parts[name]()
            print(name, json.dumps(results[name], indent=1), flush=True)
    if not set(options.only.split(",")) <= {"page", "first", "types", "step", "look", "sweep", "fleet"}:
        results["machine"] = machine()
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    render.write(results, HERE.parent / "docs")


if __name__ == "__main__":
    main()
