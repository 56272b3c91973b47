"""MLX: `model.layers.3.self_attn.q_proj.lora_a` of shape (n, r) and `….lora_b` of shape (r, m).

Both factors lie transposed in the file. Embeddings (`lora_a` of shape (vocabulary, r)) fit the same reading. DoRA
adds the magnitude vector `….m`. Experts stacked in three dimensions (`switch_mlp`) are refused by `matrix`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3lora.adapter.formats.base import (
    Format,
    Reading,
    StoredAdapter,
    check_pair,
    matrix,
    missing_half,
    positive,
    rank_warning,
)
from s3lora.adapter.model import LoraModule, Scaling, natural_key, path_parts
from s3lora.adapter.tensor import Tensor

A, B, MAGNITUDE = ".lora_a", ".lora_b", ".m"


def _recognises(source: StoredAdapter) -> bool:
    return any(name.endswith((A, B)) for name in source.tensors)


def _read(source: StoredAdapter) -> Reading:
    parameters = _parameters(source.config)
    modules: list[LoraModule] = []
    taken: set[str] = set()
    for path in _paths(source.tensors):
        module = _module(path, source, _scaling(parameters, source.config_label))
        modules.append(module)
        taken.update(module.tensor_names)
    ordered = tuple(sorted(modules, key=lambda module: natural_key(module.path)))
    rank = positive(parameters, "rank", source.config_label)
    configured = {module.path: int(rank) for module in ordered} if rank else {}
    notes = (_scaling_note(parameters, source.config_label), _dora_note(ordered))
    return Reading(
        ordered,
        tuple(name for name in source.tensors if name not in taken),
        (*(note for note in notes if note), *rank_warning(ordered, configured)),
    )


def _paths(tensors: Mapping[str, Tensor]) -> list[str]:
    found = (name.removesuffix(A).removesuffix(B) for name in tensors if name.endswith((A, B)))
    return list(dict.fromkeys(found))


def _module(path: str, source: StoredAdapter, scaling: Scaling) -> LoraModule:
    a, b = source.tensors.get(path + A), source.tensors.get(path + B)
    if a is None or b is None:
        raise missing_half(path, *(("lora_b", "lora_a") if a is None else ("lora_a", "lora_b")), source.label)
    factors = matrix(a, source.label, transpose=True), matrix(b, source.label, transpose=True)
    check_pair(path, *factors, source.label)
    layer, projection, expert = path_parts(path)
    dora = path + MAGNITUDE in source.tensors
    return LoraModule(
        path=path,
        A=factors[0],
        B=factors[1],
        scaling=scaling,
        layer=layer,
        projection=projection,
        expert=expert,
        kind="embedding" if projection == "embed_tokens" else "linear",
        dora=dora,
        extras=(path + MAGNITUDE,) if dora else (),
    )


def _parameters(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    found = (config or {}).get("lora_parameters")
    return found if isinstance(found, Mapping) else {}


def _candidates(parameters: Mapping[str, Any], label: str) -> tuple[float | None, float | None]:
    """Return the two scalings the configuration can mean: `scale`, and `scale · alpha / rank`."""
    scale = positive(parameters, "scale", label)
    alpha, rank = positive(parameters, "alpha", label), positive(parameters, "rank", label)
    if scale is None or alpha is None or rank is None:
        return scale, scale
    return scale, scale * alpha / rank


def _scaling(parameters: Mapping[str, Any], label: str) -> Scaling:
    newer, older = _candidates(parameters, label)
    if newer is None:
        return Scaling(1.0, "unknown")
    # Only a configuration without `alpha`, or with alpha = rank, means the same to every version of MLX.
    return Scaling(newer, "config scale" if newer == older else "ambiguous")


def _scaling_note(parameters: Mapping[str, Any], label: str) -> str | None:
    newer, older = _candidates(parameters, label)
    if newer is None:
        return "no `scale` in adapter_config.json: the scaling is unknown and taken as 1, so magnitudes are relative"
    if newer == older:
        return None
    return (
        f"the scaling is ambiguous: newer MLX versions read `scale` = {newer:g}, older ones scale·alpha/rank = "
        f"{older:g}; {newer:g} is used, which changes every magnitude but no sharpness index"
    )


def _dora_note(modules: tuple[LoraModule, ...]) -> str | None:
    if any(module.dora for module in modules):
        return "DoRA: the spectra are of B·A alone; the magnitude vectors are carried along unread"
    return None


FORMAT = Format("mlx", _recognises, _read)
