"""What an `adapter_config.json` must say after modules left the file, or got other ranks, so that PEFT loads it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from s3lora.adapter.formats.patterns import Pattern, layer_of
from s3lora.adapter.formats.peft_notes import changed_base, conversion_of, tied_updates
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.errors import OutputError, UnsupportedAdapterError, printable
from s3lora.wording import worded

Number = TypeVar("Number", int, float)
_PLAIN = re.compile(r"[\w.]+")
_FLAGS = re.compile(r"\(\?([aimsux]+)\)")


def refuse_changed_base(adapter: Adapter) -> None:
    """Raise UnsupportedAdapterError if the factors hold a part of the base weights, which would be wrong without."""
    method = changed_base(adapter.config)
    if method is not None:
        raise UnsupportedAdapterError(
            f"was initialised by {printable(method, 40)}, which takes B·A out of the base weights: a module without "
            "its update would leave a wrong base behind",
            file=adapter.name,
            fix=conversion_of(method),
        )


def refuse_half_of_tied(adapter: Adapter, changed: Sequence[LoraModule]) -> None:
    """Raise UnsupportedAdapterError if of updates that PEFT ties some change and others do not."""
    tied = tied_updates(adapter.config or {}, adapter.modules)
    paths = {module.path for module in changed}
    if (found := [path for path in tied if path in paths]) and len(found) < len(tied):
        other = printable(next(path for path in tied if path not in paths), 80)
        raise UnsupportedAdapterError(
            f"has one update with {other}, by `ensure_weight_tying`: where the base ties the two, PEFT loads for both "
            "what the file holds of either",
            file=adapter.name,
            module=found[0],
            fix="choose both or neither",
        )


def without_modules(
    config: Mapping[str, Any], removed: Sequence[LoraModule], kept: Sequence[LoraModule]
) -> dict[str, Any]:
    """Return the configuration that excludes `removed`: full paths in `exclude_modules`, every other field as it was.

    A projection type that is gone altogether also leaves `target_modules`, fused experts and other parameters leave
    `target_parameters`, for which PEFT does not look at `exclude_modules`, and patterns that are left without a module
    leave `rank_pattern` and `alpha_pattern`: PEFT warns of all three.
    """
    result = dict(config)
    plain = [place_of(module) for module in removed if not parameters_of(module, config)]
    kept_plain = [place_of(module) for module in kept if not parameters_of(module, config)]
    plain, kept_plain = list(dict.fromkeys(plain)), list(dict.fromkeys(kept_plain))
    targets = config.get("target_modules")
    if isinstance(targets, str) and plain and not kept_plain:
        result["target_modules"], plain = [], []
    if isinstance(targets, list):
        gone = _gone([str(target) for target in targets], plain, kept_plain)
        if gone:
            result["target_modules"] = [target for target in targets if str(target) not in gone]
            # What is no longer targeted needs no exclusion, and PEFT warns of exclusions that match nothing.
            left = {str(target) for target in result["target_modules"]}
            plain = [path for path in plain if not left.isdisjoint(ends(path))]
    if plain:
        result["exclude_modules"] = _excluded(config.get("exclude_modules"), plain, kept_plain)
    if any(parameters_of(module, config) for module in removed):
        result["target_parameters"] = _parameters(config, kept)
    ada = config.get("peft_type") == "ADALORA"
    for field in ("alpha_pattern",) if ada else ("rank_pattern", "alpha_pattern"):
        if isinstance(config.get(field), Mapping):
            result[field] = _patterns(config, field, removed, kept)
    if ada and isinstance(directions := config.get("rank_pattern"), Mapping):
        gone = {module.path for module in removed}
        # `….q_proj.lora_E`, or with the adapter's name: which directions of a module are left.
        result["rank_pattern"] = {key: left for key, left in directions.items() if _module_of(key) not in gone}
    return result


def _module_of(key: object) -> str:
    return str(key).partition(".lora_E")[0].removeprefix("base_model.model.")


def place_of(module: LoraModule) -> str:
    """Return the path that PEFT knows the module by: fused experts are one parameter, `….experts.gate_up_proj`."""
    if module.group is None:
        return layer_of(module.path)
    head, _, name = module.path.rpartition(".")
    if name == str(module.expert):
        return head
    return f"{head.removesuffix(f'.{module.expert}')}.{name}"


def parameters_of(module: LoraModule, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the paths of the parameters that `target_parameters` may mean by this module, none where it is a layer.

    There are several where it names several of one layer. Examples are fused experts and the weight of a router.
    """
    names = _parameter_names(config)
    if module.group is not None:
        return (place_of(module),) if names else ()
    path = module.path
    while path.endswith(".base_layer"):  # the parameter that was wrapped before another of the same layer
        path = path.removesuffix(".base_layer")
    split = (name.rpartition(".") for name in names)
    return tuple(dict.fromkeys(f"{path}.{leaf}" for layer, _, leaf in split if layer and _names(layer, path)))


