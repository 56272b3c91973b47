"""What AdapterSentry says of every kind of adapter that `docs/make_kinds.py` makes."""

from __future__ import annotations

import json
import subprocess
import zlib
from typing import Any

import numpy as np

from experiments.coming.desk import Desk
from tests.kinds import KINDS


def kinds(desk: Desk) -> dict[str, Any]:
    """Return for each kind with one safetensors file: how many modules were analysed, and its verdict."""
    found = {}
    for number, kind in enumerate(KINDS):
        folder = desk.folder / f"kind-{number}"
        folder.mkdir()
        kind.make(folder, np.random.default_rng([zlib.crc32(kind.title.encode()), 0]))
        files = list(folder.glob("*.safetensors"))
        if len(files) != 1:
            found[kind.title] = {"not run": "no single file of safetensors"}
            continue
        command = [desk.envs / "adaptersentry" / "bin" / "adaptersentry", "scan", files[0], "--format", "full-json"]
        try:
            document = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
        except (FileNotFoundError, ValueError):
            found[kind.title] = {"not run": "no result"}
            continue
        analysed = document["coverage"]["n_modules_analyzed"]
        found[kind.title] = {"status": document["status"], "modules": analysed, "action": document["verdict"]["action"]}
    return {"adaptersentry": found}
