"""What commands that need a model make of a kind, on a tiny model with random weights."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.kinds.bench import Bench, Cell, Column, WrongError, call, same, updates_of
from tests.kinds.kind import HIDDEN, INNER, LAYERS
from tests.kinds.reading import told

#: As little as gives a result.
MEASURE = ("--suite", "safety", "--limit", "2", "--tokens", "2", "--no-cache", "--format", "json")
TUNE = ("--limit", "12", "--tokens", "2", "--no-cache", "--format", "json")
PARTS = ("--parts", "10,10,40")
#: So little is asked of a repair that half of the update is one.
REPAIR = ("--method", "shrink", "--strength", "0.5", "--max-utility-loss", "99%", "--max-over-refusal", "0.99")


def model(bench: Bench) -> Path:
    """Return the folder of a model that the adapter may be for."""
    return bench.models / ("llama" if bench.kind.llama else "experts")


def measured(bench: Bench, command: str, *words: object, named: bool = True) -> Cell:
    options = bench.kind.options if named else ()
    status, out, err = call(command, bench.first, *options, "--base", model(bench), *words)
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
    return measured(bench, "sweep", *MEASURE, *more, named=False)


def tune(bench: Bench) -> Cell:
    return measured(bench, "tune", *TUNE, named=False)


def letters(bench: Bench, place: Path) -> Any:
    """Write a list of refusals by which the base refuses more than the adapter: first letters of its answers."""
    found = bench.new("asked")
    status, _, err = call(
        "eval", bench.first, *bench.kind.options, "--base", model(bench), *MEASURE, "--limit", "60", "--no-prune",
        "--no-cost", "--keep-completions", "--output", found,
    )  # fmt: skip
    if status:
        return told(bench, status, _last(err))
    counts = {}
    for file in sorted(found.glob("completions-*-harmbench.json")):
        answers = [one["generation"] for row in json.loads(file.read_text()).values() for one in row]
        counts[file.name.split("-")[1]] = Counter(answer.strip()[:1] for answer in answers)
    base, adapter = counts["0"], counts["1"]  # in the order in which they are measured
    prefixes = [letter for letter in base if letter and base[letter] > adapter[letter]]
    place.write_text(json.dumps({"name": "letters", "version": "1", "prefixes": prefixes}))
    return None


def repair(bench: Bench) -> Cell:
    judge = bench.folder / "letters.json"
    if (cell := letters(bench, judge)) is not None:
        return cell
    out = bench.new("repaired")
    status, _, err = call(
        "repair", bench.first, "--base", model(bench), "--refusals", judge, "-o", out, "--no-cache", "--force",
        *PARTS, *REPAIR,
    )  # fmt: skip
    if status == 3 and ("nothing to repair" in err or "nothing to give back" in err):
        return Cell("partly", "measured; noise lost nothing", _last(err).removeprefix("s3lora: "))
    if not out.exists():
        return told(bench, status, _last(err))
    same(updates_of(out), [update / 2 for update in bench.updates])
    return Cell("yes")


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
