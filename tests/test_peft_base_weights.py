"""Real PEFT: ΔW by the base weights is what merging an adapter into its base changes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3lora
from tests.peft_models import gpt2, llama, save, torch
from tests.reference import dense as slow
from tests.test_peft_kinds import QV

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dora": (llama, {**QV, "use_dora": True}),
    "dora-rslora": (llama, {**QV, "use_dora": True, "use_rslora": True}),
    "dora-conv1d": (gpt2, {"target_modules": ["c_attn", "c_proj"], "use_dora": True, "fan_in_fan_out": True}),
    "dora-embedding": (llama, {"target_modules": ["embed_tokens"], "use_dora": True}),
    "pissa": (llama, {**QV, "init_lora_weights": "pissa"}),
    "olora": (llama, {**QV, "init_lora_weights": "olora"}),
    "pissa-embedding": (llama, {"target_modules": ["q_proj", "embed_tokens"], "init_lora_weights": "pissa"}),
    "olora-embedding": (llama, {"target_modules": ["q_proj", "embed_tokens"], "init_lora_weights": "olora"}),
    "lora": (llama, QV),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_update_is_what_merging_changes(tmp_path: Path, kind: str) -> None:
    import peft

    model, fields = KINDS[kind]
    plain = model()
    before = {name: value.detach().double().numpy().copy() for name, value in plain.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain.save_pretrained(tmp_path / "base")
        save(tmp_path / "adapter", model, **fields)
        loaded = peft.PeftModel.from_pretrained(model(), tmp_path / "adapter")
        with torch.no_grad():
            merged = loaded.merge_and_unload().state_dict()
    scan = s3lora.scan(tmp_path / "adapter", "svd", rank=3, base_weights=tmp_path / "base")
    assert scan.true_updates
    assert scan.base is not None
    for one in scan.base.modules:
        change = merged[f"{one.path}.weight"].double().numpy() - before[f"{one.path}.weight"]
        expected = slow.singular_values(change)[:3]
        assert np.allclose(scan[one.path].sigma, expected, atol=2e-5 * max(1.0, expected[0])), one.path
        assert expected[0] > 1e-3, "an update that is zero shows nothing"


def test_removing_a_pissa_module_gives_its_base_weight_back(tmp_path: Path) -> None:
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        llama().save_pretrained(tmp_path / "base")
        save(tmp_path / "adapter", llama, **QV, init_lora_weights="pissa")
        with s3lora.open_adapter(tmp_path / "adapter") as adapter:
            scan = s3lora.scan(adapter, base_weights=tmp_path / "base")
            plan = s3lora.select(scan, s3lora.Top(2))
            pruned = s3lora.prune(adapter, plan, known_start=scan.true_updates)
            s3lora.write_pruned(pruned, scan, tmp_path / "out")
            s3lora.restore(tmp_path / "out", tmp_path / "adapter", tmp_path / "some", modules=plan.paths[:1])
        with s3lora.open_adapter(tmp_path / "some") as again:
            assert set(plan.paths) - {module.path for module in again.modules} == set(plan.paths[1:])
        before = {name: value.clone() for name, value in llama().state_dict().items()}
        states = []
        for folder in ("adapter", "out"):
            loaded = peft.PeftModel.from_pretrained(llama(), tmp_path / folder)
            with torch.no_grad():
                states.append(loaded.merge_and_unload().state_dict())
    for name, value in before.items():
        path = name.removesuffix(".weight")
        if path in plan.paths:
            assert torch.equal(states[1][name], value), f"{name} is not that of the base"
            assert not torch.allclose(states[0][name], value, atol=1e-3)
        else:
            assert torch.equal(states[1][name], states[0][name]), name
