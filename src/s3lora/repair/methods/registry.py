"""Every method of repair by the name that a user gives it."""

from __future__ import annotations

from s3lora.errors import UsageError, printable
from s3lora.repair.methods.gates import Gates
from s3lora.repair.methods.method import RepairMethod
from s3lora.repair.methods.patch import Patch
from s3lora.repair.methods.prune import Prune
from s3lora.repair.methods.retrain import Retrain
from s3lora.repair.methods.safelora import SAFELORA
from s3lora.repair.methods.shrink import Shrink
from s3lora.repair.methods.splora import SPLORA
from s3lora.repair.methods.subspace import RANDOM_SUBSPACE, SUBSPACE

GATED_PATCH = Patch(
    name="gates+patch",
    about="learns gates, and a patch on what they leave",
    settings=({"harmless_weight": 2.0},),
    gated=True,
)
METHODS: dict[str, RepairMethod] = {
    method.name: method
    for method in (
        *(Shrink(), Prune(), Gates(), Patch(), GATED_PATCH, Retrain()),
        *(SUBSPACE, RANDOM_SUBSPACE, SAFELORA, SPLORA),
    )
}
#: What `auto` tries, in this order; the first is the control.
AUTO = ("shrink", "gates", "patch", "gates+patch")


def method_of(name: str) -> RepairMethod:
    """Return the method of this name; raise UsageError where there is none."""
    if name not in METHODS:
        raise UsageError(f"no method {printable(name, 40)}", fix=f"choose auto, {', '.join(METHODS)}")
    return METHODS[name]
