"""Layers of torch alone: both updates that PEFT builds for an `nn.MultiheadAttention`, and convolutions in groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s3lora import UnsupportedAdapterError, check, open_adapter, resize
from tests.peft_models import torch
from tests.planning import prune_to
from tests.rewrite.wholes import updates as read

peft = pytest.importorskip("peft")
PATTERNS = {"rank_pattern": {"blocks.1.attn": 2}, "alpha_pattern": {r"blocks\.1\.attn": 6}}
IN, OUT = "attn", "attn.base_layer.out_proj"


class Block(torch.nn.Module):
    """One attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(12, 3)


class Model(torch.nn.Module):
    """Three attentions, always the same."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter of all three, of which the second has another rank and scaling."""
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["attn"], **PATTERNS)
    model = peft.get_peft_model(Model(), config)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def updates(folder: Path) -> dict[str, Any]:
    """Return what PEFT adds to the weights of each attention."""
    model = peft.PeftModel.from_pretrained(Model(), str(folder)).merge_and_unload()
    before, after = Model().state_dict(), model.state_dict()
    return {name: (after[name] - before[name]).double().numpy() for name in before if name.endswith("weight")}


def weight(path: str) -> str:
    return f"{path.removesuffix(OUT)}attn.out_proj.weight" if path.endswith(OUT) else f"{path}.in_proj_weight"


def test_both_updates_are_read_as_they_load(folder: Path) -> None:
    loaded = updates(folder)
    with open_adapter(folder) as adapter:
        assert {module.path for module in adapter.modules} == {
            f"blocks.{i}.{end}" for i in range(3) for end in (IN, OUT)
        }
        assert not adapter.inventory.unapplied
        assert any("out_proj twice" in warning for warning in adapter.warnings)
    for path, update in read(folder).items():
        times = 2 if path.endswith(OUT) else 1  # by what looks like a mistake of PEFT's `merge`, which training has too
        assert abs(times * update - loaded[weight(path)]).max() < 1e-6
    assert check(folder, loaders=["peft"])["peft"].verdict == "same"


def test_one_that_goes_alone_stays_as_zeros(folder: Path, tmp_path: Path) -> None:
    before = updates(folder)
    gone = [f"blocks.0.{OUT}", f"blocks.1.{IN}", f"blocks.2.{IN}", f"blocks.2.{OUT}"]
    prune_to(folder, tmp_path / "out", gone)
    with open_adapter(tmp_path / "out") as adapter:
        assert {module.path for module in adapter.modules} == {f"blocks.{i}.{end}" for i in (0, 1) for end in (IN, OUT)}
    after = updates(tmp_path / "out")
    for name, update in before.items():
        lost = name in {weight(path) for path in gone}
        assert abs(after[name] - (0 if lost else update)).max() < 1e-6, name


def test_they_cannot_have_several_ranks(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedAdapterError, match="is built with"):
        resize(folder, tmp_path / "out", energy=0.6)
    assert resize(folder, tmp_path / "out", rank=3)[0].modules[0].rank == 3
    assert updates(tmp_path / "out")


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer")
def test_a_convolution_in_groups_is_named_as_one(tmp_path: Path) -> None:
    class Convolved(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(8, 12, 3, groups=2)

    peft.get_peft_model(Convolved(), peft.LoraConfig(r=4, target_modules=["conv"])).save_pretrained(str(tmp_path))
    with pytest.raises(UnsupportedAdapterError, match="looks like a convolution in 2 groups"), open_adapter(tmp_path):
        pass
