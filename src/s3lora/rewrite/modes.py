"""What becomes of a chosen module: one class a mode, with its own settings and its own `apply`.

To add a mode, write a class like those below and name it in `MODES`. The command makes its options out of the fields.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np

from s3lora.adapter.model import LoraModule
from s3lora.adapter.tensor import Array
from s3lora.arguments import check_fields
from s3lora.errors import UsageError
from s3lora.spectrum.clip import clip_factors
from s3lora.wording import worded

Side = Literal["A", "B"]


def setting(default: Any, option: str, metavar: str, text: str) -> Any:
    """Return a field of a mode that the command knows as `option`, such as `--factor`, with this help."""
    return field(default=default, metadata={"option": option, "metavar": metavar, "help": text})


@dataclass(frozen=True, slots=True)
class Mode(ABC):
    """What becomes of a chosen module; the fields are the settings, and are checked when it is made.

    `action` says in reports what was done. `changes` names the factors that `apply` changes: the tensors of the other
    are copied bit by bit. What a mode needs besides the module, such as gates learned for it or weights of the base,
    is a field too, which `apply` looks up by the module's path; only fields made by `setting` are options.
    """

    name: ClassVar[str]
    action: ClassVar[str]
    changes: ClassVar[tuple[Side, ...]] = ("A", "B")

    @abstractmethod
    def apply(self, module: LoraModule) -> tuple[Array, Array]:
        """Return the new (A, B) of a module, with the shapes they have, in any real dtype.

        It is asked for each tensor that is written, so that one module is in memory at a time: equal modules must
        give equal factors.
        """

    def bias(self) -> float:
        """Return what a trained bias of lora_B is multiplied by: it is added to B·A, and is no factor."""
        return 1.0

    def times(self) -> float | None:
        """Return what ΔW is multiplied by where no more than that is done, else None.

        Updates that are no product of two free factors can be multiplied, and changed in no other way.
        """
        return None

    def spares(self, module: LoraModule) -> bool:
        """Return whether this module stays as it is: then `apply` is not asked."""
        return False

    def notes(self, modules: Sequence[LoraModule]) -> Iterable[str]:
        """Yield what a user should know, given the chosen modules."""
        return ()


@dataclass(frozen=True, slots=True)
class Remove(Mode):
    """The module's tensors leave the file, and the configuration says so; where a loader needs them, they are zeroed.

    Examples:
        >>> import s3lora
        >>> with s3lora.open_adapter("my-adapter") as adapter:
        ...     plan = s3lora.select(s3lora.scan(adapter))
        ...     pruned = s3lora.prune(adapter, plan, s3lora.Remove())
    """

    name: ClassVar[str] = "remove"
    action: ClassVar[str] = "removed"
    changes: ClassVar[tuple[Side, ...]] = ()

    def apply(self, module: LoraModule) -> tuple[Array, Array]:
        """Return the factors as they are: nothing of them is written."""
        return module.A.array(), module.B.array()


@dataclass(frozen=True, slots=True)
class Zero(Mode):
    """B becomes 0, and the shapes stay: for loaders that expect every module."""

    name: ClassVar[str] = "zero"
    action: ClassVar[str] = "zeroed"
    changes: ClassVar[tuple[Side, ...]] = ("B",)

    def apply(self, module: LoraModule) -> tuple[Array, Array]:
        """Return (A, 0)."""
        # Multiplying by 0 would keep the signs of zeros, and NaN.
        return module.A.array(), np.zeros(module.B.shape)

    def bias(self) -> float:
        """Return 0."""
        return 0.0

    def times(self) -> float:
        """Return 0."""
        return 0.0


@dataclass(frozen=True, slots=True)
class Clip(Mode):
    """The largest singular values of the update are lowered to the one numbered `component`, 2 or more.

    The singular vectors stay. Modules with fewer components stay as they are. Raises UsageError for a `component`
    below 2.
    """

    name: ClassVar[str] = "clip"
    action: ClassVar[str] = "clipped"
    component: int = setting(
        2, "--clip-to", "K", "Singular value that --mode clip lowers the larger ones to, at least 2."
    )

    def __post_init__(self) -> None:
        """Check the range."""
        check_fields(self)
        if self.component < 2:
            raise UsageError(f"clip to component {self.component} changes nothing", fix="give 2 or more")

    def apply(self, module: LoraModule) -> tuple[Array, Array]:
        """Return balanced factors of the clipped update."""
        return clip_factors(module.A.array(), module.B.array(), self.component)

    def spares(self, module: LoraModule) -> bool:
        """Return whether there is nothing to clip: writing the module anew would only round it."""
        return min(module.m, module.n, module.rank) < self.component

    def notes(self, modules: Sequence[LoraModule]) -> Iterable[str]:
        """Yield how many modules have too few components."""
        if small := sum(self.spares(module) for module in modules):
            which = f"{small} of the {len(modules)} modules clipped"
            yield f"fewer than {self.component} components in {which}: these stay as they are"


@dataclass(frozen=True, slots=True)
class Scale(Mode):
    """The update is multiplied by `factor`, between 0 and 1; raises UsageError for any other."""

    name: ClassVar[str] = "scale"
    action: ClassVar[str] = "scaled"
    changes: ClassVar[tuple[Side, ...]] = ("B",)
    factor: float = setting(0.5, "--factor", "F", "Factor of --mode scale, between 0 and 1.")

    def __post_init__(self) -> None:
        """Check the range."""
        check_fields(self)
        if not 0 < self.factor < 1:
            raise UsageError(
                f"factor {self.factor} is not between 0 and 1", fix=worded("use {zero} or {remove} instead")
            )

    def apply(self, module: LoraModule) -> tuple[Array, Array]:
        """Return (A, factor · B)."""
        return module.A.array(), module.B.array().astype(np.float64) * self.factor

    def bias(self) -> float:
        """Return the factor."""
        return self.factor

    def times(self) -> float:
        """Return the factor."""
        return self.factor


#: Every mode by its name.
MODES: dict[str, type[Mode]] = {mode.name: mode for mode in (Remove, Zero, Clip, Scale)}


def settings_of(mode: type[Mode]) -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of a mode that `setting` made."""
    return tuple(given for given in dataclasses.fields(mode) if "option" in given.metadata)


def mode_of(name: str, settings: Mapping[str, Any]) -> Mode:
    """Return the mode of this name with these settings; raise UsageError if there is none, or they are not its own."""
    if name not in MODES:
        raise UsageError(f"no mode {name!r}", fix=f"choose one of {', '.join(MODES)}")
    known = {given.name for given in dataclasses.fields(MODES[name])}
    if unknown := sorted(set(settings) - known):
        raise UsageError(f"mode {name} has no setting {unknown[0]!r}")
    try:
        return msgspec.convert(dict(settings), MODES[name])
    except msgspec.ValidationError as error:
        raise UsageError(f"mode {name} has no such settings ({error})") from None
