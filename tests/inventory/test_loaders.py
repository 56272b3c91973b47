"""What each loader takes of a folder, held against the loaders where they are installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.inventory.files import list_files
from s3lora.adapter.inventory.loaders import choices
from s3lora.adapter.inventory.model import LoaderChoice
from s3lora.adapter.loaders import LOADERS
from s3lora.adapter.open import open_adapter
from tests.support import make_adapter, shared, write_safetensors

MODULES = {f"model.layers.{i}.self_attn.{p}_proj": (6, 8, 2) for i in range(2) for p in "qv"}
SAFE, BIN = "adapter_model.safetensors", "adapter_model.bin"
PEFT = ("peft", "transformers", "vllm", "sglang", "llamacpp")


def taken(path: Path) -> dict[str, LoaderChoice]:
    with open_adapter(path) as adapter:
        files, _ = list_files(adapter)
        return {choice.loader: choice for choice in choices(adapter, files)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter", MODULES)


def values(folder: Path, change: float = 0.0) -> dict[str, Any]:
    with open_adapter(folder) as adapter:
        tensors = adapter.files[0].tensors
        return {name: np.array(tensor.array()) + np.float32(change) for name, tensor in tensors.items()}


def save_torch(path: Path, tensors: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, path)


def test_an_ordinary_adapter_is_what_every_loader_takes(folder: Path) -> None:
    found = taken(folder)
    assert tuple(found) == PEFT
    assert {(choice.files, choice.measured, choice.note) for choice in found.values()} == {((SAFE,), True, "")}
    with open_adapter(folder / SAFE) as adapter:
        assert choices(adapter, list_files(adapter)[0]) == tuple(found.values()), "loaders are given the folder"
    alone = (folder / SAFE).rename(folder.parent / "alone.safetensors")
    with open_adapter(alone) as adapter:
        assert choices(adapter, list_files(adapter)[0]) == (), "one file is no folder"


def test_the_second_file_of_a_folder(folder: Path) -> None:
    tensors = values(folder)
    save_torch(folder / BIN, {name: array + 1 for name, array in tensors.items()})
    write_safetensors(folder / "z.safetensors", {name: array + 1 for name, array in tensors.items()})
    found = taken(folder)
    assert all(found[name].files == (SAFE,) and found[name].measured for name in PEFT if name != "sglang")
    assert found["sglang"].files == (SAFE, "z.safetensors")
    assert not found["sglang"].measured
    assert found["sglang"].note
    write_safetensors(folder / "z.safetensors", tensors)
    assert taken(folder)["sglang"].measured, "the same content, whichever is the last"


def test_a_file_that_peft_does_not_know(folder: Path) -> None:
    (folder / SAFE).rename(folder / "mine.safetensors")
    found = taken(folder)
    assert (found["peft"].files, found["peft"].measured) == ((), True)
    assert found["peft"].note == f"finds no {SAFE} or {BIN}"
    assert found["sglang"].files == ("mine.safetensors",)
    save_torch(folder / "adapter_model.pt", values(folder))
    assert taken(folder)["vllm"].files == ("adapter_model.pt",)
    assert taken(folder)["vllm"].measured
    save_torch(folder / "adapter_model.pt", values(folder, 1.0))
    assert not taken(folder)["vllm"].measured


def test_mlx(tmp_path: Path) -> None:
    folder = tmp_path / "mlx"
    folder.mkdir()
    tensors = {f"model.layers.0.self_attn.q_proj.lora_{x}": np.ones(s, "f4") for x, s in (("a", (8, 2)), ("b", (2, 6)))}
    write_safetensors(folder / "adapters.safetensors", tensors)
    write_safetensors(folder / "0000100_adapters.safetensors", {name: array * 2 for name, array in tensors.items()})
    (folder / "adapter_config.json").write_text(json.dumps({"lora_parameters": {"rank": 2, "scale": 2.0}}))
    assert taken(folder) == {"mlx": LoaderChoice(loader="mlx", files=("adapters.safetensors",), measured=True)}
    with open_adapter(folder) as adapter:
        roles = {file.path: file.role for file in list_files(adapter)[0]}
    assert roles["0000100_adapters.safetensors"] == "adapter"


def test_diffusers_guesses(tmp_path: Path) -> None:
    folder = tmp_path / "picture"
    folder.mkdir()
    path = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{path}.lora_{x}.weight": np.ones(s, "f4") for x, s in (("A", (2, 8)), ("B", (6, 2)))}
    write_safetensors(folder / "style.safetensors", tensors)
    assert taken(folder)["diffusers"].files == ("style.safetensors",)
    write_safetensors(folder / "optimizer.safetensors", tensors)
    (folder / "style.safetensors").rename(folder / "pytorch_lora_weights.safetensors")
    write_safetensors(folder / "other.safetensors", tensors)
    assert taken(folder)["diffusers"].files == ("pytorch_lora_weights.safetensors",)


@pytest.mark.parametrize("names", [(SAFE, BIN), (BIN,), (SAFE,), ("adapters.safetensors",), ("adapter_model.pt",)])
def test_peft_itself_takes_what_is_said(folder: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    peft = pytest.importorskip("peft")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    first = values(folder)
    (folder / SAFE).unlink()
    for i, name in enumerate(names, 1):
        tensors = {key: np.full_like(array, i) for key, array in first.items()}
        write = save_torch if name.endswith((".bin", ".pt")) else write_safetensors
        write(folder / name, tensors)  # type: ignore[operator]
    said = LOADERS["peft"].takes
    from s3lora.adapter.loaders.folder import LoaderView

    chosen, _ = said(LoaderView(tuple(sorted(names)), {"peft_type": "LORA"}, "peft"))
    try:
        loaded = peft.utils.save_and_load.load_peft_weights(str(folder), device="cpu")
    except Exception:
        assert chosen == ()
    else:
        assert {float(tensor.mean()) for tensor in loaded.values()} == {1.0 + names.index(chosen[0])}


def test_the_shared_cases() -> None:
    cases = shared() / "cases"
    for name in ("decoy_second_weights", "decoy_index_and_bin"):
        found = taken(cases / name)
        assert (found["peft"].files, found["peft"].measured) == ((BIN,), True)
        assert not found["sglang"].measured
    for name in ("distilgpt2-peft", "gpt2-classifier-peft", "token-classifier-gqa-peft"):
        assert all(choice.measured and choice.files for choice in taken(shared() / "adapters" / name).values())
