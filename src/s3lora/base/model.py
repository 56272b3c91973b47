"""The modules of a base model that an adapter can change: their paths and the shapes of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: Where names and shapes come from: its weights, or its configuration by the rules of its architecture.
Evidence = Literal["weights", "configuration"]
#: (m, n) of a weight: outputs and inputs; None where only the name is known.
WeightShape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class BaseModule:
    """One weight of the base model, (m, n) as LoRA sees it: m outputs, n inputs.

    `experts` counts the experts of a fused parameter such as `….experts.gate_up_proj`, of each of which `shape` is; it
    is 0 for an ordinary layer. `embedding` tells a table of embeddings, vocabulary × features.
    """

    path: str
    shape: WeightShape | None
    kind: Literal["linear", "embedding", "parameter"] = "linear"
    experts: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class BaseModel:
    """What is known of one base model.

    Parameters:
        name: as it was given: a folder, a file or a name, without the path on this machine.
        architecture: its `model_type`, None where nothing tells it.
        modules: every module by its path, in the order of the model.
        evidence: where the names come from.
        complete: whether all modules are known. Where not, those under other prefixes than `covered` may be there.
        covered: beginnings of paths under which all modules are known; empty where nothing is.
        tied: whether output layer and embeddings are one weight; None where it is not known.
        notes: what a reader should know.
    """

    name: str
    architecture: str | None
    modules: Mapping[str, BaseModule] = field(default_factory=dict)
    evidence: Evidence = "configuration"
    complete: bool = False
    covered: tuple[str, ...] = ()
    tied: bool | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return what it is and how much is known."""
        return f"<BaseModel {self.name}: {self.architecture or 'unknown'}, {len(self.modules)} modules>"

    def may_have(self, path: str) -> bool:
        """Return whether a module that is not known may be there all the same."""
        return not self.complete and not path.startswith(self.covered or ("\0",))
