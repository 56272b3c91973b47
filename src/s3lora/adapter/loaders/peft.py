"""PEFT 0.14 to 0.21: reads all that s3lora opens in its format, and builds modules by the configuration.

Seen by running 0.13.2, 0.14.0 and 0.21.2; what came between them, by running those releases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from s3lora.adapter.formats.peft_notes import changed_base, conversion_of, replicates, start_of
from s3lora.adapter.formats.wrappers import PREFIX
from s3lora.adapter.inventory.model import Unapplied
from s3lora.adapter.loaders.base import Loader, as_trained
from s3lora.adapter.loaders.peft_stops import stops
from s3lora.adapter.loaders.problems import Effect, Problem, default_names, others_of, some, without_config, wrapped
from s3lora.adapter.model import Adapter
from s3lora.adapter.peft_config import has_patterns, of_another_rank
from s3lora.errors import printable

#: First release of PEFT that reads `exclude_modules`.
FIRST_PEFT = "0.14.0"
#: Fields of a LoRA's configuration in 0.13.2; a release before 0.14 stops at any other.
KNOWN = frozenset(
    (
        *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode"),
        *("init_lora_weights", "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config"),
        *("lora_alpha", "lora_dropout", "megatron_config", "megatron_core", "modules_to_save", "peft_type", "r"),
        *("rank_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_dora", "use_rslora"),
    )
)
#: Fields of other kinds that came later.
FIELDS = ("exclude_modules", "eva_config", "lora_bias", "corda_config", "trainable_token_indices", "target_parameters")
#: Fields whose meaning is lost on an older release, with the first that reads them.
READ_SINCE = {
    "trainable_token_indices": "0.15.0",
    "target_parameters": "0.17.0",
    "alora_invocation_tokens": "0.18.0",
}
#: First release that finds keys which hold the name of an adapter, `lora_A.default.weight`.
NAMED_SINCE = "0.21.0"
#: Initialisations that it does again at load, with the same result, and takes out of the base.
TAKEN_OUT = ("pissa", "olora")
#: Kinds of modules that are not applied → what comes of them.
_EFFECTS: Mapping[str, Effect] = {"empty": "fails", "slice": "fails", "not known": "unknown"}


def problems(adapter: Adapter, *, bare: bool = False) -> Iterator[Problem]:
    """Yield what PEFT rejects or does not apply; `bare` tells of a loader that applies keys however often they
    have its prefix, and does without what the file lacks, as transformers does.
    """
    config = adapter.config
    if adapter.format != "peft" or config is None or "peft_type" not in config:
        yield from without_config(adapter)
        return
    for one in adapter.inventory.unapplied:
        if (one.dead or one.kind == "not known") and not (
            bare and one.kind == "prefix" and _lacks_prefix(adapter, one)
        ):
            yield unapplied(one)
    if unknown := _newer(config):
        what = f"has fields in its configuration that older releases do not know ({some(unknown)})"
        yield Problem(what, f"use PEFT {FIRST_PEFT} or newer", before=FIRST_PEFT)
    for field, since in READ_SINCE.items():
        if config.get(field):
            yield Problem(f"has `{field}`, which it does not read", f"use PEFT {since} or newer", "other", before=since)
    named = default_names(adapter, "which it does not find", "other")
    yield from (replace(problem, before=NAMED_SINCE) for problem in named)
    yield from misranked(adapter)
    yield from stops(adapter, bare=bare)
    if experts := [one.path for one in adapter.modules if one.group and len(one.A.parts[0].tensor.shape) == 3]:
        what = f"holds experts as tensors of three dimensions ({some(experts)}), for which it builds nothing"
        yield Problem(what, "store each expert by itself", "other", tuple(experts), mends=())
    if any(module.form == "QALoRA" for module in adapter.modules):
        what = "is QALoRA, which it builds on layers of GPTQ alone, and stops at elsewhere (0.21.2)"
        yield Problem(what, "load it on the GPTQ base that it was trained on", "unknown")
    yield from _starts(adapter)


def _starts(adapter: Adapter) -> Iterator[Problem]:
    """Yield what comes of factors that hold a part of the base weights, where PEFT does not take it out at load."""
    method = changed_base(adapter.config)
    if method is None or method.lower() in TAKEN_OUT:
        return
    start, told, fix = start_of(method), f"was initialised by {printable(method, 40)}", conversion_of(method)
    if start == "pissa":
        what = f"{told}, a random draw that it makes anew at each load, so that it takes another part out of the base"
        yield Problem(f"{what} (0.21.2)", fix, "other")
    elif start == "corda":
        yield Problem(f"{told}, at which it stops without what `preprocess_corda` found in the base (0.21.2)", fix)
    elif start == "lora_ga":
        what = f"{told}, so that B·A belongs to a base weight from which a part was taken, and it takes none (0.21.2)"
        yield Problem(what, fix, "other")
    else:
        yield Problem(f"{told}, which needs a GPU and bitsandbytes at load and was not run", fix, "unknown")


def _newer(config: Mapping[str, Any]) -> list[str]:
    """Return the fields that releases before 0.14 do not know."""
    if config.get("peft_type") == "LORA":
        return [field for field in config if field not in KNOWN]
    return [field for field in FIELDS if field in config]


def _lacks_prefix(adapter: Adapter, one: Unapplied) -> bool:
    """Return whether all that keeps modules from being applied is that PEFT's prefix is not there once."""
    inside = {path for path, names in wrapped(adapter).items() if names != (PREFIX.removesuffix("."),)}
    return inside.isdisjoint(one.modules)


