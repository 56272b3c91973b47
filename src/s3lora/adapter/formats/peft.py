"""PEFT: `base_model.model.….q_proj.lora_A.weight`, and the variants of that key that real files have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from s3lora.adapter.formats import experts, loose
from s3lora.adapter.formats.base import (
    Format,
    Reading,
    StoredAdapter,
    alpha_scaling,
    check_pair,
    matrix,
    missing_half,
    rank_warning,
)
from s3lora.adapter.formats.header import with_header
from s3lora.adapter.formats.parts import Parts, Scalings
from s3lora.adapter.formats.peft_notes import peft_notes
from s3lora.adapter.formats.several import adapter_names, refuse_several
from s3lora.adapter.formats.wrappers import unwrapped
from s3lora.adapter.model import LoraModule, natural_key, path_parts
from s3lora.errors import AdapterFileError, UnsupportedAdapterError, printable

_KEY = re.compile(
    r"^(?P<path>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:_(?P<number>\d{1,4}))?"
    r"(?:\.(?P<adapter>(?!(?:weight|bias)(?:\.|$)).+?))?(?:\.(?P<leaf>weight|bias))?$"
)
#: Parts of other methods beside lora_A and lora_B, which change the product B·A.
_OTHER_PARTS = {"lora_E": "AdaLoRA", "ranknum": "AdaLoRA", "lora_diag": "KaSA", "lora_mid": "LoCon with a Tucker core"}
#: Parts that do not change it once the training is over.
_HARMLESS = ("lora_dropout", "lora_alpha", "lora_monteclora_sampler")
#: Parts of a wrapped layer that belong to the base model or to a wrapper of its own, and stay when the LoRA leaves.
_NOT_OF_LORA = (".base_layer.", ".token_adapter.", ".modules_to_save.")
_SAVED = ".modules_to_save"
_EMBEDDING = {"lora_embedding_A": "lora_A", "lora_embedding_B": "lora_B"}


def _recognises(source: StoredAdapter) -> bool:
    return any(_KEY.match(name) for name in source.tensors)


def _read(source: StoredAdapter) -> Reading:
    config = source.config or {}
    refuse_other_types(config, source.config_label)
    parts, others, notes = _collect(source)
    scaling = Scalings(source.config, source.config_label)
    modules: list[LoraModule] = []
    configured: dict[str, int] = {}
    nested = any(key.endswith(experts.BASE) for key in parts)
    turned = loose.lie_turned(parts.values(), config)
    for part in parts.values():
        for factor, other in (("A", "B"), ("B", "A")):
            if getattr(part, factor) is None:
                raise missing_half(part.path, f"lora_{other}", f"lora_{factor}", source.label)
        found = experts.fused(part, parts, config, scaling, source.label, nested)
        if found is None:
            configured_path = experts.configured(part, parts, config, nested)
            found = _modules(part, scaling, source.label, configured_path, config, turned=turned)
            if (rank := scaling.rank(configured_path)) is not None:
                configured[part.path] = rank
        modules.extend(found)
    ordered, told = with_header(sorted(modules, key=lambda module: natural_key(module.path)), source)
    notes += told
    _refuse_equal_paths(ordered, source.label)
    if turned:
        notes.append(loose.TURNED)
    if any(module.scaling.origin == "unknown" for module in ordered):
        notes.append("no adapter_config.json: the scaling is unknown and taken as 1, so magnitudes are relative")
    if any(module.dora for module in ordered):
        notes.append("DoRA: the spectra are of B·A alone; the magnitude vectors are carried along unread")
    notes.extend(peft_notes(config, ordered))
    notes.extend(rank_warning(ordered, configured))
    notes.extend(experts.notes(ordered))
    if any(module.group == module.path.rpartition(".")[0] and module.expert is None for module in ordered):
        notes.append(loose.GROUPED)
    return Reading(ordered, others, tuple(notes))


def _collect(source: StoredAdapter) -> tuple[dict[str, Parts], tuple[str, ...], list[str]]:
    """Return the tensors of each module by its key, the names of all others, and what to tell."""
    parts: dict[str, Parts] = {}
    others: list[str] = []
    matches = {name: _KEY.match(name) for name in source.tensors}
    refuse_several(adapter_names(source.tensors), source.label)
    twice: set[str] = set()
    keys = {match["path"] for match in matches.values() if match}
    for name, match in matches.items():
        if match is not None and match["path"].endswith(_SAVED) and match["path"].removesuffix(_SAVED) in keys:
            twice.add(match["path"].removesuffix(_SAVED))
            match = None  # PEFT keeps such a copy of a layer that it adapts and saves in full
        if match is None:
            others.append(name)
            continue
        tensor = source.tensors[name]
        key = match["path"]
        part = parts.setdefault(key, Parts(unwrapped(key)[0], key))
        role = match["part"]
        if role == "lora_magnitude_vector":
            part.magnitude = tensor
            part.extras.append(name)
        elif match["leaf"] == "bias":
            part.extras.append(name)
        else:
            part.embedding = role in _EMBEDDING
            letter = _EMBEDDING.get(role, role)[-1]
            if getattr(part, letter) is not None:
                raise AdapterFileError(f"has two lora_{letter} tensors", file=source.label, module=part.path)
            setattr(part, letter, tensor)
    notes = [f"{len(twice)} modules are stored twice, as LoRA and under `modules_to_save`: read once"] if twice else []
    return parts, tuple(_give_to_modules(others, parts, source)), notes


def _give_to_modules(names: Iterable[str], parts: Mapping[str, Parts], source: StoredAdapter) -> Iterator[str]:
    """Give each module whatever else lies under its path, and yield the names that are no parts of LoRA.

    A name can be both: a trained bias leaves with its module, and loaders that know LoRA alone reject it.
    Raises UnsupportedAdapterError for a part that changes the update: then B·A alone would have a wrong spectrum.
    """
    containers = {owner for key in parts for owner in _owners(key) if owner in parts}
    for name in names:
        key = None if any(inner in name for inner in _NOT_OF_LORA) else _owner(name, parts)
        rest = name[len(key) + 1 :] if key is not None else ""
        # What lies deeper in a module that has modules within may be of one that LoRA did not touch.
        if key is None or (key in containers and "." in rest and not rest.startswith("lora_")):
            yield name
            continue
        part = parts[key]
        _refuse_other_part(rest, part.path, source)
        part.extras.append(name)
        if rest == "alpha" and source.config is None:  # diffusers writes it where no configuration holds the scaling
            part.alpha = source.tensors[name]
            continue
        if rest == "dora_scale":  # another name of the magnitude vector
            part.magnitude = source.tensors[name]
        yield name


def _owners(key: str) -> Iterator[str]:
    """Yield the paths above `key`, the nearest first."""
    while "." in key:
        key = key.rpartition(".")[0]
        yield key


def _owner(name: str, parts: Mapping[str, Parts]) -> str | None:
    return next((key for key in _owners(name) if key in parts), None)


def _refuse_other_part(rest: str, path: str, source: StoredAdapter) -> None:
    part = rest.partition(".")[0]
    if method := _OTHER_PARTS.get(part):
        what = f"is {method} (it holds {part}), whose update is not B·A"
    elif part.startswith("lora_") and part not in _HARMLESS:
        what = f"holds {printable(rest, 60)} besides its two factors, so its update may not be B·A"
    else:
        return
    raise UnsupportedAdapterError(what, file=source.label, module=path, fix="s3lora reads LoRA only")


def _modules(
    part: Parts, scalings: Scalings, label: str, configured: str, config: Mapping[str, Any], *, turned: bool
) -> list[LoraModule]:
    """Return the module of a pair, several where it holds those of q, k and v."""
    assert part.A is not None
    assert part.B is not None
    if several := loose.grouped(part, partial(scalings.of, configured), config, label):
        return several
    a, b = matrix(part.A, label, transpose=turned), matrix(part.B, label, transpose=turned)
    check_pair(part.path, a, b, label)
    layer, projection, expert = path_parts(part.path)
    rank = a.shape[0]
    module = LoraModule(
        path=part.path,
        A=a,
        B=b,
        scaling=alpha_scaling(part.alpha, rank, label) if part.alpha else scalings.of(configured, rank),
        layer=layer,
        projection=projection,
        expert=expert,
        kind="embedding" if part.embedding else "conv" if len(part.A.shape) > 2 else "linear",
        dora=part.magnitude is not None,
        extras=tuple(part.extras),
    )
    return [module]


def _refuse_equal_paths(modules: Iterable[LoraModule], label: str) -> None:
    seen: set[str] = set()
    for module in modules:
        if module.path in seen:
            raise AdapterFileError("appears twice under different keys", file=label, module=module.path)
        seen.add(module.path)


def refuse_other_types(config: Mapping[str, Any], label: str) -> None:
    """Raise UnsupportedAdapterError if the configuration is of a PEFT method other than LoRA."""
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise UnsupportedAdapterError(
            f"is a {printable(kind, 40)} adapter; s3lora reads LoRA only",
            file=label,
            fix="its update is no product of two low-rank factors in one file",
        )
    for switch, method in (("use_qalora", "QALoRA"), ("use_bdlora", "BD-LoRA"), ("kasa_config", "KaSA")):
        if config.get(switch):
            raise UnsupportedAdapterError(f"is a {method} adapter, whose update is not B·A", file=label)


FORMAT = Format("peft", _recognises, _read)