def _in_patterns(module: LoraModule, config: Mapping[str, Any]) -> str:
    """Return the path that `rank_pattern` and `alpha_pattern` match."""
    return next(iter(parameters_of(module, config)), place_of(module))


def _parameter_names(config: Mapping[str, Any]) -> list[str]:
    names = config.get("target_parameters")
    return [str(name) for name in names] if isinstance(names, list | tuple) else []


def _patterns(
    config: Mapping[str, Any], field: str, removed: Sequence[LoraModule], kept: Sequence[LoraModule]
) -> dict[str, Any]:
    """Return the entries of a table of patterns but for those that decide on removed modules and on no others."""
    keys = list(config[field])
    # The place of each entry is what it gives: the first that matches decides, and the others need not go.
    pattern = Pattern({key: place for place, key in enumerate(keys, 1)}, field, "adapter_config.json")
    gone, stay = ({pattern.find(_in_patterns(module, config)) for module in part} for part in (removed, kept))
    return {key: config[field][key] for place, key in enumerate(keys, 1) if place in stay or place not in gone}


def _names(target: str, path: str) -> bool:
    return path == target or path.endswith(f".{target}")


def _gone(targets: list[str], removed: list[str], kept: list[str]) -> set[str]:
    """Return the entries of `target_modules` that named removed modules and name no other module any more."""
    gone, stay = ({end for path in paths for end in ends(path)} for paths in (removed, kept))
    return {target for target in targets if target in gone and target not in stay}


def _excluded(before: Any, paths: list[str], kept: list[str]) -> list[str] | str:
    """Return `exclude_modules`; a regular expression where a plain path would also match a kept module's suffix."""
    ambiguous = not {end for other in kept for end in ends(other)}.isdisjoint(paths)
    if isinstance(before, str) and before:
        return "|".join((_grouped(before), *(re.escape(path) for path in paths)))
    earlier = [str(entry) for entry in before] if isinstance(before, list | tuple) else []
    if ambiguous:
        suffixes = (rf"(?:.*\.)?{re.escape(entry)}" for entry in earlier)
        return "|".join((*suffixes, *(re.escape(path) for path in paths)))
    return earlier + [path for path in paths if path not in earlier]


def _grouped(expression: str) -> str:
    """Return an expression as a group: flags at its beginning, as `(?i)`, hold for it alone then.

    >>> _grouped("(?i).*VISION.*"), _grouped("a|b")
    ('(?i:.*VISION.*)', '(?:a|b)')
    """
    flags = _FLAGS.match(expression)
    return f"(?:{expression})" if flags is None else f"(?{flags[1]}:{expression[flags.end() :]})"


def ends(path: str) -> Iterator[str]:
    """Yield the path, and each of its ends after a dot."""
    yield path
    at = path.find(".")
    while at >= 0:
        yield path[at + 1 :]
        at = path.find(".", at + 1)


def _parameters(config: Mapping[str, Any], kept: Sequence[LoraModule]) -> list[str]:
    """Return `target_parameters` with the full paths of the parameters that are still there."""
    names = _parameter_names(config)
    paths = dict.fromkeys(path for module in kept for path in parameters_of(module, config))
    return [path for path in paths if any(_names(name, path) for name in names)]


def baked(config: Mapping[str, Any], kept: Sequence[LoraModule], *, by_tensor: bool) -> dict[str, Any]:
    """Return the configuration that goes with scalings baked into lora_B: `lora_alpha` = `r` = the largest rank.

    Loaders that read `lora_alpha / r` once then scale by 1. PEFT reads the patterns as well and gets alpha = rank for
    each module, unless `by_tensor`: llama.cpp divides the one `lora_alpha` by each tensor's own rank, which
    `baked_factor` has made up for, and PEFT does the same without an `alpha_pattern`.
    """
    largest = max(module.rank for module in kept)
    if (low := next((module for module in one_each(kept) if module.rank < largest), None)) is not None:
        raise UnsupportedAdapterError(
            f"has one update an expert of rank {low.rank}, which newer loaders stack, and baking gives all the rank "
            f"{largest} then",
            file="adapter_config.json",
            module=low.path,
            fix=worded("give {pad}, or leave the scaling as it is"),
        )
    ranks = {_in_patterns(module, config): module.rank for module in kept}
    others = _table(ranks, largest, "rank_pattern")
    result = dict(config, r=largest, lora_alpha=largest, use_rslora=False)
    result["rank_pattern"] = others
    result["alpha_pattern"] = {} if by_tensor else dict(others)
    return _startable(result, ranks.values())


