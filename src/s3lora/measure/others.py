"""What is not LoRA in several adapters, compared by the digests of its values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3lora.adapter.formats.wrappers import unwrapped
from s3lora.adapter.inventory.model import Inventory, InventoryTensor, TensorRole


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorComparison:
    """One tensor that no index sees, in all adapters: tuples with a value for each.

    `name` is the name in the file without prefixes of PEFT and wrappers, and `role` what the tensor is in the first
    adapter that has it. Where an adapter lacks it, its shape, dtype, digest and largest magnitude are None. `sha256` is
    of the stored values, so that the same numbers in another dtype count as changed.
    """

    name: str
    role: TensorRole
    shape: tuple[tuple[int, ...] | None, ...]
    dtype: tuple[str | None, ...]
    sha256: tuple[str | None, ...]
    largest: tuple[float | None, ...]

    @property
    def changes(self) -> tuple[int, ...]:
        """Return the places of the adapters in which it is another one than in the adapter before, or comes or goes."""
        known = list(zip(self.shape, self.dtype, self.sha256, strict=True))
        return tuple(i for i in range(1, len(known)) if known[i] != known[i - 1])

    @property
    def everywhere(self) -> bool:
        """Return whether all adapters have it."""
        return None not in self.shape


def compare_others(inventories: Sequence[Inventory]) -> tuple[TensorComparison, ...]:
    """Return what the adapters have besides LoRA, in the order in which it is found."""
    found: dict[str, list[InventoryTensor | None]] = {}
    for i, inventory in enumerate(inventories):
        for tensor in inventory.unmeasured:
            name = unwrapped(tensor.name)[0]
            row = found.setdefault(name, [None] * len(inventories))
            if row[i] is not None:  # two names that differ by a prefix only
                row = found.setdefault(tensor.name, [None] * len(inventories))
            row[i] = tensor
    return tuple(_compared(name, row) for name, row in found.items())


def _compared(name: str, row: Sequence[InventoryTensor | None]) -> TensorComparison:
    return TensorComparison(
        name=name,
        role=next(one.role for one in row if one is not None),
        shape=tuple(None if one is None else one.shape for one in row),
        dtype=tuple(None if one is None else one.dtype for one in row),
        sha256=tuple(None if one is None else one.sha256 for one in row),
        largest=tuple(None if one is None else one.largest for one in row),
    )
