"""A base model by whatever names it: a configuration, a folder, weights, or a name that is in the Hub's cache."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from s3lora.adapter.hub import HUB, hub_name, refuse_no_name, with_owner
from s3lora.adapter.weights import CONFIG as ADAPTER_CONFIG
from s3lora.adapter.weights import INDEX, parsed_config, raw_config
from s3lora.arguments import checked
from s3lora.base.configured import model_of
from s3lora.base.headers import MODEL_WEIGHTS, stored_modules
from s3lora.base.model import BaseModel, BaseModule
from s3lora.base.names import ModuleNames, expert_of
from s3lora.errors import UsageError, printable
from s3lora.needs import need
from s3lora.wording import worded

CONFIG = "config.json"
_SAFETENSORS = ".safetensors"


@checked
def read_base(base: str | os.PathLike[str]) -> BaseModel:
    """Return what is known of a base model. Nothing is fetched, no weight is read, and nothing is built.

    Examples:
        >>> import json, pathlib, s3lora
        >>> config = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 3, "vocab_size": 20}
        >>> _ = pathlib.Path("config.json").write_text(json.dumps(config))
        >>> base = s3lora.read_base("config.json")
        >>> len(base.modules), base.modules["transformer.h.2.attn.c_attn"].shape
        (14, (24, 8))

    Parameters:
        base: a `config.json`, a folder that has one, an index of shards or a safetensors file, or the name of a model
            that is in the cache of the Hugging Face Hub.

    Where the folder has weights, shapes are those of their headers.

    Raises UsageError where there is no such model, AdapterFileError for a file that is damaged.
    """
    config_file, weights, name = _files(os.fspath(base))
    config = {} if config_file is None else parsed_config(raw_config(config_file), config_file.name)
    model = model_of(config, name)
    if weights is None:
        return model
    kind = config.get("model_type")
    stored = stored_modules(weights, kind if isinstance(kind, str) else None)
    return _joined(model, stored, config)


def _files(base: str) -> tuple[Path | None, Path | None, str]:
    """Return the configuration and the weights, where there are any, and the name of the model."""
    refuse_no_name(base)
    path = Path(base)
    if os.path.isdir(path):
        return *_in_folder(path, base), printable(Path(os.path.realpath(path)).name, 255)
    if os.path.exists(path):
        beside = path.parent / CONFIG
        if path.name.endswith((INDEX, _SAFETENSORS)):
            return beside if beside.exists() else None, path, printable(path.name, 255)
        if path.suffix == ".json" and path.name != ADAPTER_CONFIG:
            return path, None, printable(path.name, 255)
        raise UsageError(
            "is no configuration of a model and no safetensors file",
            file=base,
            fix="give its config.json, its folder, or its name on the Hub",
        )
    if base in ("demo", "demo-aligned"):
        fix = "it is there for `eval`, `sweep`, `tune` and `repair`; give a folder, or a config.json"
        raise UsageError("is no model that names and shapes are held against", file=base, fix=fix)
    if hub_name(base) is None:
        raise UsageError("no such file, folder or model", file=base)
    # The cache only: nobody waits for gigabytes unasked.
    found = need("huggingface_hub", "fleet").try_to_load_from_cache(base, CONFIG)
    if not isinstance(found, str):
        known = printable(base)
        fix = worded(
            "fetch its configuration (hf download {known} {file}), or let `check` read it on the Hub: {base} {address}",
            known=known,
            address=f"{HUB}{printable(with_owner(base))}",
            file=CONFIG,
        )
        raise UsageError("is no folder here, and not in the cache of the Hugging Face Hub", file=base, fix=fix)
    return *_in_folder(Path(found).parent, base), printable(base, 255)


def _in_folder(folder: Path, base: str) -> tuple[Path | None, Path | None]:
    config = folder / CONFIG
    weights = next((folder / name for name in MODEL_WEIGHTS if (folder / name).exists()), None)
    if not config.exists() and weights is None:
        raise UsageError(f"the folder has no {CONFIG} and no weights, so it is no model", file=base)
    return config if config.exists() else None, weights


def _joined(model: BaseModel, stored: Mapping[str, BaseModule], config: Mapping[str, Any]) -> BaseModel:
    """Return the model with the shapes that are stored, and with the modules that no rule told.

    Files may call modules otherwise than the model does (`h.0…` for `transformer.h.0…`): what has the same end is the
    same module.
    """
    if not model.modules:
        notes = (*model.notes, "names and shapes are those of its weights, which its model may call otherwise")
        return replace(model, modules=stored, evidence="weights", complete=True, notes=notes)
    names, used = ModuleNames(stored), set()
    modules = {}
    for path, module in model.modules.items():
        found = stored.get(names.find(path) or "")
        if found is not None:
            used.add(found.path)
        fits = found is not None and found.shape is not None and found.kind != "parameter" and not module.experts
        modules[path] = replace(module, shape=found.shape) if fits and found is not None else module
    rest = (path for path in stored if path not in used and not path.startswith(model.covered))
    modules.update((path, stored[path]) for path in rest if expert_of(path) is None)
    tied = model.tied
    head = next((path for path in ("lm_head", "embed_out") if path in model.modules), None)
    if tied is None and head is not None:
        tied = head not in stored
    return replace(model, modules=modules, evidence="weights", complete=True, tied=tied)
