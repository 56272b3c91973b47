"""Run the tools of others and ours on the same adapters, and keep what came out: docs/results/coming-from/results.json.

    python -m venv ENVS/NAME && ENVS/NAME/bin/pip install PACKAGE     for adaptersentry, gradience, sft-cli and mergekit
    python -m experiments.coming_from ENVS

PEFT, torch and transformers are taken from the Python that runs this. A tool whose environment is not there is kept as
not run. Every result is read as it lies in the files, and held against dense updates that are computed here.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "coming-from" / "results.json"
PACKAGES = {"adaptersentry": "adaptersentry", "gradience": "gradience", "sft-cli": "sft-cli", "mergekit": "mergekit"}
HIDDEN, KEYS, INNER, RANK, ALPHA = 64, 32, 96, 8, 16
SHAPES = {
    f"model.layers.{i}.{name}": (m, HIDDEN)
    for i in range(2)
    for name, m in (("self_attn.q_proj", HIDDEN), ("self_attn.v_proj", KEYS), ("mlp.up_proj", INNER))
}
PREFIX = "base_model.model."
FILE = "adapter_model.safetensors"
#: Seconds that a tool may take.
PATIENCE = 240
Dense = dict[str, np.ndarray[Any, Any]]


def adapter(folder: Path, seed: int, *, rslora: bool = False) -> Path:
    """Write an adapter of rank 8 whose singular values halve from each to the next; rsLoRA scales it by 16 / √8."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    tensors = {}
    root = np.sqrt(0.5 ** np.arange(RANK))
    for path, (m, n) in SHAPES.items():
        left, right = (np.linalg.qr(random.normal(size=(size, RANK)))[0] for size in (m, n))
        tensors[f"{PREFIX}{path}.lora_A.weight"] = np.ascontiguousarray((right * root).T.astype(np.float32))
        tensors[f"{PREFIX}{path}.lora_B.weight"] = (left * root).astype(np.float32)
    save_file(tensors, folder / FILE, {"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny", "r": RANK,
              "lora_alpha": ALPHA, "target_modules": ["q_proj", "v_proj", "up_proj"], "bias": "none",
              "use_rslora": rslora}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def dense(weights: Path, config: Path | None = None) -> Dense:
    """Return s·B·A of every module by PEFT's rule; without a configuration beside the file, s is 1."""
    tensors = load_file(weights)
    place = config or weights.parent / "adapter_config.json"
    fields = json.loads(place.read_text()) if place.exists() else None
    made = {}
    for name, a in tensors.items():
        if ".lora_A" not in name:
            continue
        path = name.removeprefix(PREFIX).split(".lora_A")[0]
        scale = 1.0
        if fields is not None:
            rank, alpha = len(a), _pattern(fields.get("alpha_pattern"), path, fields["lora_alpha"])
            # PEFT divides by the rank that the configuration gives, which has to be that of the file.
            scale = alpha / (math.sqrt(rank) if fields.get("use_rslora") else rank)
        made[path] = scale * tensors[name.replace("lora_A", "lora_B")].astype(np.float64) @ a.astype(np.float64)
    return made


def _pattern(pattern: Mapping[str, float] | None, path: str, otherwise: float) -> float:
    return next((value for key, value in (pattern or {}).items() if path.endswith(key.lstrip("^"))), otherwise)


def error(found: Dense, wanted: Dense) -> float | None:
    """Return the largest ‖found − wanted‖ / ‖wanted‖ over modules, None where modules are missing."""
    if found.keys() != wanted.keys():
        return None
    return rounded(max(float(np.linalg.norm(found[path] - one) / np.linalg.norm(one)) for path, one in wanted.items()))


def rounded(value: float) -> float:
    """Return four digits: the rest depends on the machine."""
    return float(f"{value:.3e}") if abs(value) > 1e-5 else 0.0


def nearest(update: np.ndarray[Any, Any], rank: int) -> np.ndarray[Any, Any]:
    """Return the best approximation of a rank."""
    u, sizes, v = np.linalg.svd(update, full_matrices=False)
    return np.asarray((u[:, :rank] * sizes[:rank]) @ v[:rank])


class Desk:
    """The files of one run, and the tools."""

    def __init__(self, folder: Path, envs: Path) -> None:
        self.folder, self.envs = folder, envs
        self.plain, self.other = adapter(folder / "plain", 0), adapter(folder / "other", 1)
        self.rslora, self.rslora2 = (
            adapter(folder / "rslora", 0, rslora=True),
            adapter(folder / "rslora2", 1, rslora=True),
        )
        self.updates = {one.name: dense(one / FILE) for one in (self.plain, self.other, self.rslora, self.rslora2)}

    def tool(self, env: str, *words: object) -> str:
        """Run a tool and return what it printed; raise CalledProcessError where it fails."""
        command = [str(self.envs / env / "bin" / str(words[0])), *map(str, words[1:])]
        offline = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        offline.pop("PYTHONPATH", None)  # a tool sees its own environment alone
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=self.folder, timeout=PATIENCE, env=offline
        )
        return done.stdout

    def ours(self, *words: object) -> Any:
        """Run our command and return its JSON."""
        from s3lora.cli.main import run

        out = io.TextIOWrapper(io.BytesIO(), "utf-8")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()) as err:
            status = run([*map(str, words), "--format", "json"])
        if status:
            raise RuntimeError(err.getvalue())
        out.seek(0)
        return json.loads(out.read())


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


