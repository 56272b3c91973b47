"""What a loader has against an adapter: problems, the versions that have them, and those that several loaders share."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Iterator
from dataclasses import dataclass
from typing import Literal

from s3lora.adapter.formats.forms import PRODUCTS
from s3lora.adapter.formats.peft_notes import changed_base, conversion_of, replicated_layers, replicates
from s3lora.adapter.formats.wrappers import unwrapped
from s3lora.adapter.inventory.model import InventoryTensor, TensorRole
from s3lora.adapter.inventory.tensors import tensors_of
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.errors import printable

#: What comes of a problem: the loader stops, goes on with another update than the adapter's, or nobody has seen it.
Effect = Literal["fails", "other", "unknown"]
#: What may be left out of an adapter besides its modules, as `--drop` names it.
DropPart = Literal["heads", "bias", "tokens", "other", "all"]
MERGE = "merge it into the base model instead"
#: Copies of base weights that PEFT saves beside an update of the embeddings or of the output layer.
SAVED_ALONG = ("embed_tokens.base_layer.weight", "lm_head.base_layer.weight")
#: Layers of GPT-2 and its kin, whose weights lie the other way round (Conv1D).
CONV1D = ("c_attn", "c_proj", "c_fc", "q_attn")
#: Names that a sentence tells of many.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that a loader rejects or misreads.

    Parameters:
        what: what is wrong, said of "it", the adapter.
        fix: what to do.
        effect: what comes of it.
        modules: paths of the modules that it is about; empty for the whole adapter.
        since: the first version that has the problem; None for every version that is known.
        before: the first version that no longer has it.
        mends: what `convert` must leave out (`--drop`) so that writing the adapter for the loader mends it; none where
            writing it is enough, None where that mends nothing.
        tied: whether it holds only where the base ties its output layer to the embeddings.
        told: by whom: by `check` alone where writing the adapter mends it, by `prune` alone where the loader can be
            told otherwise.
    """

    what: str
    fix: str
    effect: Effect = "fails"
    modules: tuple[str, ...] = ()
    since: str | None = None
    before: str | None = None
    mends: tuple[DropPart, ...] | None = None
    tied: bool = False
    told: Literal["both", "check", "prune"] = "both"

    def holds(self, version: str | None) -> bool:
        """Return whether a version has the problem; None stands for any version, of which some has."""
        if version is None:
            return True
        asked = numbers(version)
        return not (
            (self.since is not None and asked < numbers(self.since))
            or (self.before is not None and asked >= numbers(self.before))
        )


def numbers(version: str) -> tuple[int, ...]:
    """Return a version as numbers that can be compared.

    >>> numbers("0.5.23") > numbers("0.5.9")
    True
    """
    return tuple(int(part[:9]) for part in re.findall(r"\d+", version)[:6])


#: What tells the problems that a loader has with an adapter.
Problems = Callable[[Adapter], Iterator[Problem]]


def no_problems(adapter: Adapter) -> Iterator[Problem]:
    """Yield nothing: the loader reads whatever s3lora opens."""
    yield from ()


def some(names: tuple[str, ...] | list[str]) -> str:
    """Return a few names for a sentence."""
    told = ", ".join(printable(name, 120) for name in names[:NAMED])
    return f"{told}, …" if len(names) > NAMED else told


def lacking(adapter: Adapter, *fields: str) -> Iterator[Problem]:
    """Yield a problem if the configuration lacks fields without which a loader stops."""
    if missing := [f"`{field}`" for field in fields if (adapter.config or {}).get(field) is None]:
        yield Problem(f"lacks {', '.join(missing)} in its configuration", "write it into adapter_config.json")


def in_wrappers(adapter: Adapter, what: str, effect: Effect) -> Iterator[Problem]:
    """Yield a problem if keys lie inside wrappers other than a second prefix of PEFT's, which is taken off."""
    if lost := [path for path, names in wrapped(adapter).items() if names != ("base_model.model",)]:
        yield Problem(what, "save the unwrapped model", effect, tuple(lost), mends=(), told="check")


def default_names(adapter: Adapter, does: str, effect: Effect = "fails") -> Iterator[Problem]:
    """Yield a problem if keys hold the name of an adapter; `does` is what the loader makes of it."""
    if named := named_default(adapter):
        what = f"has keys with the name of an adapter, such as `lora_A.default.weight`, {does}"
        paths = tuple(module.path for module in named)
        yield Problem(what, "rename the keys: `….lora_A.weight`", effect, paths, mends=())


def tensors(found: Collection[object]) -> str:
    """Return how many tensors these are, in words."""
    return f"{len(found)} tensor{'' if len(found) == 1 else 's'}"


def not_peft(adapter: Adapter) -> Iterator[Problem]:
    """Yield a problem unless the adapter is PEFT's, with its configuration."""
    if adapter.format != "peft" or adapter.config is None:
        yield from without_config(adapter)
    yield from other_kinds(adapter)


def without_config(adapter: Adapter) -> Iterator[Problem]:
    """Yield the problem of an adapter that is not PEFT's, or has lost its configuration."""
    if adapter.format == "peft" and adapter.config is None:
        fix = "get it from where the adapter comes from; converting would write one, but with a scaling of 1"
        yield Problem("has no adapter_config.json", fix, mends=())
    else:
        yield Problem("is no PEFT adapter with an adapter_config.json", "convert it to PEFT's format first", mends=())


