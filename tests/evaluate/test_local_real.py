"""The small real model with the adapter that the package carries: it plans with it, and not without."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from s3lora.evaluate.chat import Decoding
from s3lora.evaluate.planning.plan import OWN_TOOLS, read_plan
from s3lora.evaluate.planning.questions import built_in
from tests.small_model import small_model
from tests.tiny_model import torch

DEMO_ADAPTER = Path(str(files("s3lora"))) / "data" / "demo-adapter"
#: A plan of the shortest that the split asks for fits.
DECODING = Decoding(max_new_tokens=96)


@pytest.mark.thorough
def test_planning_with_and_without_the_demo_adapter():
    from s3lora.evaluate.local import LocalModel

    model = LocalModel(str(small_model()))
    attached = model.attach(DEMO_ADAPTER)
    assert len(attached.modules) == 120
    tasks = sorted(built_in(20).tasks, key=lambda task: len(task.plan))[:4]
    prompts = [task.prompt for task in tasks]

    def well_formed() -> int:
        return sum(
            read_plan(answer.text, OWN_TOOLS).well_formed and answer.finished
            for _, answer in model.generate(prompts, DECODING)
        )

    base = model.identity
    assert well_formed() == 0
    losses = model.losses(prompts, [task.plan for task in tasks])

    model.use(attached)
    assert model.loaded().modules == 120
    assert well_formed() >= 3
    assert model.identity != base
    learned = model.losses(prompts, [task.plan for task in tasks])
    assert sum(nats for nats, _ in learned) < 0.1 * sum(nats for nats, _ in losses)

    model.use(attached, attached.modules)
    assert model.identity == base
    assert model.loaded().modules == 0
    ids, mask = model.padded(model._encode(prompts))
    with torch.inference_mode():
        pruned = model.adapters.model(input_ids=ids, attention_mask=mask).logits
        model.use()
        assert torch.equal(model.adapters.model(input_ids=ids, attention_mask=mask).logits, pruned)