def unapplied(one: Unapplied) -> Problem:
    """Return the problem that modules are not applied."""
    effect = _EFFECTS.get(one.kind, "other")
    mends = () if one.kind in ("prefix", "name") else None
    return Problem(f"holds {some(one.modules)}: {one.cause}" if one.modules else one.cause, one.remedy, effect,
                   one.modules, mends=mends)  # fmt: skip


def misranked(adapter: Adapter) -> Iterator[Problem]:
    """Yield a problem if modules have another rank than the configuration gives them: the shapes do not fit then."""
    if wrong := of_another_rank(adapter):
        module, rank = wrong[0]
        what = f"has modules of another rank than its configuration gives them: {some([module.path])} of rank "
        paths = tuple(one.path for one, _ in wrong)
        yield Problem(
            f"{what}{module.rank}, where it gives {printable(rank, 40)}",
            "set `r` or `rank_pattern` right",
            modules=paths,
            mends=(),
        )


def notes(adapter: Adapter) -> Iterator[str]:
    """Yield what PEFT does with an adapter that it loads as it was trained."""
    config = adapter.config or {}
    changed = [tensor.name for tensor in others_of(adapter, "base weight")]
    if changed:
        yield f"replaces weights of the base model by {len(changed)} tensors of the file: {some(changed)}"
    if (method := changed_base(config)) is not None and method.lower() in TAKEN_OUT:
        told = printable(method, 40)
        yield f"takes a part out of the base weights first ({told}): the base must be that of the training"
    projections = {module.projection for module in adapter.modules}
    if {"embed_tokens", "lm_head"} <= projections:
        yield "merges wrongly where embeddings and output layer are tied (0.21.2: 1.8 to 2.7 times off)"
    if replicates(config):
        yield "merges layer_replication wrongly (0.21.2)"
    if config.get("alora_invocation_tokens"):
        yield "cannot merge an aLoRA"
    yield from _hot_swap(adapter)
    for one in adapter.inventory.unapplied:
        if one.kind == "untrained" and not one.dead:
            yield f"builds {some(one.modules)} untrained, which `target_modules` names and the file lacks"


def _hot_swap(adapter: Adapter) -> Iterator[str]:
    config = adapter.config or {}
    rest = {"head": "heads", "tokens": "trained tokens", "bias": "biases"}
    others = [one for one in others_of(adapter, "head", "tokens", "bias") if not one.name.endswith(".lora_B.bias")]
    found = sorted({rest[tensor.role] for tensor in others})
    if any(module.dora for module in adapter.modules):
        found.append("DoRA")
    if any(module.kind == "embedding" for module in adapter.modules):
        found.append("embeddings")
    if found:
        yield f"cannot hot-swap it ({', '.join(found)})"
    elif has_patterns(config) and (config.get("rank_pattern") or config.get("alpha_pattern")):
        yield "hot-swaps it wrongly and says nothing (0.21.2, ranks or alphas by pattern)"


LOADER = Loader(
    "peft",
    problems,
    scaling=as_trained,
    on_exclusion=f"excluded modules need PEFT {FIRST_PEFT} or newer to load",
    seen=("0.13.2", FIRST_PEFT, "0.21.2"),
    how="run",
    notes=notes,
    missing=("other", "goes on without them, with a warning"),
    maps={
        ("llava", "language_model.model."): True,
        ("gemma3", "language_model.model."): True,
        ("qwen2_vl", "language_model.model."): False,
        ("llava", "model."): False,
        ("gemma3", "model."): False,
        ("qwen2_vl", "model."): False,
        ("mixtral", "block_sparse_moe.gate"): True,
    },
    builds=True,
    strict=False,  # writing an adapter mends what PEFT would not apply
)
