"""Inventory → the columns of an adapter's row that say what is in it besides its modules.

They are of the place, not of the content: two adapters with the same modules may differ in all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from s3lora.adapter.digest import Source
from s3lora.adapter.inventory import kinds
from s3lora.adapter.inventory.model import Inventory
from s3lora.fleet.results.dataset import read_parts
from s3lora.gate import counting
from s3lora.measure.configuration import Configuration
from s3lora.measure.scan import Scan
from s3lora.needs import need

#: What is known of other files in the folder: they were read, only their names are known, or nothing.
Beside = Literal["read"] | Sequence[str] | None

#: Columns that are 0 in an adapter that is LoRA and nothing else, each with the words for adapters in which it is not.
NOT_LORA = {
    "unmeasured": "with tensors that no index has seen",
    "base_weights": "of them with base weights",
    "dead_modules": "with modules that are not applied",
    "other_weights": "with other weights beside",
    "code": "with code",
    "pickles": "with pickles",
    "nonfinite_tensors": "with NaN or infinity outside the modules",
    "ambiguous": "where it is open what a loader takes",
}
#: What is counted of adapters of which nobody knows what lies beside them.
UNSEEN = "unseen"


def counted_inside(folder: Path) -> dict[str, int]:
    """Return how many adapters of a dataset are not 0 in each column of `NOT_LORA`, and `UNSEEN`; only what is there.

    Raises AdapterFileError as `read_table`.
    """
    pc = need("pyarrow.compute", "fleet")
    found = Counter[str]()
    for part in read_parts(folder, "adapters", (*NOT_LORA, "beside", "uri")):
        there = part.column_names  # a part that an older version wrote lacks these columns
        found.update({name: pc.sum(pc.greater(part[name], 0)).as_py() or 0 for name in NOT_LORA if name in there})
        found[UNSEEN] += part["beside"].null_count if "beside" in there else part.num_rows
    return {name: found[name] for name in (*NOT_LORA, UNSEEN) if found[name]}


def told_inside(counts: Mapping[str, int]) -> str:
    """Return what `counted_inside` found that is not LoRA, in words; nothing for nothing.

    >>> told_inside({"unmeasured": 1200, "code": 1})
    '1,200 with tensors that no index has seen, 1 with code'
    """
    return ", ".join(f"{count:,} {NOT_LORA[name]}" for name, count in counts.items() if name in NOT_LORA)


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
    unmeasured = counting.of_kinds(asked, *counting.KINDS)
    unseen = partial and bool(unmeasured)
    row: dict[str, Any] = {
        "unmeasured": len(unmeasured),
        "unmeasured_bytes": sum(tensor.bytes for tensor in unmeasured),
        "unmeasured_largest": None
        if unseen
        else max((tensor.largest for tensor in unmeasured if tensor.largest is not None), default=None),
        "nonfinite_tensors": None if unseen else len(counting.nonfinite(asked)),
        "dead_modules": len(counting.dead(asked)),
        "ambiguous": len(counting.ambiguous(asked)),
        **_files(asked, beside),
    }
    for name in counting.KINDS:
        tensors = counting.of_kinds(asked, name)
        row[name.replace("-", "_")] = len(tensors)
        row[f"{name.replace('-', '_')}_parameters"] = sum(tensor.parameters for tensor in tensors)
    row["base_weights"] = len(counting.base_weights(asked))
    return row


def _files(asked: counting.Asked, beside: Beside) -> dict[str, Any]:
    if beside is None:
        return dict.fromkeys(("beside", "other_weights", "code", "pickles"))
    code = len(counting.code(asked))
    if beside == "read":
        return {
            "beside": "read",
            "other_weights": len(counting.other_weights(asked)),
            "code": code,
            "pickles": len(counting.pickles(asked)),
        }
    roles = Counter(kinds.role_by_name(name.lower()) for name in beside)
    return {
        "beside": "names",
        "other_weights": roles["other weights"],
        "code": code + roles["code"],
        "pickles": roles["pickle"],
    }
