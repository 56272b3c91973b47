"""Two adapters, and adapters with models: sums, merges, and what a tuned model gives back."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from experiments.coming.desk import (
    FILE,
    RANK,
    SHAPES,
    Dense,
    Desk,
    alone,
    applied,
    deltas,
    dense,
    error,
    llama,
    rounded,
    tried,
)


def sums(desk: Desk) -> dict[str, Any]:
    """Add two adapters, without and with rsLoRA; the error is that of what is applied against the sum of updates."""
    found: dict[str, Any] = {}
    for name, one, two in (("plain", "plain", "other"), ("rslora", "rslora", "rslora2")):
        first, second = desk.folder / one, desk.folder / two
        wanted = {path: update + desk.updates[two][path] for path, update in desk.updates[one].items()}

        def ours(first: Path = first, second: Path = second, name: str = name, wanted: Dense = wanted) -> float | None:
            desk.ours("compose", first, second, "-o", desk.folder / f"sum-{name}")
            return error(applied(desk.folder / f"sum-{name}"), wanted)

        def stacked(first: Path = first, second: Path = second, name: str = name, wanted: Dense = wanted) -> Any:
            out = desk.folder / f"sft-stack-{name}.safetensors"
            desk.tool("sft-cli", "sft", "lora", "stack", first / FILE, second / FILE, "-o", out)
            return alone(desk, out, first, 2 * RANK, wanted)

        def added(first: Path = first, second: Path = second, name: str = name, wanted: Dense = wanted) -> Any:
            out = desk.folder / f"sft-add-{name}.safetensors"
            desk.tool("sft-cli", "sft", "lora", "add", first / FILE, second / FILE, "-w", "1", "-w", "1", "--rank",
                      str(2 * RANK), "-o", out)  # fmt: skip
            return alone(desk, out, first, 2 * RANK, wanted)

        def planned(first: Path = first, second: Path = second, name: str = name, wanted: Dense = wanted) -> Any:
            plan, out = desk.folder / f"plan-{name}", desk.folder / f"gradience-sum-{name}"
            both = ("--adapter-a", first, "--adapter-b", second, "--output-rank", 2 * RANK)
            desk.tool("gradience", "gradience", "merge-plan", *both, "--output-dir", plan)
            desk.tool("gradience", "gradience", "merge", "--plan", plan / "merge_plan.json", "--output-dir", out)
            return {"of the mean": error(applied(out), {path: update / 2 for path, update in wanted.items()})}

        runs: dict[str, Callable[[], Any]] = {
            "s3lora": ours,
            "gradience merge": planned,
            "sft-cli stack": stacked,
            "sft-cli add": added,
        }
        for kind in ("cat", "svd", "linear"):

            def weighted(
                kind: str = kind, first: Path = first, second: Path = second, wanted: Dense = wanted
            ) -> float | None:
                return error(peft_sum(first, second, kind), wanted)

            runs[f"peft {kind}"] = weighted
        found[name] = tried(runs)
    return found


def peft_sum(first: Path, second: Path, kind: str) -> Dense:
    """Return what PEFT's `add_weighted_adapter` makes of two adapters with weights 1 and 1."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(llama(), first, adapter_name="a")
        model.load_adapter(second, adapter_name="b")
        more = {"svd_rank": 2 * RANK} if kind == "svd" else {}
        model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "sum", combination_type=kind, **more)
    return deltas(model, "sum")


