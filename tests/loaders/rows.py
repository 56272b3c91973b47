"""The words for every row of the tables in docs/loaders.md, in the order of the rows."""

from __future__ import annotations

from s3lora.rewrite.modes import MODES

#: The corner of each table.
TITLES = {"samples": "adapter", "checks": "adapter", "swaps": "from → to"}
#: Samples, by name.
MEANS = {
    "original": "the original",
    "patterns": "the original, with ranks and alphas by pattern and rsLoRA",
    **{f"pruned-{mode}": f"pruned, `--mode {mode}`" for mode in MODES},
    "baked": "those patterns, `convert --bake-scaling --pad-rank`",
    "padded": "several ranks, `convert --pad-rank`",
    "converted": "converted from another format",
    "converted-patterns": "those patterns, converted",
    "converted-back": "converted to another format and back",
    "resized": "`resize --rank`",
    "repaired": "repaired, with a higher rank",
    "summed": "`compose -o`, of two adapters",
    "summed-padded": "that sum, `convert --bake-scaling --pad-rank`",
}
#: Inputs on which `check` is held against the loader.
FAULTS: dict[str, str] = {}
#: Adapters that are swapped into a running model.
SWAPS: dict[str, str] = {}
