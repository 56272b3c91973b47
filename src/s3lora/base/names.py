"""One module under two names: which part of a path says where the model begins, and what was renamed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from s3lora.adapter.model import block

#: ModuleNames within a layer that transformers 5 changed, old → new.
RENAMED = (
    ("block_sparse_moe.gate", "mlp.gate"),
    ("block_sparse_moe.experts", "mlp.experts"),
    ("feed_forward.", "mlp."),
)
#: The same of what is in no layer: of GPT-NeoX.
_OUTER = {"embed_out": "lm_head"}
#: Projections of one expert that are stacked into a fused parameter, by its name.
EXPERTS = {
    "gate_up_proj": ("gate_proj", "up_proj", "w1", "w3", "gate_up_proj"),
    "down_proj": ("down_proj", "w2"),
}
#: Paths with one end that are looked at: models have as many as they have towers.
MAX_ALIKE = 32
#: Parts of names of what sees and hears, whose layers are called as those of the language model.
_SENSES = ("vision", "visual", "audio", "image")
_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.([^.]+)")
#: Beginnings that wrappers and tasks put in front, and what renamed `model.layers` → what to tell.
REASONS = {
    ("model.", "model.language_model."): "transformers 4.52 put the language model of such models there",
    ("language_model.model.", "model.language_model."): "transformers 4.52 turned this around",
    ("", "model."): "the adapter was trained on the model without its head",
    ("", "transformer."): "the adapter was trained on the model without its head",
    ("model.", ""): "the adapter was trained on the model with its head",
    ("transformer.", ""): "the adapter was trained on the model with its head",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRenaming:
    """A renaming that makes modules fit: what stands at the beginning of their paths, or in them, and what should.

    `modules` counts those that it is right for, `example` is one of them, and `why` says where it comes from.
    """

    old: str
    new: str
    modules: int
    example: str
    why: str = ""


def tail_of(path: str) -> str:
    """Return what is left of a path from its layer on: the same in every model that holds the layer.

    >>> tail_of("model.language_model.layers.3.mlp.up_proj"), tail_of("lm_head")
    ('layers.3.mlp.up_proj', 'lm_head')
    """
    where = block(path)
    if where == path and not any(part.isdigit() for part in path.split(".")):
        return path.rpartition(".")[2]
    parts = where.split(".")
    return ".".join(parts[-2:]) + path[len(where) :]


def expert_of(path: str) -> tuple[str, int, str] | None:
    """Return the fused parameter that an expert's projection is a part of, its number, and the projection.

    >>> expert_of("model.layers.0.mlp.experts.7.up_proj")
    ('model.layers.0.mlp.experts.gate_up_proj', 7, 'up_proj')
    """
    match = _EXPERT.fullmatch(path)
    if match is None or len(match[2]) > 9:
        return None
    fused = next((name for name, parts in EXPERTS.items() if match[3] in parts), None)
    return None if fused is None else (f"{match[1]}.{fused}", int(match[2]), match[3])


class ModuleNames:
    """Finds the modules of an adapter among those of a base model."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Take the paths of the base model."""
        self._known = frozenset(paths)
        self._by_tail: dict[str, list[str]] = {}
        for path in sorted(self._known):
            alike = self._by_tail.setdefault(tail_of(path), [])
            if len(alike) < MAX_ALIKE:
                alike.append(path)

    def find(self, path: str) -> str | None:
        """Return the module of the base that a path means, by this or by another name; None for none or several.

        Of several with one end, it is the one whose beginning has most names in common: models that see have layers of
        the same names in two places.
        """
        for spelled in _spellings(path):
            if spelled in self._known:
                return spelled
            found = sorted((_likeness(spelled, other), other) for other in self._by_tail.get(tail_of(spelled), ()))
            if found and (len(found) == 1 or found[-1][0] > found[-2][0]) and found[-1][0] >= 0:
                return found[-1][1]
        return None


def changed_prefix(old: str, new: str) -> tuple[str, str]:
    """Return what stands before the common end of two paths.

    >>> changed_prefix("model.layers.0.q_proj", "model.language_model.layers.0.q_proj")
    ('model.', 'model.language_model.')
    """
    before, after = old.split("."), new.split(".")
    while before and after and before[-1] == after[-1]:
        before.pop()
        after.pop()
    return ("".join(f"{name}." for name in before), "".join(f"{name}." for name in after))


def _likeness(path: str, other: str) -> int:
    """Return how many names two paths share, less than 0 where one leads into another part of the model."""
    mine, theirs = path.split("."), other.split(".")
    apart = any(mark in name for name in set(mine) ^ set(theirs) for mark in _SENSES)
    return -1 if apart else len(set(mine) & set(theirs))


def _spellings(path: str) -> Iterator[str]:
    """Yield a path, and how newer versions of a model call it."""
    yield path
    if path in _OUTER:
        yield _OUTER[path]
    for old, new in RENAMED:
        if f".{old}" in path:
            yield path.replace(f".{old}", f".{new}", 1)


def renamings(pairs: Mapping[str, str]) -> tuple[ModuleRenaming, ...]:
    """Return the renamings that turn each path into its other, each with how many it is right for."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for path, base in pairs.items():
        change = readable_change(path, base)
        counts[change] += 1
        examples.setdefault(change, path)
    return tuple(
        ModuleRenaming(old=old, new=new, modules=count, example=examples[old, new], why=REASONS.get((old, new), ""))
        for (old, new), count in counts.most_common()
    )


def readable_change(path: str, base: str) -> tuple[str, str]:
    """Return what has to be replaced in a path, and by what: a name within a layer, or the beginning.

    >>> readable_change("model.layers.0.block_sparse_moe.gate", "model.layers.0.mlp.gate")
    ('block_sparse_moe.gate', 'mlp.gate')
    """
    for old, new in RENAMED:
        if f".{old}" in path and path.replace(f".{old}", f".{new}", 1) == base:
            return old, new
    return changed_prefix(path, base)
