"""From the start of a small `eval` to its first token, beside loading the model and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from measure import median, paired, ratio

ADAPTER = Path(__file__).parents[1] / "src" / "s3lora" / "data" / "demo-adapter"
#: Ends the process when the model is there.
LOAD = """
import os, sys
from s3lora.evaluate.local import LocalModel
LocalModel(sys.argv[1])
os._exit(0)
"""
#: Runs the command, and ends the process when the first token of an answer is there.
FIRST = """
import os, sys
from s3lora.cli.main import run
from s3lora.evaluate.local import LocalModel
answer = LocalModel.generate
def generate(model, *arguments):
    model.base.model.get_output_embeddings().register_forward_hook(lambda *_: os._exit(0))
    return answer(model, *arguments)
LocalModel.generate = generate
run(sys.argv[1:])
sys.exit("no token came")
"""
SMALL = ("--suite", "safety", "--limit", "2", "--no-cache")


def measure(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Measure the demo model as the GGUF file that it comes as, and as a folder of safetensors."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    bases = {"GGUF, 4 bits": "demo", "safetensors, float32": str(_folder(folder / "model"))}
    return [{"base": name, "repeats": repeats, **_measure(base, repeats)} for name, base in bases.items()]


def _measure(base: str, repeats: int) -> dict[str, Any]:
    costs = paired(
        {"load": ["-c", LOAD, base], "first": ["-c", FIRST, "eval", str(ADAPTER), "--base", base, *SMALL]}, repeats
    )
    return {
        **{name: median(cost)._asdict() for name, cost in costs.items()},
        "wall_ratio": ratio(costs["first"], costs["load"], "wall"),
        "cpu_ratio": ratio(costs["first"], costs["load"], "cpu"),
    }


def _folder(folder: Path) -> Path:
    from s3lora.evaluate.loading import load_base

    if not folder.exists():
        loaded = load_base("demo")
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
    return folder
