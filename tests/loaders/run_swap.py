"""Inside an environment with PEFT: load an adapter, swap another into its place, and give the logits of some tokens."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from peft.utils.hotswap import hotswap_adapter
from transformers import AutoModelForCausalLM
from worker import serve


def job(given: Any, one: Any) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(given["base"]).eval()
    model = PeftModel.from_pretrained(model, one["first"]).eval()
    hotswap_adapter(model, one["second"], adapter_name="default")
    with torch.no_grad():
        return {"logits": model(torch.tensor([given["tokens"]])).logits[0].float().numpy()}, {}


serve(job)
