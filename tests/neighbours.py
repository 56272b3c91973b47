"""A made-up reference population around the built-in example, for the pages that hold it against one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import s3lora
from s3lora.fleet.populations.reference import build_reference
from s3lora.fleet.run import fleet_scan
from tests.fleet.inline import Inline

EXAMPLE = Path(s3lora.__file__).parent / "data" / "demo-adapter"
COUNT = 80


def write_reference(out: Path, scratch: Path) -> None:
    """Write the reference of 80 adapters like the example, whose directions are weighted otherwise."""
    tensors = load_file(EXAMPLE / "adapter_model.safetensors")
    for number in range(COUNT):
        random = np.random.default_rng(number)
        folder = scratch / "adapters" / f"run-{number:02d}"
        folder.mkdir(parents=True)
        shutil.copy(EXAMPLE / "adapter_config.json", folder)
        spread = random.uniform(0, 0.6)
        made = {
            name: (values * np.exp(spread * random.standard_normal(values.shape[1]))).astype(values.dtype)
            for name, values in tensors.items()
            if ".lora_B." in name
        }
        save_file({**tensors, **made}, folder / "adapter_model.safetensors", {"format": "pt"})
    fleet_scan([str(scratch / "adapters")], scratch / "results", engine=Inline)
    build_reference(scratch / "results", out, "our runs")