def tried(runs: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Run each; one that fails is kept as what it said."""
    found = {}
    for name, run in runs.items():
        try:
            found[name] = run()
        except FileNotFoundError:
            found[name] = {"not run": "not installed"}
        except subprocess.TimeoutExpired:
            found[name] = {"failed": f"did not end in {PATIENCE} s"}
        except subprocess.CalledProcessError as failed:
            lines = (failed.stderr or failed.stdout).strip().splitlines()
            found[name] = {"failed": lines[-1][:200] if lines else f"status {failed.returncode}"}
    return found


def beside(desk: Desk, weights: Path, source: Path) -> Path:
    """Put a file that a tool wrote alone beside the configuration of its source, as its user would."""
    folder = desk.folder / f"beside-{weights.stem}"
    folder.mkdir()
    (folder / FILE).write_bytes(weights.read_bytes())
    (folder / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    return folder


def alone(desk: Desk, weights: Path, source: Path, rank: int, wanted: Dense) -> dict[str, float | None]:
    """Return the errors of a file that a tool wrote without a configuration.

    `scaled` is that of its products by the scaling that the source had; `applied` that of what PEFT makes of it beside
    the configuration of the source with the new rank, where alpha is still divided by it.
    """
    products, old = dense(weights, desk.folder / "none.json"), ALPHA / RANK
    if json.loads((source / "adapter_config.json").read_text())["use_rslora"]:
        old = ALPHA / math.sqrt(RANK)
    scaled = {path: old * one for path, one in products.items()}
    return {
        "scaled": error(scaled, wanted),
        "applied": error(applied(beside(desk, weights, source), rank=rank), wanted),
    }


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


def applied(folder: Path, rank: int | None = None) -> Dense:
    """Return what PEFT applies of a folder, by its own classes; `rank` replaces r where a tool writes no configuration."""
    import peft
    import torch
    import transformers

    if rank is not None:
        place = folder / "adapter_config.json"
        place.write_text(json.dumps({**json.loads(place.read_text()), "r": rank}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        config = transformers.LlamaConfig(vocab_size=99, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=2,
                                          num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
        model = peft.PeftModel.from_pretrained(transformers.LlamaForCausalLM(config), folder)
    layers = {
        name.removeprefix(PREFIX): layer for name, layer in model.named_modules() if hasattr(layer, "get_delta_weight")
    }
    return {
        name: layer.get_delta_weight("default").detach().numpy().astype(np.float64) for name, layer in layers.items()
    }


def ranks(desk: Desk) -> dict[str, Any]:
    """Say which ranks are chosen, of singular values that halve: by 95 % of the energy, and by what else a tool has."""

    def ours() -> Any:
        document = desk.ours("resize", desk.plain, "--energy", "95%", "-o", desk.folder / "ours-energy")
        return {"95 % of the energy": sorted({module["rank"] for module in document["modules"]})}

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
        return {name: one["uniform_max"] for name, one in document["policy_global_suggestions"].items()}

    energy = np.cumsum(0.25 ** np.arange(RANK)) / np.sum(0.25 ** np.arange(RANK))
    right = {"95 % of the energy": [int(np.argmax(energy >= 0.95)) + 1]}
    return {"right": right, **tried({"s3lora": ours, "sft-cli": sft, "gradience": gradience})}


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
            desk.tool("gradience", "gradience", "merge-plan", "--adapter-a", first, "--adapter-b", second, "--output-rank",
                      str(2 * RANK), "--output-dir", plan)  # fmt: skip
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
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.LlamaConfig(vocab_size=99, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=2,
                                          num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
        model = peft.PeftModel.from_pretrained(transformers.LlamaForCausalLM(config), first, adapter_name="a")
        model.load_adapter(second, adapter_name="b")
        more = {"svd_rank": 2 * RANK} if kind == "svd" else {}
        model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "sum", combination_type=kind, **more)
    layers = {
        name.removeprefix(PREFIX): layer for name, layer in model.named_modules() if hasattr(layer, "get_delta_weight")
    }
    return {name: layer.get_delta_weight("sum").detach().numpy().astype(np.float64) for name, layer in layers.items()}


def models(desk: Desk) -> dict[str, Any]:
    """Take an adapter out of a tuned model, which s3lora measures and does not write, and put one into it."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=99, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=2,
                                      num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)  # fmt: skip
    base = desk.folder / "base"
    transformers.LlamaForCausalLM(config).save_pretrained(base)
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
        desk.tool("mergekit", "mergekit-extract-lora", "--model", tuned, "--base-model", base, "--out-path", out, "--max-rank",
                  str(RANK), "--include-regex", "q_proj|v_proj|up_proj", "--quiet")  # fmt: skip
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


def versions(envs: Path) -> dict[str, str]:
    """Return the version of each tool, or that it was not run."""
    from importlib.metadata import version

    found = {name: version(name) for name in ("peft", "transformers")}
    for name, package in PACKAGES.items():
        python = envs / name / "bin" / "python"
        code = f"from importlib.metadata import version; print(version({package!r}))"
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
        parts = {"scans": scans, "resizes": resizes, "ranks": ranks, "sums": sums, "models": models}
        found = {"versions": versions(envs), **{name: run(desk) for name, run in parts.items()}}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
