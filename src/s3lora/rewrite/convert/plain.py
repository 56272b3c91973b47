"""What every target but PEFT asks for: plain LoRA, two factors a module and nothing else."""

from __future__ import annotations

from s3lora.adapter import peft_config
from s3lora.adapter.formats.forms import PRODUCTS
from s3lora.adapter.formats.peft_notes import replicates
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.base.updates import is_magnitude
from s3lora.errors import UnsupportedAdapterError
from s3lora.rewrite.convert.target import refuse
from s3lora.rewrite.drop import drop_fix

#: Extra tensors of a module that say nothing but its scaling or its training.
_SAID = (".alpha", ".ranknum")


def refuse_unless_plain(adapter: Adapter, to: str, *, dora: bool = False, forms: tuple[str, ...] = PRODUCTS) -> None:
    """Raise UnsupportedAdapterError if an adapter holds what `to` cannot have, module by module; `dora` it can."""
    peft_config.refuse_changed_base(adapter)
    config = adapter.config or {}
    for told, what in ((config.get("alora_invocation_tokens"), "is an aLoRA, which acts only after its tokens"),
                       (replicates(config), "puts the layers of its base together anew")):  # fmt: skip
        if told:
            raise UnsupportedAdapterError(f"{what}, and {to} knows nothing of it", file=adapter.name)
    reasons = {module.path: why for module in adapter.modules if (why := _why_not(module, dora, forms))}
    refuse(to, reasons)
    others = sorted(set(adapter.other_tensors) - emptied(adapter))
    refuse(to, dict.fromkeys(others, "is no part of LoRA"), drop_fix(adapter, others))


def emptied(adapter: Adapter) -> set[str]:
    """Return the tensors of modules of which AdaLoRA left no rank: they have no values, and say nothing."""
    if (adapter.config or {}).get("peft_type") != "ADALORA":
        return set()
    stored = {name: tensor for file in adapter.files for name, tensor in file.tensors.items()}
    return {name for name in adapter.other_tensors if 0 in stored[name].shape}


def _why_not(module: LoraModule, dora: bool, forms: tuple[str, ...]) -> str | None:
    if module.form not in forms:
        return f"is {module.form}, which keeps its own format"
    if module.dora and not dora:
        return "has a DoRA magnitude"
    if others := [name for name in module.extras if not (name.endswith(_SAID) or is_magnitude(name))]:
        kind = "a trained bias" if others[0].endswith("bias") else "other tensors"
        return f"has {kind} besides its factors"
    return None
