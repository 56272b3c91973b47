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
FAULTS: dict[str, str] = {
    "wrapper-orig_mod": "keys inside `_orig_mod.`",
    "wrapper-module": "keys inside `module.`",
    "wrapper-fsdp": "keys with `_fsdp_wrapped_module`",
    "wrapper-checkpoint": "keys with `_checkpoint_wrapped_module`",
    "wrapper-twice": "keys with `base_model.model.` twice",
    "no-prefix": "keys without `base_model.model.`",
    "default-names": "keys `lora_A.default.weight`",
    "other-names": "keys `lora_A.mine.weight`",
    "mixed-ranks": "several ranks, and no `rank_pattern`",
    "patterns": "`rank_pattern` and `alpha_pattern`",
    "rslora": "`use_rslora`",
    "regex": "a regular expression in `target_modules`",
    "all-linear": "`target_modules` is `all-linear`",
    "newest-fields": "fields that PEFT 0.21 writes",
    "unknown-field": "a field that no release knows",
    "dora": "DoRA",
    "alora": "aLoRA",
    "pissa": "`init_lora_weights` is `pissa`",
    "replicated": "`layer_replication`",
    "head": "`lm_head` in `modules_to_save`",
    "tokens": "trained tokens",
    "bias": "`lora_bias`",
    "embeddings": "LoRA of the embeddings",
    "norm": "a norm of the base in the file",
    "base-layer": "a weight of the base beside its LoRA",
    "lacking": "modules of `target_modules` that the file lacks",
    "lacking-at-random": "the same, with `init_lora_weights` false",
    "elsewhere": "a layer that the base has not",
    "other-shape": "a shape that is not that of the base",
    "called-adapters": "weights called `adapters.safetensors`",
    "called-model": "weights called `model.safetensors`",
    "npz-of-mlx": "weights in `adapters.npz`",
    "npz": "weights in `adapter_model.npz`",
    "gguf": "weights in a GGUF file",
}
#: Adapters that are swapped into a running model.
SWAPS: dict[str, str] = {}
