"""What a reader of the numbers must know of updates that are not stored as one pair of factors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from s3lora.adapter.model import Form, LoraModule

#: Forms whose product is one of two factors of the same sizes: they can be stored as ordinary LoRA.
PRODUCTS: tuple[Form, ...] = ("LoRA", "AdaLoRA", "QALoRA")
_NOTES: dict[Form, str] = {
    "LoHa": "their update is a Hadamard product, so its rank is r², or the smaller side of the layer if that is less",
    "LoKr": "their update is a Kronecker product, so its rank is the product of the ranks of its two matrices",
    "AdaLoRA": "directions that the training has pruned to zero are left out of their rank",
    "VeRA": "they share two random projections, and only what scales these was learned",
    "QALoRA": "each number of lora_A stands for a group of inputs, whose mean it takes",
}


def form_notes(modules: Sequence[LoraModule]) -> Iterator[str]:
    """Yield a note for each form besides LoRA."""
    for form, count in Counter(module.form for module in modules if module.form != "LoRA").items():
        of = "all modules" if count == len(modules) else f"{count} of {len(modules)} modules"
        yield f"{of} are {form}: {_NOTES[form]}"
