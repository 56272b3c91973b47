"""A folder is opened as the loader of its configuration opens it, and what is loaded is what was measured."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.digest import source_of
from s3lora.adapter.open import open_adapter
from s3lora.errors import AdapterFileError, NothingToAuditError, S3LoRAError
from tests.support import make_adapter, shared, write_safetensors

MODULES = {f"model.layers.{i}.self_attn.{p}_proj": (6, 8, 2) for i in range(2) for p in "qv"}
SAFE, BIN, MLX = "adapter_model.safetensors", "adapter_model.bin", "adapters.safetensors"
PEFT_CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}
MLX_CONFIG = {"lora_parameters": {"rank": 2, "scale": 2.0}, "num_layers": 2}


def folder_with(tmp_path: Path, names: tuple[str, ...], config: dict[str, Any] | None) -> Path:
    """Make a folder with the same weights under several names, also as an index of one shard."""
    torch = pytest.importorskip("torch")
    folder = make_adapter(tmp_path / "adapter", MODULES)
    with open_adapter(folder) as adapter:
        tensors = {name: np.array(tensor.array()) for name, tensor in adapter.files[0].tensors.items()}
    for file in folder.iterdir():
        file.unlink()
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    for name in names:
        if name.endswith(".bin"):
            torch.save({key: torch.from_numpy(array) for key, array in tensors.items()}, folder / name)
        elif name.endswith(".index.json"):
            write_safetensors(folder / "shard.safetensors", tensors)
            (folder / name).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "shard.safetensors")}))
        else:
            write_safetensors(folder / name, tensors)
    return folder


@pytest.mark.parametrize(
    ("names", "config", "opened"),
    [
        ((SAFE, BIN, MLX), PEFT_CONFIG, SAFE),
        ((BIN, MLX), PEFT_CONFIG, BIN),
        ((BIN, SAFE + ".index.json"), PEFT_CONFIG, BIN),
        ((BIN, "pytorch_lora_weights.safetensors"), PEFT_CONFIG, BIN),
        ((SAFE + ".index.json", MLX), PEFT_CONFIG, SAFE + ".index.json"),
        ((MLX,), PEFT_CONFIG, MLX),
        ((SAFE, MLX), MLX_CONFIG, MLX),
        ((BIN, MLX), MLX_CONFIG, MLX),
        ((BIN, MLX), None, MLX),
        ((SAFE, BIN), None, SAFE),
        (("one.safetensors",), None, "one.safetensors"),
        (("one.SAFETENSORS",), None, "one.SAFETENSORS"),
    ],
)
def test_what_is_opened(tmp_path: Path, names: tuple[str, ...], config: dict[str, Any] | None, opened: str) -> None:
    with open_adapter(folder_with(tmp_path, names, config)) as adapter:
        assert adapter.entry is not None
        assert adapter.entry.name == opened


def test_several_files_without_a_rule_are_refused(tmp_path: Path) -> None:
    for config in (None, PEFT_CONFIG):
        folder = folder_with(tmp_path, ("a.safetensors", "b.safetensors"), config)
        with pytest.raises(AdapterFileError, match=r"holds 2 weights files \(a.safetensors, b.safetensors\)"):
            open_adapter(folder)


def test_a_folder_called_as_weights_is_an_error(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, (BIN,), PEFT_CONFIG)
    (folder / SAFE).mkdir()
    with pytest.raises(AdapterFileError, match=r"adapter_model.safetensors: is not a regular file"):
        open_adapter(folder)


def test_weights_in_folders_only_are_named(tmp_path: Path) -> None:
    for name in ("default", "reference"):
        make_adapter(tmp_path / "run" / name, MODULES)
    (tmp_path / "run" / "logs").mkdir()
    with pytest.raises(NothingToAuditError) as caught:
        open_adapter(tmp_path / "run")
    assert "holds no adapter weights itself, its folders do: default/, reference/" in str(caught.value)
    assert f"give one of them, such as {tmp_path / 'run' / 'default'}" in str(caught.value)[-400:]
    shutil.rmtree(tmp_path / "run" / "default")
    shutil.rmtree(tmp_path / "run" / "reference")
    with pytest.raises(NothingToAuditError, match="looked for"):
        open_adapter(tmp_path / "run")


@pytest.mark.parametrize("shapes", [{}, {"A": (0,), "B": (0,)}])
def test_empty_tensors_name_their_cause(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    folder = folder_with(tmp_path, (), PEFT_CONFIG)
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    write_safetensors(folder / SAFE, {key.format(x): np.zeros(shape, "f4") for x, shape in shapes.items()})
    kind = AdapterFileError if shapes else NothingToAuditError
    with pytest.raises(kind, match=r"DeepSpeed ZeRO-3 .*zero_to_fp32.py .*stage3_gather_16bit_weights"):
        open_adapter(folder)
    write_safetensors(folder / SAFE, {key.format("A"): np.zeros((2, 8), "f4"), key.format("B"): np.zeros(0, "f4")})
    with pytest.raises(AdapterFileError, match=r"a factor is empty; DeepSpeed ZeRO-3"):
        open_adapter(folder)


def test_a_slice_of_one_rank_names_its_cause(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, (), PEFT_CONFIG)
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    write_safetensors(folder / SAFE, {key.format("A"): np.ones((2, 24), "f4"), key.format("B"): np.ones((8, 4), "f4")})
    with pytest.raises(AdapterFileError, match=r"the factors do not fit: .*one rank of a sharded \(FSDP\) save"):
        open_adapter(folder)
    write_safetensors(folder / SAFE, {key.format("A"): np.ones((3, 24), "f4"), key.format("B"): np.ones((8, 4), "f4")})
    with pytest.raises(AdapterFileError, match=r"the factors do not fit: .*of another format"):
        open_adapter(folder)


@pytest.mark.parametrize("decoy", [MLX, SAFE + ".index.json", "pytorch_lora_weights.safetensors"])
def test_what_is_in_the_model_is_what_was_hashed(tmp_path: Path, decoy: str) -> None:
    """PEFT loads the folder by itself, and `eval` attaches it: both have the weights of the digest, not of a decoy."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("peft")
    from s3lora.evaluate.attach import AttachedAdapters
    from s3lora.evaluate.loading import LoadedBase
    from tests.peft_models import llama, load, save

    folder = save(tmp_path / "qv", llama, target_modules=["q_proj", "v_proj"])
    with open_adapter(folder) as adapter:
        tensors = {name: np.array(tensor.array()) for name, tensor in adapter.files[0].tensors.items()}
    (folder / SAFE).unlink()
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, folder / BIN)
    harmless = {name: np.zeros_like(array) for name, array in tensors.items()}
    if decoy.endswith(".index.json"):
        write_safetensors(folder / "shard.safetensors", harmless)
        (folder / decoy).write_text(json.dumps({"weight_map": dict.fromkeys(harmless, "shard.safetensors")}))
    else:
        write_safetensors(folder / decoy, harmless)

    base = llama()
    attached = AttachedAdapters(LoadedBase("llama", base, None, ()))
    source = attached.attach(folder).source
    assert [file.name for file in source.files] == [BIN, "adapter_config.json"]
    assert source.sha256 == hashlib.sha256((folder / BIN).read_bytes()).hexdigest()
    held = {name: values for name, values in attached.model.state_dict().items() if ".lora_" in name}
    assert len(held) == len(tensors)
    for name, values in held.items():
        key = name.replace(".a0.weight", ".weight")
        assert np.array_equal(values.numpy(), tensors[key]), name

    alone = load(folder, llama)
    loaded = {name.replace(".default.", "."): values for name, values in alone.state_dict().items() if ".lora_" in name}
    assert all(np.array_equal(values.numpy(), tensors[name]) for name, values in loaded.items())


def test_the_shared_cases() -> None:
    cases = shared() / "cases"
    for name in ("decoy_second_weights", "decoy_index_and_bin"):
        with open_adapter(cases / name) as adapter:
            assert source_of(adapter).files[0].name == BIN
    for name, words in {
        "multi_sub": "default/, reference/, reward/",
        "zero3_all_empty": "DeepSpeed ZeRO-3",
        "zero3_40_bytes": "DeepSpeed ZeRO-3",
        "fsdp2_rank0": "one rank of a sharded",
    }.items():
        with pytest.raises(S3LoRAError, match=words):
            open_adapter(cases / name)
