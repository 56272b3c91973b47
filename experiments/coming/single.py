"""One adapter: what scans say of it, and what becomes of it at a lower rank."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from experiments.coming.desk import (
    ALPHA,
    FILE,
    RANK,
    SHAPES,
    Dense,
    Desk,
    alone,
    applied,
    error,
    nearest,
    rounded,
    tried,
)

#: Per cent of ‖ΔW‖² that are to be kept.
ENERGIES = (90, 95)


def scans(desk: Desk) -> dict[str, Any]:
    """Say what each scan takes the scaling of the rsLoRA adapter to be, and the norm of its first module."""
    path = next(iter(SHAPES))
    update = desk.updates["rslora"][path]
    bare = float(np.linalg.norm(update)) / (ALPHA / math.sqrt(RANK))
    found: dict[str, Any] = {
        "right": {"scaling": rounded(ALPHA / math.sqrt(RANK)), "norm": rounded(float(np.linalg.norm(update)))}
    }
    ours = desk.ours("scan", desk.rslora, "--method", "svd", "--no-policy")["modules"]
    one = next(module for module in ours if module["path"] == path)
    found["s3lora"] = {"scaling": rounded(one["scaling"]), "norm": rounded(one["indices"]["frobenius"])}

    def sentry() -> dict[str, Any]:
        document = json.loads(
            desk.tool("adaptersentry", "adaptersentry", "scan", desk.rslora / FILE, "--format", "full-json")
        )
        module = next(m for m in document["modules"] if (m["layer"], m["module"]) == (0, "q_proj"))
        rms = float(np.exp(module["features"]["log_rms"]))
        return {
            "scaling": rounded(module["scale"]),
            "norm": rounded(rms * math.sqrt(update.size)),
            "action": document["verdict"]["action"],
        }

    def gradience() -> dict[str, Any]:
        text = desk.tool("gradience", "gradience", "audit", "--peft-dir", desk.rslora, "--json", "--layers", "--no-udr")
        document = json.loads(text[text.index("{") :])
        module = next(m for m in document["policies"]["per_layer"] if m["layer_name"].endswith(path))
        norm = module["importance_metrics"]["frobenius_norm"]
        return {"scaling": rounded(norm / bare), "norm": rounded(norm)}

    def sft() -> dict[str, Any]:
        document = json.loads(desk.tool("sft-cli", "sft", "lora", "svd", desk.rslora / FILE, "--json"))
        module = next(m for m in document["modules"] if m["module"] == path)
        norm = float(np.linalg.norm(module["singular_values"]))
        return {"scaling": rounded(norm / bare), "norm": rounded(norm)}

    return found | tried({"adaptersentry": sentry, "gradience": gradience, "sft-cli": sft})


def resizes(desk: Desk) -> dict[str, Any]:
    """Bring both adapters to rank 4; the error is that of what PEFT then applies, beside the smallest that there is."""
    found: dict[str, Any] = {}
    for name in ("plain", "rslora"):
        source, updates = desk.folder / name, desk.updates[name]
        best = {path: nearest(one, 4) for path, one in updates.items()}

        def ours(source: Path = source, name: str = name, updates: Dense = updates) -> float | None:
            desk.ours("resize", source, "--rank", 4, "-o", desk.folder / f"ours-{name}")
            return error(applied(desk.folder / f"ours-{name}"), updates)

        def sft(source: Path = source, name: str = name, updates: Dense = updates) -> Any:
            out = desk.folder / f"sft-{name}.safetensors"
            desk.tool("sft-cli", "sft", "lora", "resize", source / FILE, "--rank", "4", "-o", out)
            return alone(desk, out, source, 4, updates)

        def gradience(source: Path = source, name: str = name, updates: Dense = updates) -> float | None:
            out = desk.folder / f"gradience-{name}"
            desk.tool(
                "gradience",
                "gradience",
                "truncate",
                "--peft-dir",
                source,
                "--out-dir",
                out,
                "--rank",
                "4",
                "--dtype",
                "fp32",
            )
            return error(applied(out), updates)

        found[name] = {
            "smallest": error(best, updates),
            **tried({"s3lora": ours, "sft-cli": sft, "gradience": gradience}),
        }
    return found


def ranks(desk: Desk) -> dict[str, Any]:
    """Say which ranks are chosen, of singular values that halve: by 95 % of the energy, and by what else a tool has."""

    def ours() -> Any:
        found = {}
        for share in ENERGIES:
            document = desk.ours("resize", desk.plain, "--energy", f"{share}%", "-o", desk.folder / f"ours-{share}")
            found[f"{share} % of the energy"] = sorted({module["rank"] for module in document["modules"]})
        return found

    def sft() -> Any:
        document = json.loads(desk.tool("sft-cli", "sft", "lora", "svd", desk.plain / FILE, "--json"))
        out = desk.folder / "sft-auto.safetensors"
        desk.tool("sft-cli", "sft", "lora", "resize", desk.plain / FILE, "--rank", "auto", "-o", out)
        chosen = {len(values) for name, values in load_file(out).items() if "lora_A" in name}
        return {
            "suggested for 0.95": sorted({m["suggested_rank"] for m in document["modules"]}),
            "auto": sorted(chosen),
        }

    def gradience() -> Any:
        text = desk.tool("gradience", "gradience", "audit", "--peft-dir", desk.plain, "--json", "--no-udr",
                         "--rank-policies", "energy@0.95,knee,erank")  # fmt: skip
        document = json.loads(text[text.index("{") :])
        return {name: one["uniform_max"] for name, one in sorted(document["policy_global_suggestions"].items())}

    energy = np.cumsum(0.25 ** np.arange(RANK)) / np.sum(0.25 ** np.arange(RANK))
    right = {f"{share} % of the energy": [int(np.argmax(energy >= share / 100)) + 1] for share in ENERGIES}
    return {"right": right, **tried({"s3lora": ours, "sft-cli": sft, "gradience": gradience})}
