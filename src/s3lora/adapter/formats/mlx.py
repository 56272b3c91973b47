"""MLX: `model.layers.3.self_attn.q_proj.lora_a` of shape (n, r) and `….lora_b` of shape (r, m).

Both factors lie transposed in the file. Embeddings (`lora_a` of shape (vocabulary, r)) fit the same reading. DoRA
adds the magnitude vector `….m`. mlx-vlm calls the factors `….A` and `….B`.

Experts in one layer (`switch_mlp.up_proj`) are the other way round: `lora_b` is (E, m, r), and `lora_a` (E, r, n) or,
of older versions, (E·r, n). Each expert becomes a module, and those of one layer leave together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
    refuse_too_many,
)
from s3lora.adapter.formats.experts import of_experts
from s3lora.adapter.model import EMBEDDINGS, LoraModule, Scaling, natural_key, path_parts
from s3lora.errors import AdapterFileError

MAGNITUDE = "m"
_KEY = re.compile(r"(?P<path>.+)\.(?:lora_(?P<half>[ab])|(?P<vlm>[AB]))")


def _recognises(source: StoredAdapter) -> bool:
    return next(_halves_in(source), None) is not None


def _halves_in(source: StoredAdapter) -> Iterator[tuple[str, str, str]]:
    """Yield (name, path, half) of each factor; mlx-vlm's short names are some only where both are there."""
    for name in source.tensors:
        if match := _KEY.fullmatch(name):
            path, half, short = match["path"], match["half"], match["vlm"]
            if half or f"{path}.{'A' if short == 'B' else 'B'}" in source.tensors:
                yield name, path, half or short.lower()


def _read(source: StoredAdapter) -> Reading:
    parameters, vlm = _parameters(source.config), _is_vlm(source.config)
    scaling = _vlm_scaling(source.config or {}, source.config_label) if vlm else None
    scaling = scaling or _scaling(parameters, source.config_label)
    modules: list[LoraModule] = []
    taken: set[str] = set()
    for path, halves in _halves(source).items():
        found = _modules(path, halves, source, scaling)
        modules += found
        refuse_too_many(len(modules), source.label)
        taken.update(name for module in found for name in module.tensor_names)
    ordered = tuple(sorted(modules, key=lambda module: natural_key(module.path)))
    rank = positive(parameters, "rank", source.config_label)
    configured = {module.path: int(rank) for module in ordered} if rank else {}
    notes = (None if vlm else _scaling_note(parameters, source.config_label), _dora_note(ordered))
    return Reading(
        ordered,
        tuple(name for name in source.tensors if name not in taken),
        (*(note for note in notes if note), *rank_warning(ordered, configured)),
    )


def _halves(source: StoredAdapter) -> dict[str, dict[str, str]]:
    """Return the names of the tensors of each module, by `a` and `b`."""
    found: dict[str, dict[str, str]] = {}
    for name, path, half in _halves_in(source):
        halves = found.setdefault(path, {})
        if half in halves:
            raise AdapterFileError(f"has two lora_{half} tensors", file=source.label, module=path)
        halves[half] = name
    return found


def _modules(path: str, halves: Mapping[str, str], source: StoredAdapter, scaling: Scaling) -> list[LoraModule]:
    if len(halves) < 2:
        has, lacks = ("lora_a", "lora_b") if "a" in halves else ("lora_b", "lora_a")
        raise missing_half(path, has, lacks, source.label)
    a, b = source.tensors[halves["a"]], source.tensors[halves["b"]]
    magnitude = f"{path}.{MAGNITUDE}"
    dora = magnitude in source.tensors
    extras = (magnitude,) if dora else ()
    if len(b.shape) == 3:
        return of_experts(path, a, b, scaling, source.label, extras, dora=dora)
    factors = matrix(a, source.label, transpose=True), matrix(b, source.label, transpose=True)
    check_pair(path, *factors, source.label)
    layer, projection, expert = path_parts(path)
    module = LoraModule(
        path=path,
        A=factors[0],
        B=factors[1],
        scaling=scaling,
        layer=layer,
        projection=projection,
        expert=expert,
        kind="embedding" if projection in EMBEDDINGS else "linear",
        dora=dora,
        extras=extras,
    )
    return [module]


def _is_vlm(config: Mapping[str, Any] | None) -> bool:
    """Return whether a configuration is mlx-vlm's: rank and alpha by themselves."""
    return config is not None and "alpha" in config and "rank" in config and "lora_parameters" not in config


def _vlm_scaling(config: Mapping[str, Any], label: str) -> Scaling | None:
    alpha = positive(config, "alpha", label)
    return None if alpha is None else Scaling(alpha, "config scale")  # mlx-vlm multiplies by alpha itself


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
