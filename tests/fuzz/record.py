"""Write down what a long run of the fuzzers counted: `python -m tests.fuzz.record STATE` makes `recorded.json`.

`found` is the number of different places at which an input broke the contract, `died` that of inputs that ended the
process.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.fuzz.session import read_counts
from tests.fuzz.targets import TARGETS

RECORDED = Path(__file__).with_name("recorded.json")


def recorded(state: Path) -> dict[str, Any]:
    """Return what was counted in the folder of a run, target by target, and in all."""
    targets: dict[str, dict[str, Any]] = {}
    for name, target in TARGETS.items():
        counts = read_counts(state / name)
        if counts.executions:
            targets[name] = {
                "about": target.about,
                "seconds": round(counts.seconds),
                "executions": counts.executions,
                "accepted": counts.accepted,
                "refused": counts.refused,
                "corpus": counts.corpus,
                "found": len(counts.found),
                "died": counts.died,
            }
    keys = ("seconds", "executions", "accepted", "refused", "corpus", "found", "died")
    total = {key: sum(one[key] for one in targets.values()) for key in keys}
    return {"python": platform.python_version(), "atheris": _version(), "total": total, "targets": targets}


def _version() -> str | None:
    try:
        return version("atheris")
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(recorded(Path(sys.argv[1])), indent=2) + "\n")
