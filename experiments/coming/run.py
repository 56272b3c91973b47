"""Run the tools of others and ours on the same adapters, and keep what came out: docs/results/coming-from/results.json.

    python -m venv ENVS/NAME && ENVS/NAME/bin/pip install PACKAGE     for adaptersentry, gradience, sft-cli and mergekit
    python -m experiments.coming.run ENVS

PEFT, torch and transformers are taken from the Python that runs this. A tool whose environment is not there is kept as
not run. Every result is read as it lies in the files, and held against dense updates that are computed here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from experiments.coming.desk import Desk
from experiments.coming.joined import models, sums
from experiments.coming.kinds import kinds
from experiments.coming.single import ranks, resizes, scans

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs" / "results" / "coming-from" / "results.json"
PACKAGES = ("adaptersentry", "gradience", "sft-cli", "mergekit")


def versions(envs: Path) -> dict[str, str]:
    """Return the version of each tool, or that it was not run."""
    found = {name: version(name) for name in ("peft", "transformers")}
    for name in PACKAGES:
        python = envs / name / "bin" / "python"
        code = f"from importlib.metadata import version; print(version({name!r}))"
        try:
            found[name] = subprocess.run(
                [python, "-c", code], capture_output=True, text=True, check=True
            ).stdout.strip()
        except (FileNotFoundError, subprocess.CalledProcessError):
            found[name] = "not run: not installed"
    found["kohya's resize_lora.py"] = "not run: it is in no package registry"
    return found


def main(envs: Path) -> None:
    """Run everything and write the results."""
    with tempfile.TemporaryDirectory() as place:
        desk = Desk(Path(place), envs.resolve())
        parts = {"scans": scans, "resizes": resizes, "ranks": ranks, "sums": sums, "models": models, "kinds": kinds}
        found = {"versions": versions(envs), **{name: run(desk) for name, run in parts.items()}}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
