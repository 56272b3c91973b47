"""What a loader is: which files it takes, which adapters it rejects or misreads, and how it computes their scaling."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from s3lora.adapter.formats.parts import Scalings
from s3lora.adapter.formats.patterns import layer_of
from s3lora.adapter.formats.wrappers import unwrapped
from s3lora.adapter.loaders.folder import LoaderView, Taken, of_peft, peft_files
from s3lora.adapter.loaders.problems import Effect, Problem, Problems, no_problems, numbers
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.peft_config import has_patterns, parameters_of
from s3lora.errors import UnsupportedAdapterError, UsageError, printable
from s3lora.wording import worded

_OF_EXPERTS = "shares its tensors with experts that stay"
_OF_VERA = "shares its projections, whose size PEFT takes from all layers"
_OF_ATTENTION = "is built with another update of its attention, which stays"
_OF_ALL = "shares a factor with other experts"
_OF_TEXT = "is what tells diffusers how the other projections of the text encoder are named"
_OF_PARTS = "is one of several in one projection, which loaders read together"
_TEXT_ATTENTION = re.compile(r"(?P<encoder>lora_te\d?)_.*_self_attn_(?P<kind>[qkv]|out)_proj(?:\.|$)")
#: A greater relative difference of scalings is more than another way of rounding.
TOLERANCE = 1e-9


def none_needed(adapter: Adapter, removed: set[str]) -> dict[str, str]:
    """Return nothing: the loader misses no module."""
    return {}


def nothing_to_know(before: int, after: int) -> None:
    """Return None: the loader takes every rank as it comes."""


def no_notes(adapter: Adapter) -> Iterator[str]:
    """Yield nothing."""
    yield from ()


#: What gives the scaling that a loader computes for each module of an adapter, None where it can compute none.
Scales = Callable[[Adapter], Callable[[LoraModule], float | None]]


def alpha_over_r(adapter: Adapter) -> Callable[[LoraModule], float | None]:
    """Return what gives `lora_alpha / r` of the configuration, whatever patterns and `use_rslora` say."""
    value = _quotient(adapter, (adapter.config or {}).get("r"))
    return lambda module: value


def alpha_over_root(adapter: Adapter) -> Callable[[LoraModule], float | None]:
    """Return what gives `lora_alpha / r`, or `lora_alpha / √r` with `use_rslora`, whatever patterns say."""
    config = adapter.config or {}
    value = _quotient(adapter, rank := config.get("r"))
    if value is not None and config.get("use_rslora"):
        value *= math.sqrt(rank)  # type: ignore[arg-type]
    return lambda module: value


def alpha_over_pattern(adapter: Adapter) -> Callable[[LoraModule], float | None]:
    """Return what follows PEFT's rule with the rank that the configuration gives, whatever that of the tensors is."""
    scalings = Scalings(adapter.config, "adapter_config.json")

    def compute(module: LoraModule) -> float | None:
        rank = scalings.rank(module.path)
        return scalings.of(module.path, rank).value if rank else None

    return compute


def alpha_over_tensor(adapter: Adapter) -> Callable[[LoraModule], float | None]:
    """Return what gives `lora_alpha` of the configuration by the rank of the tensors."""
    return lambda module: _quotient(adapter, module.rank)


def as_trained(adapter: Adapter) -> Callable[[LoraModule], float | None]:
    """Return what gives the scaling that a module has by the rules of PEFT."""
    return lambda module: module.scaling.value


