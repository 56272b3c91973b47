"""What an inventory says: every tensor of the weights, every file of the folder, and what loaders take of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

#: What a tensor is to the adapter. `factor` and `extra` (alpha, DoRA magnitude) belong to a LoRA module; `bias` is a
#: trained bias; `head` a module trained in full (`modules_to_save`); `tokens` are trained embeddings of some tokens;
#: a `base weight` takes the place of a weight of the base model when a loader reads the file.
TensorRole = Literal["factor", "extra", "bias", "head", "tokens", "base weight", "unknown"]
RESCALES = "rescales the rows of the base weight (DoRA)"
#: What a file of the folder is. `weights` were measured, `other weights` were not; `adapter` lies in a folder of its
#: own, as another adapter or checkpoint does; `pickle` is a pickle that was not measured.
FileRole = Literal["weights", "other weights", "adapter", "configuration", "tokenizer", "code", "pickle", "other"]
#: How other weights relate to those that were measured.
Sameness = Literal["same", "different", "unreadable"]
#: Heads of models that give classes, scores or places in a text.
_OF_CLASSES = re.compile(r"(?:^|\.)(?:score|scores|classifier|classification_head|qa_outputs|reward_head)\.")
#: Why modules that stand in the file are not applied, or are not what was trained.
UnappliedKind = Literal[
    "prefix",
    "name",
    "not targeted",
    "no target_parameters",
    "empty",
    "slice",
    "incomplete",
    "untrained",
    "not known",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryTensor:
    """One tensor of the weights that were measured.

    `module` is the path of the LoRA module or of the layer it belongs to. `finite` and `largest` (the largest finite
    magnitude) are None where the values were not read, or are no numbers. `sha256` is of the stored values, and only
    of tensors that are no factors. `effect` says what a loader does with it.
    """

    name: str
    role: TensorRole
    module: str | None
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    parameters: int
    finite: bool | None = None
    largest: float | None = None
    sha256: str | None = None
    effect: str = ""

    @property
    def rescales(self) -> bool:
        """Return whether it is a DoRA magnitude, which acts beside B·A."""
        return self.effect == RESCALES


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryFile:
    """One file of the adapter's folder.

    `path` is relative to the folder, with slashes and without control characters; that of a folder that was not looked
    into ends in a slash. `content` is told of other weights. `runs` lists what would run
    code, as far as reading it tells: what a pickle names, what a configuration points to, what a template reaches for.
    `note` says in a sentence what else there is to know.
    """

    path: str
    role: FileRole
    bytes: int
    content: Sameness | None = None
    runs: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderChoice:
    """Which files a loader takes from the folder: none where it finds nothing, and then `note` says why.

    `measured` tells whether these are just the files that were measured, or files of the same content; it is True
    as well where the loader takes none, for then it applies nothing that was not measured.
    """

    loader: str
    files: tuple[str, ...]
    measured: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unapplied:
    """Modules that stand in the file and that a loader does not apply, or not as they were trained.

    `dead` is False where the loader goes on with less than the configuration promises, which is worth a note only, and
    where it is not known which modules it applies; then there are no `modules`.
    """

    kind: UnappliedKind
    modules: tuple[str, ...]
    cause: str
    remedy: str
    dead: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Inventory:
    """All that is in an adapter.

    `tensors` stand in the order of the file, `files` in order of their paths. `unlisted` counts files beyond the
    bound of what is listed. `base_changed` names what of the configuration changes the base model at load: an
    initialisation that takes B·A out of its weights (PiSSA and its kin), or `layer_replication`. `alone` tells of a
    file of which nothing but what was read is listed. Of an adapter in memory there are no files and no loaders.
    """

    tensors: tuple[InventoryTensor, ...] = ()
    files: tuple[InventoryFile, ...] = ()
    loaders: tuple[LoaderChoice, ...] = ()
    unapplied: tuple[Unapplied, ...] = ()
    unlisted: int = 0
    base_changed: str | None = None
    alone: bool = False

    def __repr__(self) -> str:
        """Return how much there is, and how much of it no index sees."""
        counts = f"{len(self.tensors)} tensors, {len(self.unmeasured)} not LoRA, {len(self.files)} files"
        return f"<Inventory: {counts}>"

    def of_role(self, *roles: TensorRole) -> tuple[InventoryTensor, ...]:
        """Return the tensors of these roles."""
        return tuple(tensor for tensor in self.tensors if tensor.role in roles)

    @property
    def unmeasured(self) -> tuple[InventoryTensor, ...]:
        """Return the tensors of which no index says anything: all but factors and what sets their scaling."""
        return tuple(one for one in self.tensors if one.role not in ("factor", "extra") or one.rescales)

    @property
    def classifies(self) -> bool:
        """Return whether a head is trained that gives classes or scores: such a model answers no prompt."""
        return any(tensor.role == "head" and _OF_CLASSES.search(tensor.name) for tensor in self.tensors)

    @property
    def code(self) -> tuple[InventoryFile, ...]:
        """Return the files that are code, or make a program run some."""
        return tuple(file for file in self.files if file.role == "code" or (file.runs and file.role != "pickle"))

    @property
    def pickles(self) -> tuple[InventoryFile, ...]:
        """Return the pickles that were not measured."""
        return tuple(file for file in self.files if file.role == "pickle")

    @property
    def other_weights(self) -> tuple[InventoryFile, ...]:
        """Return the weights in the folder that were not measured and are not the same as those that were."""
        return tuple(file for file in self.files if file.role == "other weights" and file.content != "same")

    @property
    def dead(self) -> tuple[str, ...]:
        """Return the names of the modules, or tensors, that stand in the file and that no loader applies."""
        return tuple(dict.fromkeys(name for one in self.unapplied if one.dead for name in one.modules))
