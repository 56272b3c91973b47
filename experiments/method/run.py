"""Measure what docs/method.md claims, into `docs/results/method.json`, and show it on the pages.

    python -m experiments.method.run [--shared FOLDER]

Published adapters are read from FOLDER/adapters; without it, what the file says of them stays. It takes ten minutes on
one core, nearly all of them for `released`, which forms ΔW.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.method import measure, render


def main() -> None:
    """Measure, write, and render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="folder that holds adapters/")
    shared = parser.parse_args().shared
    known = json.loads(render.RESULTS.read_text(encoding="utf-8")) if render.RESULTS.exists() else {}
    results = {
        "numpy": np.__version__,
        **quick(),
        "published": known.get("published", {}) if shared is None else measure.published(shared / "adapters"),
        "released": released(),
    }
    text = json.dumps(results, indent=1, ensure_ascii=False)
    render.RESULTS.write_text(text + "\n", encoding="utf-8")
    render.main()


def quick() -> dict[str, Any]:
    """Return what takes seconds."""
    return {
        "agreement": float(f"{measure.agreement():.0e}"),
        "robustness": measure.robustness(),
        "chance": measure.chance([(576, 576), (192, 576)]),
        "projections": measure.projections(),
        "example": measure.rankings(measure.EXAMPLE, with_released=False),
    }


def released() -> dict[str, Any]:
    """Return what takes minutes: `released` on updates of one shape, and on the built-in example."""
    example = {name: measure.values_of(updates) for name, updates in measure.example_updates().items()}
    parts = zip(*example.values(), strict=True)
    whole = measure.Values(*([item for part in column for item in part] for column in parts))
    return {
        "random": measure.released(measure.values_of(measure.random_updates())),
        "rows": measure.by_rows(),
        "projections": {name: measure.released(values) for name, values in example.items()},
        "example": measure.released(whole),
    }


if __name__ == "__main__":
    main()
