"""The targets: to add one, write a file with `Target`s in `TARGETS`, and name it here."""

from __future__ import annotations

from tests.fuzz.target import Target
from tests.fuzz.targets import (
    base,
    card,
    configuration,
    expression,
    forms,
    gate,
    gguf,
    inventory,
    judge,
    measurement,
    names,
    npz,
    prompts,
    provenance,
    reference,
    results,
    safetensors,
    torch_files,
)

MODULES = (
    safetensors, torch_files, npz, gguf, configuration, names, expression, gate, reference, card, provenance,
    measurement, prompts, judge, inventory, forms, base, results,
)  # fmt: skip
TARGETS: dict[str, Target] = {target.name: target for module in MODULES for target in module.TARGETS}