def other_kinds(adapter: Adapter, *, but: str = "") -> Iterator[Problem]:
    """Yield a problem for each form of update that is no LoRA, `but` one that a loader takes for LoRA."""
    for form in dict.fromkeys(module.form for module in adapter.modules if module.form not in ("LoRA", but)):
        if form in PRODUCTS:
            yield Problem(f"is {form}, and it reads LoRA only", "convert it to LoRA first", mends=())
        else:
            yield Problem(f"is {form}, and it reads LoRA only", MERGE)


def other_forms(adapter: Adapter) -> Iterator[Problem]:
    """Yield a problem if updates are stored in another form than LoRA, with which a loader was not seen."""
    if forms := [*dict.fromkeys(module.form for module in adapter.modules if module.form != "LoRA")]:
        yield Problem(f"is {' and '.join(forms)}, with which it was not seen", "load it once and look", "unknown")


def dora(adapter: Adapter) -> Iterator[Problem]:
    """Yield a problem if the adapter has magnitude vectors."""
    if any(module.dora for module in adapter.modules) or (adapter.config or {}).get("use_dora"):
        yield Problem("uses DoRA, which it rejects", MERGE)


def trained_bias(adapter: Adapter, *, of_base: bool = True) -> Iterator[Problem]:
    """Yield a problem if the configuration says that bias vectors were trained, `of_base` those of the base too."""
    config = adapter.config or {}
    if config.get("lora_bias") or (of_base and config.get("bias") not in (None, "none")):
        yield Problem("trains bias vectors, which it rejects", MERGE)


def others_of(adapter: Adapter, *roles: TensorRole) -> list[InventoryTensor]:
    """Return the tensors that are no part of LoRA: of these roles, or of any."""
    wanted = roles or ("bias", "head", "tokens", "base weight", "unknown")
    # An adapter from which some are dropped still has the files that hold them.
    left = {*adapter.other_tensors, *(name for module in adapter.modules for name in module.extras)}
    return [tensor for tensor in tensors_of(adapter, {}) if tensor.role in wanted and tensor.name in left]


def named_default(adapter: Adapter) -> list[LoraModule]:
    """Return the modules whose keys hold the name of an adapter, as `lora_A.default.weight` does."""
    return [
        module
        for module in adapter.modules
        if any(re.search(r"\.lora_(?:[AB]\.[^.].*\.weight|embedding_[AB]\..+)$", p.tensor.name) for p in module.parts)
    ]


def wrapped(adapter: Adapter) -> dict[str, tuple[str, ...]]:
    """Return the wrappers in the keys of each module that has some, by its path."""
    found = {}
    for module in adapter.modules:
        if names := unwrapped(module.A.parts[0].tensor.name.partition(".lora_")[0])[1]:
            found[module.path] = names
    return found


def fused_experts(adapter: Adapter) -> tuple[str, ...]:
    """Return the paths of experts that share the two-dimensional tensors of PEFT's `target_parameters`."""
    return tuple(
        module.path
        for module in adapter.modules
        if module.group is not None and len(module.A.parts[0].tensor.shape) == 2
    )


def unseen_layers(adapter: Adapter, names: Container[str], what: str, *, known: bool) -> Iterator[Problem]:
    """Yield a problem if modules have other names than a loader is `known` to take, or such as it was not seen with."""
    if paths := [module.path for module in adapter.modules if (module.projection in names) is not known]:
        fix = "load it once and look"
        yield Problem(f"has {some(paths)}, {what}", fix, "unknown", tuple(paths), told="check")


def changed_at_load(
    adapter: Adapter, effect: Effect = "other", since: str | None = None, before: str | None = None
) -> Iterator[Problem]:
    """Yield a problem if the base weights are not those that the factors belong to."""
    method = changed_base(adapter.config)
    if method is not None:
        yield Problem(
            f"was initialised by {printable(method, 40)}, so that B·A belongs to a base weight from which a part was "
            "taken, and it takes none",
            conversion_of(method),
            effect,
            since=since,
            before=before,
        )


def replicated(
    adapter: Adapter, effect: Effect, since: str | None = None, before: str | None = None
) -> Iterator[Problem]:
    """Yield a problem if the layers of the base model are put together anew at load."""
    if replicates(adapter.config):
        yield Problem("has `layer_replication`, which it does not read", MERGE, effect, since=since, before=before)


def more_layers(adapter: Adapter) -> bool:
    """Return whether `layer_replication` makes more layers than the base has of those that it names."""
    order = replicated_layers(adapter.config)
    return len(order) > max(order, default=0) + 1


def activated(
    adapter: Adapter, effect: Effect, since: str | None = None, before: str | None = None
) -> Iterator[Problem]:
    """Yield a problem if the adapter is an aLoRA, which acts only after its invocation tokens."""
    if (adapter.config or {}).get("alora_invocation_tokens"):
        what = "is an aLoRA, which acts only after its invocation tokens, and it does not read that"
        yield Problem(what, "use PEFT", effect, since=since, before=before)
