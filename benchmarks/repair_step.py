"""A step of learning gates beside a step of plain LoRA training on the same batch, and a whole repair by gates."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ADAPTER = Path(__file__).parents[1] / "src" / "s3lora" / "data" / "demo-adapter"
#: Prompts of one step: 14 harmful, harmless and task rows together.
ROWS, ANSWER = 14, "I'm sorry, but I can't help with that, since it could do harm to other people."


def measure(repeats: int) -> dict[str, Any]:
    """Return seconds of CPU a step, medians, and the median of the paired ratios."""
    import torch

    from s3lora.adapter.open import open_adapter
    from s3lora.evaluate.local import LocalModel
    from s3lora.evaluate.prompts import built_in
    from s3lora.repair.batches import tokens_of
    from s3lora.repair.live import live
    from s3lora.repair.losses import Term, gradients
    from s3lora.repair.targets import TargetPair

    model = LocalModel("demo")
    with open_adapter(ADAPTER) as adapter:
        attached = model.attach(adapter)
        prompts = built_in("benign").prompts[:ROWS]
        rows = tokens_of(model, [TargetPair(prompt, ANSWER) for prompt in prompts], 16)

        def gates() -> float:
            with live(model, attached, adapter.modules) as known:
                leaves = list(known.gates.values())
                optimizer = torch.optim.Adam(leaves, lr=0.05)

                def step() -> None:
                    for leaf, found in zip(leaves, gradients(model, [Term(rows)], leaves)[1], strict=True):
                        leaf.grad = found.to(leaf.dtype)
                    optimizer.step()

                return timed(step)

        def lora() -> float:
            model.use(attached)
            layers = [model.adapters.layer(module.path) for module in adapter.modules]
            key = attached.key
            leaves = [one for layer in layers for one in (layer.lora_A[key].weight, layer.lora_B[key].weight)]
            before = [leaf.detach().clone() for leaf in leaves]
            for leaf in leaves:
                leaf.requires_grad_(True)
            optimizer = torch.optim.AdamW(leaves, lr=1e-4)
            ids, mask = model.padded([[*row.prompt, *row.answer] for row in rows])
            longest = max(len(row.answer) for row in rows)
            labels = torch.full((len(rows), longest), -100)
            for i, row in enumerate(rows):
                labels[i, longest - len(row.answer) :] = torch.tensor(row.answer)

            def step() -> None:
                optimizer.zero_grad()
                out = model.adapters.model(
                    input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=longest + 1
                )
                logits = out.logits[:, :-1].flatten(0, 1).float()
                torch.nn.functional.cross_entropy(logits, labels.flatten()).backward()
                optimizer.step()

            try:
                return timed(step)
            finally:
                for leaf, values in zip(leaves, before, strict=True):
                    leaf.requires_grad_(False)
                    leaf.grad = None
                    leaf.data.copy_(values)

        gates()
        lora()
        pairs = [(gates(), lora()) for _ in range(repeats)]
    return {
        "rows": len(rows),
        "tokens": sum(map(len, rows)),
        "repeats": repeats,
        "gates": statistics.median(one for one, _ in pairs),
        "lora": statistics.median(one for _, one in pairs),
        "ratio": statistics.median(one / other for one, other in pairs),
    }


def timed(step: Callable[[], None]) -> float:
    """Return the CPU seconds of one step."""
    start = time.process_time()
    step()
    return time.process_time() - start
