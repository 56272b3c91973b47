"""What a loader is, and the problems that several of them have with an adapter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from s3lora.adapter.formats.wrappers import unwrapped
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.peft_config import has_patterns, parameters_of
from s3lora.errors import UnsupportedAdapterError

#: What is wrong with an adapter, said of "it", and what to do.
Problem = tuple[str, str]
_OF_EXPERTS = "shares its tensors with experts that stay"
_OF_VERA = "shares its projections, whose size PEFT takes from all layers"
_OF_ALL = "shares a factor with other experts"
_OF_PARTS = "is one of several in one projection, which loaders read together"
MERGE = "merge it into the base model instead"


def no_problems(adapter: Adapter) -> Iterator[Problem]:
    """Yield nothing: the loader reads whatever s3lora opens."""
    yield from ()


def none_needed(adapter: Adapter, removed: set[str]) -> dict[str, str]:
    """Return nothing: the loader misses no module."""
    return {}


def nothing_to_know(before: int, after: int) -> None:
    """Return None: the loader takes every rank as it comes."""


@dataclass(frozen=True, slots=True)
class Loader:
    """The rules of one loader.

    Parameters:
        name: as `--loader` has it.
        problems: yields why it would reject or misread an adapter, pruned or not.
        needed: returns which of the removed paths it must still find, with the reason, said of "it".
        reads_patterns: whether every release of it reads `use_rslora`, `rank_pattern` and `alpha_pattern`.
        divides_by_tensor: whether it divides `lora_alpha` by the rank of each tensor, whatever `r` says.
        on_exclusion: what a user must know where `exclude_modules` names removed modules.
        one_rank: whether it fails where modules have several ranks.
        rank_note: returns what a user must know where the largest rank changes, given it before and after.
    """

    name: str
    problems: Callable[[Adapter], Iterator[Problem]] = no_problems
    needed: Callable[[Adapter, set[str]], dict[str, str]] = none_needed
    reads_patterns: bool = False
    divides_by_tensor: bool = False
    on_exclusion: str | None = None
    one_rank: bool = False
    rank_note: Callable[[int, int], str | None] = nothing_to_know

    def check(self, adapter: Adapter, *, bake: bool) -> None:
        """Raise UnsupportedAdapterError if the loader would reject or misread this adapter, pruned or not."""
        for problem, fix in self._problems(adapter, bake=bake):
            what = f"{self.name} cannot load this adapter: it {problem}"
            raise UnsupportedAdapterError(what, file=adapter.name, fix=fix)

    def _problems(self, adapter: Adapter, *, bake: bool) -> Iterator[Problem]:
        yield from self.problems(adapter)
        if not (bake or self.reads_patterns) and has_patterns(adapter.config or {}):
            what = "scales modules by use_rslora or patterns, which not every release of it reads"
            yield what, "add --bake-scaling"

    def kept_as_zeros(self, adapter: Adapter, removed: set[str]) -> dict[str, str]:
        """Return which of the `removed` paths must stay as zero tensors, with the reason (said of "it").

        Experts that share tensors, or that a loader stacks into one, can only leave together; a base layer's tensor
        that was saved under the wrapped module's name is found only while the module is wrapped; some formats'
        loaders read every module; and this loader may need more.
        """
        zeros: dict[str, str] = {}
        if not adapter.removable:
            zeros.update((path, f"is needed by loaders of {adapter.format}, which read them all") for path in removed)
        zeros.update(_sharing(adapter, removed))
        zeros.update(_shared(adapter, removed))
        zeros.update(
            (path, "is an expert that newer loaders stack with those that stay") for path in _stacked(adapter, removed)
        )
        wrapped = {unwrapped(name.rpartition(".base_layer.")[0])[0] for name in adapter.other_tensors}
        zeros.update((path, "holds a tensor of its base layer, which would be lost") for path in removed & wrapped)
        zeros.update((path, "is one of several parameters of its layer") for path in removed & _among_others(adapter))
        return zeros | self.needed(adapter, removed - zeros.keys())


def _sharing(adapter: Adapter, removed: set[str]) -> dict[str, str]:
    """Return the removed modules that have a factor in common with others, with the reason."""
    return {
        module.path: _OF_VERA if module.form == "VeRA" else _OF_ALL
        for module in adapter.modules
        if module.path in removed and any(part.shared for part in module.parts)
    }


def _shared(adapter: Adapter, removed: set[str]) -> dict[str, str]:
    """Return the removed modules whose group stays in part, with the reason."""
    groups: dict[str, list[LoraModule]] = defaultdict(list)
    for module in adapter.modules:
        if module.group is not None:
            groups[module.group].append(module)
    found = {}
    for modules in groups.values():
        if not removed.issuperset(module.path for module in modules):
            for module in modules:
                if module.path in removed:
                    fused = module.expert is not None
                    found[module.path] = _OF_EXPERTS if fused else _OF_PARTS
    return found


def _stacked(adapter: Adapter, removed: set[str]) -> set[str]:
    """Return the removed experts with tensors of their own, unless all of the adapter's experts go.

    From transformers 5 on, PEFT stacks them into one parameter: it fails if one expert is missing, and cannot leave
    one layer out, since its configuration names the stacked parameter of all layers.
    """
    experts = {module.path for module in adapter.modules if module.expert is not None and module.group is None}
    by_name = isinstance((adapter.config or {}).get("target_modules"), list)
    return set() if by_name and experts <= removed else experts & removed


def _among_others(adapter: Adapter) -> set[str]:
    """Return the parameters of layers of which `target_parameters` names several: which is which, nothing tells."""
    config = adapter.config or {}
    return {module.path for module in adapter.modules if len(parameters_of(module, config)) > 1}


def not_peft(adapter: Adapter) -> Iterator[Problem]:
    """Yield a problem unless the adapter is PEFT's, with its configuration."""
    if adapter.format != "peft" or adapter.config is None:
        yield "is no PEFT adapter with an adapter_config.json", "convert it to PEFT's format first"
    for form in dict.fromkeys(module.form for module in adapter.modules if module.form != "LoRA"):
        yield f"is {form}, and it reads LoRA only", MERGE


def dora(adapter: Adapter) -> Iterator[Problem]:
    """Yield a problem if the adapter has magnitude vectors."""
    if any(module.dora for module in adapter.modules):
        yield "uses DoRA, which it rejects", MERGE


def trained_bias(adapter: Adapter, *, of_base: bool = True) -> Iterator[Problem]:
    """Yield a problem if the configuration says that bias vectors were trained, `of_base` those of the base too."""
    config = adapter.config or {}
    if config.get("lora_bias") or (of_base and config.get("bias") not in (None, "none")):
        yield "trains bias vectors, which it rejects", MERGE


def other_tensors(adapter: Adapter) -> Iterator[Problem]:
    """Yield a problem if the file holds more than LoRA factors."""
    others = adapter.other_tensors
    if others:
        yield f"holds {len(others)} tensors that are no LoRA factors ({others[0]}, …)", MERGE