def baked_factor(module: LoraModule, largest: int, *, by_tensor: bool) -> float:
    """Return what lora_B is multiplied by so that the update stays the same under `baked`."""
    return module.scaling.value * (module.rank / largest if by_tensor else 1.0)


def of_another_rank(adapter: Adapter) -> list[tuple[LoraModule, Any]]:
    """Return the modules of LoRA of another rank than the configuration gives them, with the one that it gives."""
    config = adapter.config or {}
    ranks = Pattern(config.get("rank_pattern"), "rank_pattern", "adapter_config.json")
    given = config.get("r", 8)
    found = ((module, ranks.find(_in_patterns(module, config)) or given) for module in adapter.modules)
    return [(module, rank) for module, rank in found if module.form == "LoRA" and rank != module.rank]


def with_ranks(config: Mapping[str, Any], modules: Sequence[LoraModule]) -> dict[str, Any]:
    """Return the configuration of modules that have other ranks than it says, each with the scaling s that it has.

    alpha = s·r of each module, without rsLoRA, which is what every loader reads. The most frequent rank and alpha
    become `r` and `lora_alpha`; modules with others get patterns. An alpha is a whole number wherever one gives s.
    """
    ranks = {_in_patterns(module, config): module.rank for module in modules}
    alphas = {_in_patterns(module, config): alpha_of(module.scaling.value, module.rank) for module in modules}
    # Where experts are stacked at load, it goes by `r` and `lora_alpha` whatever the patterns say.
    first = [_in_patterns(module, config) for module in one_each(modules)] or [*ranks]
    rank, alpha = _most_frequent(ranks[path] for path in first), _most_frequent(alphas[path] for path in first)
    result = dict(config, r=rank, lora_alpha=alpha, use_rslora=False)
    result["rank_pattern"] = _table(ranks, rank, "rank_pattern")
    result["alpha_pattern"] = _table(alphas, alpha, "alpha_pattern")
    return _startable(result, ranks.values())


def _startable(config: dict[str, Any], ranks: Iterable[int]) -> dict[str, Any]:
    """Return a configuration that PEFT can begin with before it loads: "orthogonal" stops at an odd rank."""
    odd = config.get("init_lora_weights") == "orthogonal" and any(number % 2 for number in ranks)
    return {**config, "init_lora_weights": True} if odd else config


def one_each(modules: Iterable[LoraModule]) -> list[LoraModule]:
    """Return the modules of experts that have an update each, and none together."""
    return [module for module in modules if module.expert is not None and module.group is None]


def alpha_of(scaling: float, rank: int) -> int | float:
    """Return the alpha for which alpha / rank is the scaling: a whole number where one gives just that.

    >>> alpha_of(2.0, 6), alpha_of(0.25, 66), alpha_of(8 / 3, 8)
    (12, 16.5, 21.333333333333332)
    """
    alpha = scaling * rank
    return round(alpha) if round(alpha) / rank == scaling else alpha


def _most_frequent(values: Iterable[Number]) -> Number:
    """Return the most frequent number, of several the largest."""
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], value))


def _table(values: Mapping[str, Number], default: Number, field: str) -> dict[str, Number]:
    """Return a table of patterns that gives each path its value, those with the default none.

    Plain paths are what the oldest PEFT finds too, which looks for regular expressions behind a dot only. Where a path
    ends another one, or holds more than letters and dots, all are anchored expressions.

    Raises OutputError where no table tells the modules apart.
    """
    others = {path: value for path, value in values.items() if value != default}
    spelled = others if all(_PLAIN.fullmatch(path) for path in others) else {}
    for table in (spelled, {f"^{re.escape(path)}": value for path, value in others.items()}):
        pattern = Pattern(table, field, "adapter_config.json")
        found = {path: pattern.find(path) for path in values}
        if all((default if found[path] is None else found[path]) == value for path, value in values.items()):
            return dict(table)
    raise OutputError(f"no `{field}` can tell its modules apart", file="adapter_config.json")


def has_patterns(config: Mapping[str, Any]) -> bool:
    """Return whether the scaling is anything but one `lora_alpha / r`."""
    return bool(config.get("use_rslora") or config.get("alpha_pattern") or config.get("rank_pattern"))
