"""What commands that need a model make of a kind, on a tiny model with random weights."""

from __future__ import annotations

import json
from pathlib import Path

from s3lora.adapter.open import open_adapter
from s3lora.errors import S3LoRAError
from s3lora.evaluate.local import LocalModel
from s3lora.repair.methods.shrink import ShrunkUpdates
from s3lora.repair.modules import repairable
from s3lora.rewrite.repair_record import RepairFields
from s3lora.rewrite.repaired import write_repaired
from tests.kinds.bench import Bench, Cell, Column, WrongError, call, same, updates_of
from tests.kinds.kind import HIDDEN, INNER, LAYERS
from tests.kinds.reading import told

#: As little as gives a result.
MEASURE = ("--suite", "safety", "--limit", "2", "--tokens", "2", "--no-cache", "--format", "json")
TUNE = ("--limit", "12", "--tokens", "2", "--no-cache", "--format", "json")


def model(bench: Bench) -> Path:
    """Return the folder of a model that the adapter may be for."""
    return bench.models / ("llama" if bench.kind.llama else "experts")


def measured(bench: Bench, command: str, *words: object) -> Cell:
    status, out, err = call(command, bench.first, *bench.kind.options, "--base", model(bench), *words)
    if "nothing can be tuned" in err:  # by what noise has learned: the adapter was read and tried
        return Cell("yes")
    if status:
        return told(bench, status, _last(err))
    if not json.loads(out):
        raise WrongError("no result")
    return Cell("yes")


def _last(err: str) -> str:
    return next((line for line in reversed(err.splitlines()) if line.startswith("s3lora: ")), err)


def evaluate(bench: Bench) -> Cell:
    return measured(bench, "eval", *MEASURE, "--top", "1", "--no-cost")


def sweep(bench: Bench) -> Cell:
    more = ("--methods", "mas-svd", "--index", "ssi", "--top", "1", "--control-seeds", "1")
    return measured(bench, "sweep", *MEASURE, *more)


def tune(bench: Bench) -> Cell:
    return measured(bench, "tune", *TUNE)


def repair(bench: Bench) -> Cell:
    """Attach the adapter and write half of its update, as the method shrink does; no prompts are asked."""
    out, named = bench.new("repaired"), bench.kind.options[1:]
    try:
        with open_adapter(bench.first, *named) as adapter:
            LocalModel(str(model(bench))).attach(adapter)
            factors = ShrunkUpdates(repairable(adapter), {}).at(0.5)
            how = RepairFields(method="shrink", settings={}, strength=0.5, gates={}, data={}, limits={}, warnings=())
            write_repaired(adapter, factors, how, out)
    except S3LoRAError as error:
        return told(bench, 2, f"s3lora: {error.located()}")
    changed = set(factors.modules)
    with open_adapter(bench.first, *named) as adapter:
        kept = [module.path not in changed for module in adapter.modules]
    before, after = updates_of(bench.first, *bench.kind.options), updates_of(out)
    same(after, [one if stays else one / 2 for one, stays in zip(before, kept, strict=True)])
    return Cell("partly", "embeddings stay as they are") if any(kept) else Cell("yes")


COLUMNS: dict[str, Column] = {"`eval`": evaluate, "`sweep`": sweep, "`tune`": tune, "`repair`": repair}


def make(folder: Path) -> None:
    """Write the models: a Llama of two layers, and a mixture of two experts."""
    import torch
    import transformers

    from tests.tiny_model import END, PAD, VOCABULARY, tiny_folder

    folder.mkdir(parents=True)
    tiny_folder(folder / "llama")
    torch.manual_seed(0)
    config = transformers.Qwen3MoeConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        moe_intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        max_position_embeddings=4096,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=VOCABULARY[END],
        pad_token_id=VOCABULARY[PAD],
    )
    tiny_folder(folder / "experts", model=transformers.Qwen3MoeForCausalLM(config).eval())
