"""Inside an environment with PEFT and transformers: load a base and an adapter, and give the logits of some tokens.

`how` is "peft" for `PeftModel.from_pretrained` and "transformers" for `load_adapter` of the model.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from worker import serve


def job(given: Any, one: Any) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(given["base"]).eval()
    if given["how"] == "transformers":
        model.load_adapter(one["adapter"])
    else:
        model = PeftModel.from_pretrained(model, one["adapter"], **one.get("keywords", {})).eval()
    with torch.no_grad():
        logits = model(torch.tensor([given["tokens"]])).logits[0]
    layers = sum(hasattr(module, "lora_A") for module in model.modules())
    return {"logits": logits.float().numpy()}, {"layers": layers}


serve(job)
