"""What in a configuration makes PEFT stop, as its code of 0.21.2 says and as it was seen with some of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from s3lora.adapter.loaders.problems import MERGE, Problem, others_of, some
from s3lora.adapter.model import Adapter
from s3lora.errors import printable

#: First release that looks for the tensors of each part that it wraps.
_WRAPPED_SINCE = "0.15.0"
#: Heads that PEFT looks for where `task_type` is a classification, whatever `modules_to_save` says.
_HEADS = ("classifier", "score")
#: Initialisations that PEFT 0.21.2 knows by their beginning, by their name, and by their name in any case.
_BEGINNINGS, _NAMES, _ANY_CASE = (
    ("pissa", "corda"),
    ("loftq", "eva", "orthogonal", "lora_ga"),
    ("olora", "mica", "gaussian"),
)


def stops(adapter: Adapter, *, bare: bool) -> Iterator[Problem]:
    """Yield at what PEFT stops; with `bare` for a loader that does without what the file lacks."""
    config = adapter.config or {}
    if config.get("target_parameters"):
        yield from as_parameters(config)
    if config.get("peft_type") == "LORA":
        yield from _impossible(config)
    if not bare:
        yield from _promised(adapter)


def _impossible(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield fields that contradict each other, and an initialisation that nobody knows."""
    layers, start = config.get("layers_pattern"), config.get("init_lora_weights", True)
    fields = [name for name in ("layers_to_transform", "layers_pattern") if config.get(name) is not None]
    if isinstance(config.get("target_modules"), str) and fields:
        what = f"has `{fields[0]}` beside a `target_modules` that is an expression, at which PEFT 0.21.2 stops"
        yield Problem(what, "take the field out, and say the layers in the expression")
    elif layers and config.get("layers_to_transform") is None:
        yield Problem("has `layers_pattern` without `layers_to_transform`, at which PEFT 0.21.2 stops", "take it out")
    if config.get("lora_bias") and not isinstance(start, bool):
        what = f"has `lora_bias` beside the initialisation {printable(start, 40)}, at which PEFT 0.21.2 stops"
        yield Problem(what, "set `init_lora_weights` to true, which changes nothing of what the file holds")
    known = isinstance(start, str) and (
        start.startswith(_BEGINNINGS) or start in _NAMES or start.lower() in _ANY_CASE or not start
    )
    if isinstance(start, str) and not known:
        what = f"has `init_lora_weights` {printable(start, 40)}, which PEFT 0.21.2 does not know and stops at"
        yield Problem(what, "load it with the release that made it; where its training took nothing out of the base, "
                      "set the field to true")  # fmt: skip


def as_parameters(config: Mapping[str, Any], paths: tuple[str, ...] = ()) -> Iterator[Problem]:
    """Yield at which fields PEFT stops where modules become updates of parameters (`ParamWrapper`, PEFT 0.21.2)."""
    harmless = "set it to 0, which changes nothing but a training"
    for field, fix in (
        ("lora_dropout", harmless),
        ("use_dora", MERGE),
        ("lora_bias", MERGE),
        ("fan_in_fan_out", MERGE),
    ):
        if config.get(field):
            what = f"has `{field}`, at which PEFT 0.21.2 stops for updates of a parameter"
            yield Problem(f"{what}, as those of {some(paths)} are" if paths else what, fix, "fails", paths)


def _promised(adapter: Adapter) -> Iterator[Problem]:
    """Yield what the configuration says that the file holds beside its updates, and it lacks: PEFT stops at these."""
    config = adapter.config or {}
    roles = {role: [tensor.name for tensor in others_of(adapter, role)] for role in ("head", "tokens")}
    parts = {part for name in roles["head"] for part in name.split(".")}
    named = config.get("modules_to_save")
    names = [str(name) for name in named] if isinstance(named, list) else []
    heads = set(_HEADS) if str(config.get("task_type")).endswith("_CLS") or set(_HEADS) & {*names} else set()
    # Of the heads that PEFT names for a task, a model has one.
    lost = [name for name in names if name not in heads and parts.isdisjoint(name.split(".")[-1:])]
    if heads & {*names} and parts.isdisjoint(heads):
        lost += sorted(heads)
    if lost:
        what = f"lacks the layers that `modules_to_save` or `task_type` promises ({some(lost)}), and PEFT stops at them"
        fix = "take these names out of adapter_config.json, or save them"
        yield Problem(f"{what} where the base has them", fix, since=_WRAPPED_SINCE)
    elif heads and not roles["head"]:
        what = "holds no head, though `task_type` is a classification: PEFT stops where the base has one of its own"
        yield Problem(what, "load it once and look", "unknown", since=_WRAPPED_SINCE)
    if config.get("trainable_token_indices") and not roles["tokens"]:
        what = "lacks the tokens that `trainable_token_indices` promises, and PEFT stops at them"
        fix = "take the field out of adapter_config.json, or save them"
        yield Problem(what, fix, since=_WRAPPED_SINCE)
