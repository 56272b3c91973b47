"""The oldest PEFT that reads `exclude_modules`, in an environment of its own: `pytest -m slow`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3lora.adapter.loaders.peft import FIRST_PEFT
from tests.loaders.environments import environment
from tests.planning import prune_to
from tests.support import make_adapter

pytestmark = pytest.mark.slow

GONE = ["model.layers.0.self_attn.q_proj", "model.layers.2.self_attn.v_proj"]
ALL_Q = [f"model.layers.{i}.self_attn.q_proj" for i in range(3)]
SHAPES = {
    f"model.layers.{i}.self_attn.{name}_proj": (rows, 32, 4) for i in range(3) for name, rows in (("q", 32), ("v", 16))
}

SCRIPT = """
import json, os, sys, warnings
os.environ["HF_HUB_OFFLINE"] = "1"
import peft, torch, transformers
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import LlamaConfig, LlamaForCausalLM

full, gone, *pruned = sys.argv[1], json.loads(sys.argv[2]), *sys.argv[3:]

def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                                        num_attention_heads=4, num_key_value_heads=2)).eval()

def logits(of):
    with torch.no_grad():
        return of(torch.arange(8)[None]).logits

def load(folder, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return PeftModel.from_pretrained(model(), folder, **keywords)

result = {"versions": [peft.__version__, transformers.__version__, torch.__version__], "runs": []}
unpruned = load(full)
before = logits(unpruned)
for folder, paths in zip(pruned, gone):
    reference = load(full)
    for path in paths:
        reference.base_model.model.get_submodule(path).lora_B["default"].weight.data.zero_()
    expected = logits(reference)
    for low in (False, True):
        loaded = load(folder, low_cpu_mem_usage=low)
        again = folder + "-again"
        loaded.save_pretrained(again)
        result["runs"].append({
            "layers": sum(isinstance(module, LoraLayer) for module in loaded.modules()),
            "error": float((logits(loaded) - expected).abs().max()),
            "again": float((logits(load(again)) - expected).abs().max()),
            "merged": float((logits(loaded.merge_and_unload()) - expected).abs().max()),
            "moved": float((before - expected).abs().max()),
        })
print(json.dumps(result))
"""


def test_the_oldest_peft_loads_pruned_adapters(tmp_path: Path):
    folder = environment(f"peft-{FIRST_PEFT}").folder
    full = make_adapter(tmp_path / "full", SHAPES, config={"base_model_name_or_path": None})
    some = prune_to(full, tmp_path / "some", GONE)
    kind = prune_to(full, tmp_path / "kind", ALL_Q)
    arguments = [str(full), json.dumps([GONE, ALL_Q]), str(some), str(kind)]
    variables = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=variables,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["versions"][0] == FIRST_PEFT
    assert [run["layers"] for run in result["runs"]] == [4, 4, 3, 3]
    for run in result["runs"]:
        assert max(run["error"], run["again"], run["merged"]) < 1e-5
        assert run["moved"] > 1e-3
