"""What a method of repair is: something learned once, that gives new factors for every strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from s3lora.adapter.model import Adapter
from s3lora.errors import UsageError
from s3lora.rewrite.factors import NewFactors

if TYPE_CHECKING:
    from s3lora.evaluate.attach import Attached
    from s3lora.evaluate.bench import Advance
    from s3lora.evaluate.local import LocalModel
    from s3lora.evaluate.store import AnswerStore
    from s3lora.repair.learning import LearningRows

Need = Literal["model", "prompts", "unaligned"]
#: Of a method that has nothing to set.
NO_SETTINGS: tuple[Mapping[str, Any], ...] = ({},)


@dataclass(frozen=True)
class RepairSubject:
    """What a method may look at: the open adapter, and what is known besides.

    `model` with the adapter `attached` and `rows` to learn from are there where the method needs them; `unaligned`
    is the folder of the weights before alignment. `base` is the folder of the base's own weights. What was learned is
    kept in the `store`.
    """

    adapter: Adapter
    model: LocalModel | None = None
    attached: Attached | None = None
    rows: LearningRows | None = None
    base: str | None = None
    unaligned: str | None = None
    seed: int = 0
    store: AnswerStore | None = None

    @property
    def ready(self) -> tuple[LocalModel, Attached, LearningRows]:
        """Return the model, the adapter in it and the rows; raise UsageError where they are not there."""
        if self.model is None or self.attached is None or self.rows is None:
            raise UsageError("this method learns from a model and from prompts", fix="name the base model")
        return self.model, self.attached, self.rows


class Learned(Protocol):
    """What a method has found for one adapter."""

    @property
    def gates(self) -> Mapping[str, tuple[float, ...]]:
        """Return what each singular value is multiplied by at strength 1, by path; empty for a method without."""
        ...

    def at(self, strength: float) -> NewFactors:
        """Return the new factors at a strength in [0, 1]; at 0 none, so that all tensors stay as they are.

        They are computed in float64 and rounded once. Their rank is at most that of the module, unless the method says
        otherwise.
        """
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