def _quotient(adapter: Adapter, rank: object) -> float | None:
    alpha = (adapter.config or {}).get("lora_alpha", 8)
    given = (alpha, rank)
    if any(isinstance(value, bool) or not isinstance(value, int | float) or not value for value in given):
        return None
    return float(alpha) / float(rank)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Loader:
    """The rules of one loader.

    Parameters:
        name: as `--loader` has it.
        problems: yields why it would reject or misread an adapter, pruned or not.
        needed: returns which of the removed paths it must still find, with the reason, said of "it".
        scaling: how its oldest releases scale modules.
        newer: the versions that do it otherwise, the oldest first, each with how it does.
        divides_by_tensor: whether it divides `lora_alpha` by the rank of each tensor, whatever `r` says.
        on_exclusion: what a user must know where `exclude_modules` names removed modules.
        one_rank: whether it fails where modules have several ranks.
        lists_targets: whether it stops at a regular expression in `target_modules`.
        rank_note: returns what a user must know where the largest rank changes, given it before and after.
        reads: whether it is meant for such a folder.
        takes: which files it takes of it.
        seen: the versions that were run or read, the newest last.
        how: how they were seen.
        notes: yields what a user should know where it loads the adapter as it was trained.
        missing: what comes of modules that the base model has not, and what it does, said of the loader.
        missing_before: a version, and what came of those modules before it; None where it was the same.
        missing_layer: the same of modules of layers that it has not, whose projections it has elsewhere; None where it
            is the same.
        renamed: the same of modules that the base calls otherwise; None where it is the same.
        maps: whether it maps an old beginning of names to the new one, by architecture ("" for all) and beginning, as
            it was seen.
        builds: whether it builds modules by the configuration, and stacks experts that the base has stacked.
        by_layer: whether it goes by layer and projection, whatever stands before them in a name.
        tied_head: what comes of an update of an output layer that is tied to the embeddings; None where it loads.
        formats: what `convert` writes for it, the first unless another is asked for.
        cuts: projections that it joins with others, of which it takes the wrong rows where there are too many.
        more_words: what it does where `added_tokens.json` beside the weights names words that the base has not.
        writes: whether `prune` can write for it.
        strict: whether `prune` refuses what it would reject or misread.
        version: the version that is meant; None for any.
    """

    name: str
    problems: Problems = no_problems
    needed: Callable[[Adapter, set[str]], dict[str, str]] = none_needed
    scaling: Scales = alpha_over_r
    newer: tuple[tuple[str, Scales], ...] = ()
    divides_by_tensor: bool = False
    on_exclusion: str | None = None
    one_rank: bool = False
    lists_targets: bool = False
    rank_note: Callable[[int, int], str | None] = nothing_to_know
    reads: Callable[[LoaderView], bool] = of_peft
    takes: Callable[[LoaderView], Taken] = peft_files
    seen: tuple[str, ...] = ()
    how: str = "read in its source"
    notes: Callable[[Adapter], Iterator[str]] = no_notes
    missing: tuple[Effect, str] = ("other", "leaves them out")
    missing_before: tuple[str, Effect, str] | None = None
    missing_layer: tuple[Effect, str] | None = None
    renamed: tuple[Effect, str] | None = None
    maps: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    builds: bool = False
    by_layer: bool = False
    tied_head: tuple[Effect, str] | None = None
    formats: tuple[str, ...] = ("peft",)
    cuts: frozenset[str] = frozenset()
    more_words: str | None = None
    writes: bool = True
    strict: bool = True
    version: str | None = None

    @property
    def shown(self) -> str:
        """Return the name, with the version where one is meant."""
        return self.name if self.version is None else f"{self.name}={self.version}"

    def at(self, version: str) -> Loader:
        """Return the loader of one version; raise UsageError if it is none."""
        if not version or len(version) > 40 or not version[0].isdigit() or not version.isascii():
            raise UsageError(
                f"{printable(version, 40)!r} is no version", fix=f"write for example {self.name}={self.seen[-1]}"
            )
        return replace(self, version=version)

    def missing_in(self, *, layer: bool) -> tuple[Effect, str]:
        """Return what this version does with modules that the base has not, or that lie in a `layer` it has not."""
        if self.missing_before is not None and self.version is not None:
            first, effect, does = self.missing_before
            if Problem("", "", before=first).holds(self.version):
                return effect, does
        return self.missing_layer or self.missing if layer else self.missing

    def check(self, adapter: Adapter, *, bake: bool) -> None:
        """Raise UnsupportedAdapterError if the loader would reject or misread this adapter, pruned or not."""
        for problem in self.all_problems(adapter, bake=bake) if self.strict else ():
            if problem.told == "check":
                continue
            cannot = "is not known to load" if problem.effect == "unknown" else "cannot load"
            what = f"{self.shown} {cannot} this adapter: it {problem.what}"
            raise UnsupportedAdapterError(what, file=adapter.name, fix=problem.fix)

    def all_problems(self, adapter: Adapter, *, bake: bool = False) -> Iterator[Problem]:
        """Yield the problems that this version has, that of the scaling last; `bake` writes it into lora_B."""
        for problem in self.problems(adapter):
            if problem.holds(self.version):
                yield problem
        if not bake and (scaling := self.misscaled(adapter)) is not None:
            yield scaling

    def scales(self, adapter: Adapter) -> Callable[[LoraModule], float | None]:
        """Return what gives the scaling that this version, or the newest, computes for a module, None for none."""
        stages = [how for since, how in self.newer if self.version is None or not _before(since, self.version)]
        return (stages[-1] if stages else self.scaling)(adapter)

    def misscaled(self, adapter: Adapter) -> Problem | None:
        """Return the problem that modules get another scaling, None where all get theirs in every version meant."""
        if adapter.format != "peft" or adapter.config is None:
            return None
        stages = [("0", self.scaling), *self.newer]
        if self.version is not None:
            reached = [i for i, (since, _) in enumerate(stages) if not _before(since, self.version)]
            stages = stages[reached[-1] :]
        wrong = _wrongly(adapter, stages[0][1])
        if not wrong:
            return None
        mended = next((since for since, how in stages[1:] if not _wrongly(adapter, how)), None)
        module, found = wrong[0]
        told = "none" if found is None else f"{found:.4g}"
        releases = "" if mended is None else f" in releases before {mended}"
        patterns = "`use_rslora`" if adapter.config.get("use_rslora") else "patterns"
        why = patterns if has_patterns(adapter.config) else "an `r` that is not the rank of its tensors"
        return Problem(
            f"scales modules by {why}, which the loader does not read{releases}: {printable(module.path, 120)} "
            f"would get {told} instead of {module.scaling.value:.4g}",
            worded("add {bake}"),
            "other",
            tuple(one.path for one, _ in wrong),
            before=mended,
            mends=(),
        )

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
        stays = {module.path for module in adapter.modules} - removed
        built = {layer_of(path) for path in stays}
        zeros.update((path, _OF_ATTENTION) for path in removed if layer_of(path) in built)
        for kinds in text_encoders(adapter).values():
            if (kinds["q"] | kinds["k"] | kinds["v"]) & stays and not kinds["out"] & stays:
                zeros.update((path, _OF_TEXT) for path in kinds["out"] & removed)
        zeros.update(
            (path, "is an expert that newer loaders stack with those that stay") for path in _stacked(adapter, removed)
        )
        wrapped = {unwrapped(name.rpartition(".base_layer.")[0])[0] for name in adapter.other_tensors}
        zeros.update((path, "holds a tensor of its base layer, which would be lost") for path in removed & wrapped)
        zeros.update((path, "is one of several parameters of its layer") for path in removed & _among_others(adapter))
        return zeros | self.needed(adapter, removed - zeros.keys())


def _before(since: str, version: str) -> bool:
    return numbers(version) < numbers(since)


def _wrongly(adapter: Adapter, how: Scales) -> list[tuple[LoraModule, float | None]]:
    """Return the modules that get another scaling than they have, with what they get."""
    if how is as_trained:
        return []
    compute = how(adapter)
    return [
        (module, found)
        for module in adapter.modules
        if module.form == "LoRA" and not _same(found := compute(module), module.scaling.value)
    ]


def text_encoders(adapter: Adapter) -> dict[str, dict[str, set[str]]]:
    """Return the attention of each text encoder by kohya's names, by projection: `q`, `k`, `v` and `out`.

    diffusers 0.42.1 takes the names of q, k and v for those of another format, unless there is an `out_proj`.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for module in adapter.modules if adapter.format == "kohya" else ():
        if match := _TEXT_ATTENTION.match(module.path):
            kinds = found.setdefault(match["encoder"], {kind: set() for kind in ("q", "k", "v", "out")})
            kinds[match["kind"]].add(module.path)
    return found


def _same(one: float | None, other: float) -> bool:
    return one is not None and math.isclose(one, other, rel_tol=TOLERANCE)


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
