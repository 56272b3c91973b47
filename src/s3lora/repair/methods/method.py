"""What a method of repair is: something learned once, that gives new factors for every strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from s3lora.adapter.model import Adapter
from s3lora.rewrite.factors import NewFactors

if TYPE_CHECKING:
    from s3lora.evaluate.attach import Attached
    from s3lora.evaluate.bench import Advance
    from s3lora.evaluate.local import LocalModel
    from s3lora.repair.targets import Targets

Need = Literal["model", "prompts", "unaligned"]


@dataclass(frozen=True)
class RepairSubject:
    """What a method may look at: the open adapter, and what is known besides.

    `model` with the adapter `attached` and `targets` to learn from are there where the method needs them; `unaligned`
    is the folder of the weights before alignment. `base` is the folder of the base's own weights.
    """

    adapter: Adapter
    model: LocalModel | None = None
    attached: Attached | None = None
    targets: Targets | None = None
    base: str | None = None
    unaligned: str | None = None
    seed: int = 0


class Learned(Protocol):
    """What a method has found for one adapter."""

    def at(self, strength: float) -> NewFactors:
        """Return the new factors at a strength in [0, 1]; at 0 none, so that all tensors stay as they are.

        They are computed in float64 and rounded once. Their rank is at most that of the module, unless the method says
        otherwise.
        """
        ...

    @property
    def gates(self) -> Mapping[str, tuple[float, ...]]:
        """Return what each singular value is multiplied by at strength 1, by path; empty for a method without."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Return what a user should know."""
        ...


class RepairMethod(Protocol):
    """A method; a recipe in CONTRIBUTING says how to add one."""

    @property
    def name(self) -> str:
        """Return the name that users give."""
        ...

    @property
    def about(self) -> str:
        """Return in one line what it does."""
        ...

    @property
    def needs(self) -> frozenset[Need]:
        """Return what it needs besides the adapter."""
        ...

    @property
    def settings(self) -> Sequence[Mapping[str, Any]]:
        """Return the settings that a search tries, best guess first; one empty mapping for a method without any."""
        ...

    def learn(self, subject: RepairSubject, settings: Mapping[str, Any], advance: Advance) -> Learned:
        """Learn from the subject; deterministic for a seed."""
        ...
