"""Transformers 5.24 `load_adapter`: PEFT's rules, but that it finds keys without PEFT's prefix, or with two. Run."""

from __future__ import annotations

from collections.abc import Iterator

from s3lora.adapter.loaders import peft
from s3lora.adapter.loaders.base import Loader, as_trained
from s3lora.adapter.loaders.problems import MERGE, Problem, default_names
from s3lora.adapter.model import Adapter


def _problems(adapter: Adapter) -> Iterator[Problem]:
    # What depends on a version depends on that of PEFT, and not on its own.
    yield from (problem for problem in peft.problems(adapter, bare=True) if problem.before is None)
    yield from default_names(adapter, "which it does not find", "other")
    if (adapter.config or {}).get("alora_invocation_tokens"):
        what = "is an aLoRA, which it loads and never switches on"
        yield Problem(what, "use PEFT", "other")
    if any(module.dora for module in adapter.modules):
        what = "uses DoRA, of which it makes another model than PEFT does (0.2 to 0.3 off)"
        yield Problem(what, f"use PEFT, or {MERGE}", "other")


LOADER = Loader(
    "transformers",
    _problems,
    scaling=as_trained,
    seen=("4.57.6", "5.24.0"),
    how="run",
    notes=peft.notes,
    missing=("other", "goes on without them, with a warning"),
    renamed=("unknown", "maps names by a table for each model, which was not tried"),
    maps={**peft.LOADER.maps, ("qwen2_vl", "model."): True, ("", ""): True},
    builds=True,
    writes=False,
)