def models(desk: Desk) -> dict[str, Any]:
    """Take an adapter out of a tuned model, which s3lora measures and does not write, and put one into it."""
    base = desk.folder / "base"
    llama().save_pretrained(base)
    tensors = load_file(base / "model.safetensors")
    tuned = desk.folder / "tuned"
    tuned.mkdir()
    for name in ("config.json", "generation_config.json"):
        (tuned / name).write_bytes((base / name).read_bytes())
    wanted = desk.updates["plain"]
    moved = {
        f"{path}.weight": (tensors[f"{path}.weight"] + update).astype(np.float32) for path, update in wanted.items()
    }
    save_file({**tensors, **moved}, tuned / "model.safetensors", {"format": "pt"})

    def ours() -> Any:
        document = desk.ours("scan", "--delta", tuned, "--base-weights", base, "--method", "svd", "--no-policy")
        norms = {one["path"]: one["indices"]["frobenius"] for one in document["modules"]}
        off = max(abs(norms[path] / np.linalg.norm(one) - 1) for path, one in wanted.items())
        return {
            "changed modules found": len(norms),
            "of": len(wanted),
            "largest error of a norm": rounded(off),
            "writes an adapter": False,
        }

    def sft() -> Any:
        out = desk.folder / "extracted.safetensors"
        desk.tool(
            "sft-cli",
            "sft",
            "lora",
            "extract",
            base / "model.safetensors",
            tuned / "model.safetensors",
            "--rank",
            str(RANK),
            "-o",
            out,
        )
        found = dense(out, desk.folder / "none.json")
        found = {
            path.removesuffix(".weight"): one for path, one in found.items() if path.removesuffix(".weight") in wanted
        }
        return {"error": error(found, wanted), "writes an adapter": True}

    def mergekit() -> Any:
        out = desk.folder / "mergekit"
        which = ("--include-regex", "q_proj|v_proj|up_proj", "--max-rank", RANK, "--quiet")
        models = ("--model", tuned, "--base-model", base, "--out-path", out)
        desk.tool("mergekit", "mergekit-extract-lora", *models, *which)
        return {"error": error(applied(out), wanted), "writes an adapter": True}

    def merged() -> Any:
        out = desk.folder / "merged.safetensors"
        desk.tool(
            "sft-cli", "sft", "lora", "merge", base / "model.safetensors", desk.plain / FILE, "--scale", "2", "-o", out
        )
        found = load_file(out)
        return {
            "error": error(
                {p: found[f"{p}.weight"].astype(np.float64) - tensors[f"{p}.weight"] for p in wanted}, wanted
            )
        }

    def unscaled() -> Any:
        out = desk.folder / "merged-1.safetensors"
        desk.tool("sft-cli", "sft", "lora", "merge", base / "model.safetensors", desk.plain / FILE, "-o", out)
        found = load_file(out)
        return {
            "error": error(
                {p: found[f"{p}.weight"].astype(np.float64) - tensors[f"{p}.weight"] for p in wanted}, wanted
            )
        }

    def summed() -> Any:
        plan, out = desk.folder / "plan.yml", desk.folder / "merged-by-mergekit"
        lines = [f"- model: {base}+{one}\n  parameters: {{weight: 1}}\n" for one in (desk.plain, desk.other)]
        plan.write_text(f"merge_method: task_arithmetic\nbase_model: {base}\nmodels:\n{''.join(lines)}dtype: float32\n")
        desk.tool(
            "mergekit", "mergekit-yaml", plan, out, "--lora-merge-cache", desk.folder / "cache", "--no-copy-tokenizer"
        )
        found = load_file(next(out.glob("*.safetensors")))
        both = {path: update + desk.updates["other"][path] for path, update in wanted.items()}
        moved = {p: found[f"{p}.weight"].astype(np.float64) - tensors[f"{p}.weight"] for p in wanted}
        return {"error": error(moved, both)}

    return {
        "merge of two": tried({"mergekit": summed}),
        "extract": tried({"s3lora": ours, "sft-cli": sft, "mergekit": mergekit}),
        "merge": tried({"sft-cli with --scale 2": merged, "sft-cli without --scale": unscaled}),
        "fit": tried({"s3lora": lambda: fit(desk, base), "sft-cli": lambda: compat(desk, base)}),
    }


def fit(desk: Desk, base: Path) -> Any:
    """Say what `check` finds of the adapter in the base."""
    document = desk.ours("check", desk.plain, "--base", base)
    return {"modules that fit": sum(one["fits"] is True for one in document["modules"]), "of": len(SHAPES)}


def compat(desk: Desk, base: Path) -> Any:
    """Say the same of sft's `compat`."""
    text = desk.tool("sft-cli", "sft", "lora", "compat", base / "model.safetensors", desk.plain / FILE)
    return {"says": " ".join(text.split())[:200].replace(str(desk.folder), "")}
