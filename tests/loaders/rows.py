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
}
#: Samples of picture models, by name.
PICTURE_MEANS = {
    "original": "the original, as diffusers saves it",
    "original-kohya": "the original, as kohya's scripts save it",
    "text-encoders": "with text encoders, named `text_model.encoder`",
    "text-encoders-new": "with text encoders, named `encoder`",
    "text-encoders-kohya": "with text encoders, as kohya's scripts save it",
    **{f"pruned-{mode}": f"pruned, `--mode {mode}`" for mode in MODES},
    "pruned-kohya": "kohya's, pruned",
    "no-alpha": "without any alpha, pruned",
    "from-kohya": "kohya's, `convert --to diffusers`",
    "to-kohya": "`convert --to kohya`",
    "picture-back": "converted to kohya's and back",
    "resized": "`resize --rank`, by way of PEFT's form",
    "summed": "`compose -o`, by way of PEFT's form",
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
#: The same in MLX's format.
MLX_FAULTS = {
    "mlx-of-peft": "an adapter of PEFT",
    "mlx-no-configuration": "no `adapter_config.json`",
    "mlx-no-num_layers": "no `num_layers`",
    "mlx-no-scale": "`alpha` in place of `scale`",
    "mlx-no-rank": "no `rank`",
    "mlx-no-dropout": "no `dropout`",
    "mlx-alpha-beside": "`alpha` beside `scale`",
    "mlx-other-rank": "a `rank` that is not that of the tensors",
    "mlx-few-layers": "`num_layers` below the layers in the file",
    "mlx-all-layers": "`num_layers` is -1",
    "mlx-few-keys": "`keys` that lack projections of the file",
    "mlx-no-keys": "no `keys`",
    "mlx-npz": "weights in `adapters.npz`",
    "mlx-vlm-names": "keys `….A` and `….B` of mlx-vlm",
    "mlx-prefix": "keys with `base_model.model.`",
    "mlx-norm": "a norm of the base in the file",
    "mlx-lacking": "a module of `keys` that the file lacks",
    "mlx-elsewhere": "a layer that the base has not",
    "mlx-other-shape": "a shape that is not that of the base",
    "mlx-dora": "DoRA",
    "mlx-dora-undeclared": "DoRA, and `fine_tune_type` is `lora`",
}
#: The same of Stable Diffusion.
PICTURE_FAULTS = {
    "picture-npz": "weights in an NPZ archive",
    "picture-peft-names": "keys `base_model.model.down_blocks…`",
    "picture-bare-names": "keys `down_blocks…`",
    "picture-text": "a text encoder, named `text_model.encoder`, with its configuration in the header",
    "picture-text-bare": "the same, with no configuration",
    "picture-text-new": "a text encoder, named `encoder`",
    "picture-text-kohya": "a text encoder, as kohya's scripts save it",
    "picture-text-kohya-some": "the same, of q and v alone",
    "picture-text-kohya-more": "the same, of q, v and fc1",
}
#: Adapters that are swapped into a running model.
SWAPS = {
    "swap-itself": "the original → itself",
    "swap-full-removed": "the original → pruned, `--mode remove`",
    "swap-removed-full": "pruned, `--mode remove` → the original",
    "swap-full-zeroed": "the original → pruned, `--mode zero`",
    "swap-zeroed-full": "pruned, `--mode zero` → the original",
    "swap-repaired": "the original → repaired, with a higher rank",
    "swap-resized": "the original → `resize --rank`",
    "swap-patterns": "ranks and alphas by pattern and rsLoRA → itself",
    "swap-rslora": "rsLoRA → itself",
    "swap-baked": "those patterns, `convert --bake-scaling --pad-rank` → itself",
    "swap-dora": "DoRA → itself",
    "swap-head": "`lm_head` in `modules_to_save` → itself",
    "swap-embeddings": "LoRA of the embeddings → itself",
    "swap-tokens": "trained tokens → itself",
    "swap-bias": "`lora_bias` → itself",
}
