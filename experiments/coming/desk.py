"""The adapters that all tools get, the tools, and what is in the files that they write."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import subprocess
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

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


def llama() -> Any:
    """Return a Llama with the modules of `SHAPES`, always the same."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=99,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    return transformers.LlamaForCausalLM(config)


def deltas(model: Any, name: str = "default") -> Dense:
    """Return the updates that PEFT's layers hold under the name of an adapter."""
    layers = {path.removeprefix(PREFIX): layer for path, layer in model.named_modules()}
    found = {path: layer.get_delta_weight(name) for path, layer in layers.items() if hasattr(layer, "get_delta_weight")}
    return {path: one.detach().numpy().astype(np.float64) for path, one in found.items()}


def applied(folder: Path, rank: int | None = None) -> Dense:
    """Return what PEFT applies of a folder; `rank` replaces r where a tool writes no configuration."""
    import peft

    if rank is not None:
        place = folder / "adapter_config.json"
        place.write_text(json.dumps({**json.loads(place.read_text()), "r": rank}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return deltas(peft.PeftModel.from_pretrained(llama(), folder))
