"""What stands first in every report for people: all that is in an adapter, in a few lines.

Lines are called as the conditions of `--fail-on` and `--allow` are that find the same. Ordinary adapters have none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from s3lora.adapter.inventory.files import CHECKPOINT
from s3lora.adapter.inventory.model import Inventory, InventoryFile, InventoryTensor, Unapplied
from s3lora.gate.counting import KINDS
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.report.base_lines import base_lines
from s3lora.report.compare_view import number
from s3lora.report.names import head, tail
from s3lora.report.values import count, size

Named = TypeVar("Named")
#: Tensors, modules and files that a line names, what one of them runs, and the columns that a name gets.
NAMED, RUNS, NAME = 3, 3, 56
#: Notes of a scan that say what the lines say.
_MODULES = re.compile(r"\d+ of \d+ modules (are zero updates|hold NaN or infinity)")
_DORA = "DoRA:"
#: Names that no quotes are needed for, and what a file runs in words without brackets and commas.
_PLAIN, _WORDS = re.compile(r"[\w.+@/=~…-]+"), re.compile(r"[\w.+@/=~…: -]+")
_CONTENT = {None: "not compared", "same": "the same content", "different": "other content", "unreadable": "unreadable"}


@dataclass(frozen=True, slots=True)
class GlanceLine:
    """One thing that a reader should know of, with the name of the condition that finds it."""

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Glance:
    """What is in an adapter.

    `lora` tells of the LoRA tensors and `folder` of the files beside them; each is empty where nothing is known.
    `base` is the name of the base model whose weights were read.
    """

    lora: str
    folder: str
    lines: tuple[GlanceLine, ...]
    notes: tuple[str, ...]
    base: str = ""

    @property
    def lead(self) -> str:
        """Return the first sentences, empty where nothing is known."""
        told = "; ".join(filter(None, (self.lora, self.folder)))
        base = f"Base weights read from {tail(self.base, NAME)}." if self.base else "Base model not read."
        return f"{told}. {base}" if told else ""


def glance_of(scan: Scan) -> Glance:
    """Return what is in the adapter, and those notes of the scan that say something else."""
    inventory = scan.inventory
    lines = tuple(_lines(scan))
    labels = {line.label for line in lines}

    def said(note: str) -> bool:
        return bool(_MODULES.match(note)) or ("dora" in labels and note.startswith(_DORA) and scan.base is None)

    notes = tuple(note for note in scan.warnings if not said(note))
    base = "" if scan.base is None else scan.base.name
    return Glance(_lora(inventory), _folder(inventory), lines, notes, base)


def _lora(inventory: Inventory) -> str:
    if not inventory.tensors:
        return ""
    others = inventory.unmeasured
    names = {tensor.name for tensor in others}
    own = [tensor for tensor in inventory.tensors if tensor.name not in names]
    facts = [
        _counted(own, "tensor"),
        f"{count(sum(tensor.parameters for tensor in own))} parameters",
        size(sum(tensor.bytes for tensor in own)),
    ]
    if all(tensor.finite for tensor in inventory.tensors):
        facts.append("all finite" if not others else "all values of the file finite")
    return f"{'LoRA' if others or inventory.base_changed else 'LoRA only'}: {', '.join(facts)}"


def _folder(inventory: Inventory) -> str:
    if not inventory.files:
        return ""
    beside = [file for file in inventory.files if file.role != "weights"]
    if inventory.alone:
        return "one file: what else its folder holds was not looked at"
    if not beside:
        return "no other file in the folder"
    weights = [file for file in beside if file.role == "other weights"]
    checkpoints = [file for file in beside if file.note == CHECKPOINT]
    kinds = (("other weights", weights), ("code", inventory.code), ("pickles", inventory.pickles))
    others = [file for file in beside if file.role == "adapter" and file.note != CHECKPOINT]
    there = [name for name, found in (*kinds, ("other adapters", others)) if found]
    none = [name for name, found in kinds if not found]
    among = f" ({_counted(checkpoints, 'checkpoint')} of the run, not measured)" if checkpoints else ""
    told = [f"with {_joined(there, 'and')}"] if there else []
    told += [f"no {name}" for name in none]
    named = "" if among or len(beside) > NAMED else f" ({some(beside, _file)})"
    return ", ".join([f"{_counted(beside, 'more file')}{among}{named}", *told])


def _file(file: InventoryFile) -> str:
    return quoted(tail(file.path, NAME))


def quoted(name: str, plain: re.Pattern[str] = _PLAIN) -> str:
    """Return a name in quotes where it could be read as several, or as words of the report.

    >>> quoted("adapter_config.json"), quoted("a.md), no code")
    ('adapter_config.json', '"a.md), no code"')
    """
    return name if plain.fullmatch(name) else f'"{name}"'


def _lines(scan: Scan) -> Iterator[GlanceLine]:
    inventory = scan.inventory
    for kind, belongs in KINDS.items():
        yield from _tensors(kind, [tensor for tensor in inventory.tensors if belongs(tensor)])
    yield from (GlanceLine(*line) for line in base_lines(scan))
    if inventory.base_changed:
        what = head(inventory.base_changed, NAME)
        yield GlanceLine("base-weights", f"{what} in adapter_config.json changes the base model at load")
    for one in inventory.unapplied:
        yield GlanceLine("dead-modules" if one.dead else one.kind, _unapplied(one))
    if text := _other_weights(inventory):
        yield GlanceLine("other-weights", text)
    for label, files in (("code", inventory.code), ("pickles", inventory.pickles)):
        if files:
            yield GlanceLine(label, some(files, _running))
    yield from _nonfinite(scan)
    if zero := [module for module in scan.modules if module.zero]:
        text = f"{len(zero)} of {len(scan.modules)} modules (B = 0: never trained, or pruned): no index"
        yield GlanceLine("zero-updates", text)
    if unread := [tensor for tensor in inventory.tensors if tensor.finite is None] if inventory.files else []:
        yield GlanceLine("not read", f"the values of {_counted(unread, 'tensor')}: {some(unread, _tensor)}")
    if inventory.unlisted:
        # Without their number: a card that is written into the folder would change it.
        yield GlanceLine("ambiguous", "the folder holds more files than are listed, and these were not looked at")


def _tensors(kind: str, found: Sequence[InventoryTensor]) -> Iterator[GlanceLine]:
    """Yield a line for each thing that a loader does with tensors of a kind."""
    for effect in dict.fromkeys(tensor.effect for tensor in found):
        own = [tensor for tensor in found if tensor.effect == effect]
        own.sort(key=lambda tensor: (tensor.finite is not False, -tensor.bytes))
        largest = [tensor.largest for tensor in own if tensor.largest is not None]
        facts = [_counted(own, "tensor"), size(sum(tensor.bytes for tensor in own))]
        facts += [f"values up to {number(max(largest))}"] if largest else []
        facts += [f"{'each ' if len(own) > 1 else ''}{effect}"] if effect else []
        yield GlanceLine(kind, f"{', '.join(facts)}: {some(own, _tensor)}")


def _tensor(tensor: InventoryTensor) -> str:
    return f"{tail(tensor.name, NAME)} {shape(tensor.shape)}"


def shape(sizes: Sequence[int]) -> str:
    """Return a shape as it is read aloud.

    >>> shape((2, 64)), shape(()), shape((0,))
    ('2×64', 'a number', '0')
    """
    return "×".join(map(str, sizes)) or "a number"


def _unapplied(one: Unapplied) -> str:
    what = {"empty": "tensor", "untrained": "name"}.get(one.kind, "module")
    names = f" ({some(one.modules, _name)})" if one.modules else ""
    return f"{_counted(one.modules, what) if one.modules else 'unknown'}: {one.cause}; {one.remedy}{names}"


def _other_weights(inventory: Inventory) -> str:
    files = [file for file in inventory.files if file.role == "other weights"]
    takers: dict[tuple[str, ...], list[str]] = {}
    for choice in inventory.loaders:
        if choice.files and not choice.measured:
            takers.setdefault(choice.files, []).append(choice.loader)
    told = [some(files, _weights)] if files else []
    told += [f"{_joined(loaders, 'and')} would take {some(taken, _name)}" for taken, loaders in takers.items()]
    return "; ".join(told)


def _weights(file: InventoryFile) -> str:
    return f"{_file(file)} ({size(file.bytes)}, {_CONTENT[file.content]})"


def _running(file: InventoryFile) -> str:
    names = ", ".join(quoted(head(name, NAME), _WORDS) for name in file.runs[:RUNS])
    more = f" and {len(file.runs) - RUNS} more" if len(file.runs) > RUNS else ""
    return _file(file) + (f" ({names}{more})" if names else "")


def _nonfinite(scan: Scan) -> Iterator[GlanceLine]:
    damaged = [module for module in scan.modules if module.nonfinite]
    if damaged:
        text = f"{len(damaged)} of {len(scan.modules)} modules hold NaN or infinity, and have no index"
        yield GlanceLine("nonfinite", f"{text}: {some(damaged, _path)}")
    others = [one for one in scan.inventory.tensors if one.finite is False and one.role != "factor"]
    if others:
        holds = "holds" if len(others) == 1 else "hold"
        yield GlanceLine("nonfinite", f"{_counted(others, 'tensor')} {holds} NaN or infinity: {some(others, _tensor)}")
    over = [module for module in scan.modules if module.overflows]
    if over:
        text = f"{len(over)} of {len(scan.modules)} modules have finite factors whose product overflows"
        yield GlanceLine("nonfinite", f"{text}: {some(over, _path)}")


def _path(module: ModuleScan) -> str:
    return _name(module.path)


def _name(name: str) -> str:
    return tail(name, NAME)


def some(found: Sequence[Named], told: Callable[[Named], str]) -> str:
    """Return the first few in words, and how many more there are."""
    more = f" and {count(len(found) - NAMED)} more" if len(found) > NAMED else ""
    return ", ".join(map(told, found[:NAMED])) + more


def _counted(found: Sequence[object], what: str) -> str:
    return f"{count(len(found))} {what}{'' if len(found) == 1 else 's'}"


def _joined(names: Sequence[str], by: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {by} {names[-1]}"
