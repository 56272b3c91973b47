"""Where an adapter stands against the weights of its base: how large each update is, and which directions it brings."""

from __future__ import annotations

from dataclasses import dataclass

from s3lora.spectrum.subspaces import Overlap

__all__ = ["AgainstBase", "ModuleAgainstBase", "WeightDelta"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleAgainstBase:
    """One module beside the weight W (m × n) that it changes.

    `relative` is ‖ΔW‖_F / ‖W‖_F, None where W is zero, or either holds NaN. The rest is None unless intruders were
    asked for: `relative_spectral` is σ_1(ΔW) / σ_1(W); `intruders` of the `directions` largest singular vectors of
    W + ΔW resemble none of the `compared` largest of W, which are all of them if it is `complete`; `columns` and
    `rows` tell how far the directions of ΔW lie within the `directions` largest of W.
    """

    path: str
    weight: str
    base_frobenius: float | None
    relative: float | None
    relative_spectral: float | None = None
    intruders: int | None = None
    directions: int | None = None
    compared: int | None = None
    complete: bool | None = None
    columns: Overlap | None = None
    rows: Overlap | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDelta:
    """A tensor of the adapter that takes the place of a weight of the base, or is added to it, as a difference to it.

    `sigma` are the largest singular values of the difference, each at most `sigma_error` times the first below the
    true one; none where it is zero or no matrix. All numbers are None where the base has no such weight of this
    shape, and then `note` says so.
    """

    name: str
    weight: str | None
    shape: tuple[int, ...]
    frobenius: float | None = None
    relative: float | None = None
    sigma: tuple[float, ...] = ()
    sigma_error: float = 0.0
    ssi: float | None = None
    stable_rank: float | None = None
    energy: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AgainstBase:
    """An adapter beside the weights of a base model.

    `name` is that of its folder. `missing` are the modules of which the base has no weight that can be read, and
    `why` says it of the first. `epsilon` is the largest cosine of an intruder, None where none were counted.
    """

    name: str
    modules: tuple[ModuleAgainstBase, ...]
    weights: tuple[WeightDelta, ...] = ()
    missing: tuple[str, ...] = ()
    why: str | None = None
    epsilon: float | None = None

    def __repr__(self) -> str:
        """Return what it is beside."""
        return f"<{len(self.modules)} modules beside {self.name}>"
