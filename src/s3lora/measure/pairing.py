"""Names of one module by several tools, or by several versions of one library: which belong together.

A renaming maps every name to a key; two names with one key are one module. It is used only where it finds more modules
in common than the names as they are, and where no two modules of one adapter get one key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Renaming:
    """`key` of a name; `told` says in words what is taken for the same."""

    told: str
    key: Callable[[str], str]


_PARTS = {
    "lora_unet": "unet",
    "unet": "unet",
    "lora_transformer": "unet",
    "transformer": "unet",
    "diffusion_model": "unet",
    "lora_te": "te",
    "lora_te1": "te",
    "text_encoder": "te",
    "lora_te2": "te2",
    "text_encoder_2": "te2",
}
_PART = re.compile(rf"(?P<part>{'|'.join(sorted(_PARTS, key=len, reverse=True))})[._](?P<rest>.+)")


def without_wrapping(path: str) -> str:
    """Return a name without the model that the language model lies in.

    >>> without_wrapping("model.language_model.layers.0.mlp"), without_wrapping("language_model.model.layers.0.mlp")
    ('layers.0.mlp', 'layers.0.mlp')
    """
    names = [name for name in path.split(".") if name != "language_model"]
    while len(names) > 1 and names[0] == "model":
        names = names[1:]
    return ".".join(names)


def with_underscores(path: str) -> str:
    """Return the name that kohya's scripts and Diffusers have in common.

    >>> with_underscores("lora_unet_mid_block_attn1_to_q"), with_underscores("unet.mid_block.attn1.to_q")
    ('unet_mid_block_attn1_to_q', 'unet_mid_block_attn1_to_q')
    """
    match = _PART.fullmatch(path)
    part, rest = (_PARTS[match["part"]], match["rest"]) if match else ("unet", path)
    return f"{part}_{rest.replace('.', '_')}"


def _with_experts(path: str) -> str:
    return without_wrapping(".".join("experts" if name == "switch_mlp" else name for name in path.split(".")))


RENAMINGS = (
    Renaming("`model.language_model.`, `language_model.model.` and `model.` are taken for the same", without_wrapping),
    Renaming("`switch_mlp` is taken for `experts`", _with_experts),
    Renaming("`.` and `_` are taken for the same, as kohya's scripts write them", with_underscores),
)


def paired(names: Sequence[tuple[str, Iterable[str]]]) -> tuple[list[dict[str, str]], list[str]]:
    """Return for each adapter the names that its modules get, where they get others, and what to say of it.

    Parameters:
        names: of each adapter what it is called, and the names of its modules.

    >>> paired([("old", ["model.layers.0.q"]), ("new", ["model.language_model.layers.0.q"])])[0]
    [{}, {'model.language_model.layers.0.q': 'model.layers.0.q'}]
    """
    known: dict[str, None] = {}
    made: list[dict[str, str]] = []
    notes: list[str] = []
    for number, (label, own) in enumerate(names):
        paths = list(own)
        new, renaming = _best(known, paths) if number else ({}, None)
        if renaming is not None:
            matched = sum(new.get(path, path) in known for path in paths)
            many = f"all {len(paths)}" if matched == len(paths) else f"{matched} of {len(paths)}"
            notes.append(f"{label}: {many} names match those of {names[0][0]} where {renaming.told}")
        made.append(new)
        known.update(dict.fromkeys(new.get(path, path) for path in paths))
    return made, notes


def _best(known: Mapping[str, None], paths: Sequence[str]) -> tuple[dict[str, str], Renaming | None]:
    """Return the names under which most modules are known ones, and the renaming, None where it is their own."""
    most = sum(path in known for path in paths)
    best: dict[str, str] = {}
    found = None
    if most == len(paths):
        return best, found
    for renaming in RENAMINGS:
        table = {renaming.key(path): path for path in known}
        keys = {path: renaming.key(path) for path in paths}
        if len(table) < len(known) or len({*keys.values()}) < len(keys):
            continue
        new = {path: table[key] for path, key in keys.items() if key in table}
        if len(new) > most:
            most, found = len(new), renaming
            best = {path: name for path, name in new.items() if path != name}
    return best, found
