"""PEFT: `base_model.model.….q_proj.lora_A.weight`, and the variants of that key that real files have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from s3lora.adapter.factors import MAX_MADE, AnyFactor, DerivedFactor, Factor
from s3lora.adapter.formats import adalora, experts, loose, lycoris, vera
from s3lora.adapter.formats.base import (
    Format,
    Reading,
    StoredAdapter,
    alpha_scaling,
    check_pair,
    matrix,
    missing_half,
    positive,
    rank_warning,
    refuse_equal_paths,
    refuse_too_many,
)
from s3lora.adapter.formats.forms import form_notes
from s3lora.adapter.formats.header import with_header
from s3lora.adapter.formats.others import not_read
from s3lora.adapter.formats.parts import Parts, Scalings
from s3lora.adapter.formats.peft_notes import peft_notes
from s3lora.adapter.formats.several import adapter_names, refuse_several
from s3lora.adapter.formats.wrappers import PREFIX, unwrapped
from s3lora.adapter.model import Form, LoraModule, natural_key, path_parts
from s3lora.adapter.tensor import Array
from s3lora.errors import AdapterFileError, UnsupportedAdapterError, printable

_KEY = re.compile(
    r"^(?P<path>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:_(?P<number>\d{1,4}))?"
    r"(?:\.(?P<adapter>(?!(?:weight|bias)(?:\.|$)).+?))?(?:\.(?P<leaf>weight|bias))?$"
)
#: Parts of other methods beside lora_A and lora_B, which change the product B·A.
_OTHER_PARTS = {"lora_E": "AdaLoRA", "ranknum": "AdaLoRA", "lora_diag": "KaSA", "lora_mid": "LoCon with a Tucker core"}
#: How an update is stored → `peft_type`; a configuration that lacks it may be of LoRA.
_TYPES: dict[Form, str] = {
    "LoRA": "LORA",
    "QALoRA": "LORA",
    "AdaLoRA": "ADALORA",
    "LoHa": "LOHA",
    "LoKr": "LOKR",
    "VeRA": "VERA",
}
#: Inputs of one group of QALoRA unless the configuration says otherwise, and at most.
_GROUP, _MAX_GROUP = 16, 1 << 16
#: Most inputs of a layer; those of the largest models are a thirtieth.
_MAX_INPUTS = 1 << 24
#: Parts that do not change it once the training is over.
_HARMLESS = ("lora_dropout", "lora_alpha", "lora_monteclora_sampler")
#: Parts of a wrapped layer that belong to the base model or to a wrapper of its own, and stay when the LoRA leaves.
_NOT_OF_LORA = (".base_layer.", ".token_adapter.", ".modules_to_save.")
_SAVED = ".modules_to_save"
_EMBEDDING = {"lora_embedding_A": "lora_A", "lora_embedding_B": "lora_B"}


def _recognises(source: StoredAdapter) -> bool:
    if any(_KEY.match(name) for name in source.tensors) or vera.is_vera(source.tensors):
        return True
    typed = (source.config or {}).get("peft_type") in ("LOHA", "LOKR")
    return lycoris.is_product(name for name in source.tensors if typed or name.startswith(PREFIX))


def _read(source: StoredAdapter) -> Reading:
    if vera.is_vera(source.tensors):
        reading = vera.read(source)
    elif lycoris.is_product(source.tensors):
        reading = _read_products(source)
    else:
        reading = _read_pairs(source)
    _refuse_another_type(reading.modules, source)
    return reading


def _read_pairs(source: StoredAdapter) -> Reading:
    config = source.config or {}
    parts, others, notes = _collect(source)
    scaling = Scalings(source.config, source.config_label)
    modules: list[LoraModule] = []
    configured: dict[str, int] = {}
    nested = any(key.endswith(experts.BASE) for key in parts)
    if config.get("peft_type") == "ADALORA" and (
        empty := [key for key, part in parts.items() if adalora.is_empty(part)]
    ):
        others += tuple(name for key in empty for name in parts.pop(key).names)
        of = f"{len(empty)} of {len(empty) + len(parts)} modules"
        notes.append(f"{of} have rank 0, as AdaLoRA leaves those that it takes the whole rank from")
    turned = loose.lie_turned(parts.values(), config)
    for part in parts.values():
        for factor, other in (("A", "B"), ("B", "A")):
            if getattr(part, factor) is None:
                raise missing_half(part.path, f"lora_{other}", f"lora_{factor}", source.label)
        found = experts.fused(part, parts, config, scaling, source.label, nested)
        if found is None:
            configured_path = experts.configured(part, parts, config, nested)
            found = loose.grouped(part, partial(scaling.of, configured_path), config, source.label) or [
                _module(part, scaling, source, configured_path, turned=turned)
            ]
            if part.values is None and (rank := scaling.rank(configured_path)) is not None:
                configured[part.path] = rank
        modules.extend(found)
        refuse_too_many(len(modules), source.label)
    ordered, told = with_header(sorted(modules, key=lambda module: natural_key(module.path)), source)
    refuse_equal_paths(ordered, source.label)
    notes += (*told, *([loose.TURNED] if turned else ()))
    if any(module.scaling.origin == "unknown" for module in ordered):
        notes.append("no adapter_config.json: the scaling is unknown and taken as 1, so magnitudes are relative")
    if any(module.dora for module in ordered):
        notes.append("DoRA: the spectra are of B·A alone; the magnitude vectors are carried along unread")
    notes.extend(form_notes(ordered))
    notes.extend(peft_notes(config, ordered))
    notes.extend(rank_warning(ordered, configured))
    notes.extend(experts.notes(ordered))
    if any(module.group == module.path.rpartition(".")[0] and module.expert is None for module in ordered):
        notes.append(loose.GROUPED)
    return Reading(ordered, others, tuple(notes))


def _read_products(source: StoredAdapter) -> Reading:
    """Read LoHa or LoKr; alpha is divided by the configured rank also where LoKr stores both matrices whole."""
    config = source.config
    if config is not None:
        config = {"r": 8, **config, "lora_alpha": config.get("alpha")}  # PEFT's default
    scalings = Scalings(config, source.config_label)
    products = lycoris.collect(source.tensors, source.label)
    others = []
    for name in source.tensors:
        key = None if any(inner in name for inner in _NOT_OF_LORA) else _owner(name, products)
        if lycoris.KEY.match(name):
            continue
        if key is not None:
            products[key].extras.append(name)
        others.append(name)
    modules, configured, found = [], dict[str, int](), dict[str, int]()
    for product in products.values():
        product.path = unwrapped(product.key)[0]
        rank, stored = scalings.rank(product.path), product.rank()
        if stored is not None and rank is not None:
            configured[product.path], found[product.path] = rank, stored
        scaling = scalings.of(product.path, stored or rank or 1)
        modules.append(lycoris.module_of(product, scaling, path_parts(product.path), source.label))
    ordered = tuple(sorted(modules, key=lambda module: natural_key(module.path)))
    refuse_equal_paths(ordered, source.label)
    notes = [*form_notes(ordered), *peft_notes(config or {}, ordered)]
    if config is None:
        notes.append("no adapter_config.json: the scaling is unknown and taken as 1, so magnitudes are relative")
    notes.extend(rank_warning(ordered, configured, found))
    return Reading(ordered, tuple(others), tuple(notes))


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
        role = rest.partition(".")[0]
        if role in ("lora_E", "ranknum") and (source.config or {}).get("peft_type", "ADALORA") == "ADALORA":
            if role == "lora_E":
                part.values = source.tensors[name]
            else:
                part.began = source.tensors[name]
                part.extras.append(name)
            continue
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


def _owner(name: str, parts: Mapping[str, object]) -> str | None:
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


def _module(part: Parts, scaling: Scalings, source: StoredAdapter, configured: str, *, turned: bool) -> LoraModule:
    assert part.A is not None
    assert part.B is not None
    label, config = source.label, source.config or {}
    stored = matrix(part.A, label, transpose=turned), matrix(part.B, label, transpose=turned)
    check_pair(part.path, *stored, label)
    a: AnyFactor
    b: AnyFactor
    a, b = stored
    rank = a.shape[0]
    form: Form = "LoRA"
    if part.values is not None:
        form = "AdaLoRA"
        a, b = adalora.with_values(part.path, *stored, part.values, label)
        own = adalora.scaling_of(source.config, part.began, rank, source.config_label)
    elif config.get("peft_type") == "ADALORA" or part.began is not None:
        raise missing_half(part.path, "lora_A and lora_B", "lora_E", label)
    else:
        own = alpha_scaling(part.alpha, rank, label) if part.alpha else scaling.of(configured, rank)
        if config.get("use_qalora"):
            form = "QALoRA"
            a = _grouped(stored[0], config, source.config_label)
    layer, projection, expert = path_parts(part.path)
    return LoraModule(
        path=part.path,
        A=a,
        B=b,
        scaling=own,
        layer=layer,
        projection=projection,
        expert=expert,
        kind="embedding" if part.embedding else "conv" if len(part.A.shape) > 2 else "linear",
        dora=part.magnitude is not None,
        extras=tuple(part.extras),
        form=form,
    )


def _grouped(a: Factor, config: Mapping[str, Any], label: str) -> DerivedFactor:
    """Return A (r, n) of QALoRA from lora_A (r, n/g): its layer takes n/g times the mean of each group of g inputs."""
    size = positive(config, "qalora_group_size", label) or _GROUP
    group = int(size)
    if group != size or group > _MAX_GROUP:
        raise AdapterFileError(f"`qalora_group_size` is {size:g}, no number of inputs", file=label)
    if a.shape[1] * group > _MAX_INPUTS or a.shape[0] * a.shape[1] * group > MAX_MADE:
        what = f"`qalora_group_size` is {group:,}, which makes {a.shape[1] * group:,} inputs"
        raise AdapterFileError(what, file=label, shape=a.shape)
    times = a.shape[1] / group

    def spread(rows: Array) -> Array:
        return np.repeat(rows, group, axis=1) * times

    def pooled(matrix: Array) -> tuple[Array]:
        return (matrix.reshape(len(matrix), -1, group).mean(axis=2) / times,)

    return DerivedFactor((a,), (a.shape[0], a.shape[1] * group), spread, pooled)


def _refuse_another_type(modules: Iterable[LoraModule], source: StoredAdapter) -> None:
    """Raise AdapterFileError where the configuration is of another type than the tensors: PEFT then applies nothing."""
    kind = (source.config or {}).get("peft_type")
    for module in modules:
        if kind is not None and _TYPES[module.form] != kind:
            raise AdapterFileError(
                f"is {module.form}, and {source.config_label} is of a {printable(kind, 40)} adapter",
                file=source.label,
                module=module.path,
                fix="give the configuration that was saved with it",
            )


def refuse_other_types(source: StoredAdapter) -> None:
    """Raise UnsupportedAdapterError if the configuration is of a PEFT method that is not read."""
    config, names = source.config or {}, [*source.tensors]
    kind = config.get("peft_type", "LORA")
    if kind not in _TYPES.values():
        raise not_read(kind, names, source.config_label)
    for switch, method in (("use_bdlora", "BD-LoRA"), ("kasa_config", "KaSA")):
        if config.get(switch):
            raise not_read(method, names, source.config_label)


FORMAT = Format("peft", _recognises, _read)
