"""How long the scans of others and ours take: docs/results/coming-from/speed.json.

    python -m experiments.coming.speed ENVS

ENVS is that of `experiments.coming.run`. Each tool is a process of its own, from its start to its JSON, as its user
would run it. Tools take turns, so that what else the machine does falls on all of them; a first turn, which fills the
caches, does not count. It wants a machine with nothing else to do.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from experiments.coming.desk import FILE, PREFIX
from experiments.coming.run import ROOT, versions

OUT = ROOT / "docs" / "results" / "coming-from" / "speed.json"
TURNS = 5
TOOLS = ("adaptersentry", "gradience", "sft-cli")
#: A model of seven billion parameters: the sizes (m, n) of its projections, and its layers.
LARGE = {
    **dict.fromkeys((f"self_attn.{one}_proj" for one in "qkvo"), (4096, 4096)),
    **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (11008, 4096)),
    "mlp.down_proj": (4096, 11008),
}
LAYERS, RANK = 32, 16


def large(folder: Path) -> Path:
    """Write an adapter of 224 modules of rank 16 in float16, at random."""
    random = np.random.default_rng(0)
    folder.mkdir()
    tensors = {}
    for path, (m, n) in ((f"model.layers.{i}.{name}", size) for i in range(LAYERS) for name, size in LARGE.items()):
        for part, shape in (("lora_A", (RANK, n)), ("lora_B", (m, RANK))):
            tensors[f"{PREFIX}{path}.{part}.weight"] = random.normal(size=shape, scale=0.02).astype(np.float16)
    save_file(tensors, folder / FILE, {"format": "pt"})
    names = sorted(name.rpartition(".")[2] for name in LARGE)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "large", "r": RANK,
              "lora_alpha": 2 * RANK, "target_modules": names, "bias": "none"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def commands(envs: Path, folder: Path) -> dict[str, list[str]]:
    """Return what looks at every module with each tool."""
    file = str(folder / FILE)
    found = {
        "s3lora": [str(Path(sys.executable).with_name("s3lora")), "scan", str(folder), "--format", "json"],
        "adaptersentry": ["adaptersentry", "scan", file, "--format", "full-json"],
        "sft-cli": ["sft", "lora", "svd", file, "--json"],
        "gradience": ["gradience", "audit", "--peft-dir", str(folder), "--json", "--layers", "--no-udr"],
    }
    own = {name: [str(envs / name / "bin" / words[0]), *words[1:]] for name, words in found.items() if name != "s3lora"}
    return {"s3lora": found["s3lora"], **{name: words for name, words in own.items() if Path(words[0]).exists()}}


def once(words: Sequence[str], folder: Path) -> float:
    """Run a command; return its seconds by the clock."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    with (folder / "out").open("wb") as out:
        start = time.perf_counter()
        subprocess.run(words, env=environment, stdout=out, stderr=subprocess.STDOUT, check=True)
        return time.perf_counter() - start


def measured(runs: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return of each tool the median seconds, their range, and the median of its ratio to ours, turn by turn."""
    return {
        name: {
            "seconds": round(statistics.median(times), 2),
            "range": [round(min(times), 2), round(max(times), 2)],
            "ratio": round(statistics.median(a / b for a, b in zip(times, runs["s3lora"], strict=True)), 2),
        }
        for name, times in runs.items()
    }


def main(envs: Path) -> None:
    """Measure both adapters and write the results."""
    found: dict[str, Any] = {
        "versions": {name: one for name, one in versions(envs).items() if name in TOOLS},
        "turns": TURNS,
        "cores": os.cpu_count(),
        "adapters": {},
    }
    with tempfile.TemporaryDirectory() as place:
        example = ROOT / "src" / "s3lora" / "data" / "demo-adapter"
        adapters = {"120 modules, rank 8": example, "224 modules, rank 16": large(Path(place) / "large")}
        for title, folder in adapters.items():
            tools = commands(envs.resolve(), folder)
            runs: dict[str, list[float]] = {name: [] for name in tools}
            for turn in range(TURNS + 1):
                for name, words in tools.items():
                    taken = once(words, Path(place))
                    if turn:
                        runs[name].append(taken)
                    print(f"{title}: {name}: {taken:.2f} s", flush=True)
            found["adapters"][title] = measured(runs)
    OUT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
