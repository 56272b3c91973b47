"""Inventory → the columns of an adapter's row that say what is in it besides its modules.

They are of the place, not of the content: two adapters with the same modules may differ in all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from s3lora.adapter.digest import Source
from s3lora.adapter.inventory import kinds
from s3lora.adapter.inventory.model import Inventory
from s3lora.gate import counting
from s3lora.measure.scan import Configuration, Scan

#: What is known of other files in the folder: they were read, only their names are known, or nothing.
Beside = Literal["read"] | Sequence[str] | None


def inside(inventory: Inventory, beside: Beside, *, partial: bool = False) -> dict[str, Any]:
    """Return the columns by name, counted as the conditions of `--fail-on` count.

    Parameters:
        inventory: what is in the adapter, or in the copy of it that is here.
        beside: `read` where its files are all that lie in the folder, else the names of those that are not here, or
            None where nobody looked.
        partial: whether the values of tensors that no factor is made of are not here.
    """
    nothing = Source(name="", format="", sha256=None, files=(), base_model=None)
    # without modules, whose numbers have columns of their own
    scan = Scan(configuration=Configuration(), source=nothing, inventory=inventory, warnings=(), modules=())
    asked = counting.Asked(scan)
    unmeasured = counting.without_index(asked)
    unseen = partial and bool(unmeasured)
    row: dict[str, Any] = {
        "unmeasured": len(unmeasured),
        "unmeasured_bytes": sum(tensor.bytes for tensor in unmeasured),
        "unmeasured_largest": None
        if unseen
        else max((tensor.largest for tensor in unmeasured if tensor.largest is not None), default=None),
        "nonfinite_tensors": None if unseen else len(counting.nonfinite(asked)),
        "dead_modules": len(counting.dead(asked)),
        **_files(asked, beside),
    }
    for name, is_kind in counting.KINDS.items():
        tensors = [tensor for tensor in unmeasured if is_kind(tensor)]
        row[name.replace("-", "_")] = len(tensors)
        row[f"{name.replace('-', '_')}_parameters"] = sum(tensor.parameters for tensor in tensors)
    return row


def _files(asked: counting.Asked, beside: Beside) -> dict[str, Any]:
    if beside is None:
        return dict.fromkeys(("beside", "other_weights", "code", "pickles", "unlisted"))
    code = len(counting.code(asked))
    if beside == "read":
        return {
            "beside": "read",
            "other_weights": len(counting.other_weights(asked)),
            "code": code,
            "pickles": len(counting.pickles(asked)),
            "unlisted": asked.inventory.unlisted,
        }
    roles = Counter(kinds.role_by_name(name.lower()) for name in beside)
    return {
        "beside": "names",
        "other_weights": roles["other weights"],
        "code": code + roles["code"],
        "pickles": roles["pickle"],
        "unlisted": 0,
    }
