from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.open import open_adapter
from s3lora.adapter.weights import WEIGHTS
from s3lora.errors import AdapterFileError, NothingToAuditError
from tests.support import factors, make_adapter, write_safetensors

MODULES = {f"model.layers.{i}.self_attn.{p}_proj": (6, 8, 2) for i in range(3) for p in "qv"}


def shard(folder: Path, index: dict[str, Any] | None = None) -> Path:
    """Split the adapter in `folder` into two shards and an index."""
    with open_adapter(folder) as adapter:
        tensors = {name: np.array(tensor.array()) for name, tensor in adapter.files[0].tensors.items()}
    names = sorted(tensors)
    halves = {"part-1.safetensors": names[:5], "part-2.safetensors": names[5:]}
    for file, members in halves.items():
        write_safetensors(folder / file, {name: tensors[name] for name in members}, {"from": file})
    (folder / "adapter_model.safetensors").unlink()
    table = {name: file for file, members in halves.items() for name in members}
    path = folder / "adapter_model.safetensors.index.json"
    path.write_text(json.dumps(index if index is not None else {"metadata": {}, "weight_map": table}))
    return path


def test_a_folder_its_weights_file_and_its_shards_are_the_same_adapter(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "my-adapter", MODULES, heads={"score.weight": np.ones(3, np.float32)})
    whole, file = open_adapter(folder), open_adapter(str(folder / "adapter_model.safetensors"))
    assert whole.name == "my-adapter"
    assert whole.config == file.config
    values = {module.path: (module.A.array().tobytes(), module.scaling) for module in whole.modules}
    index = shard(folder)
    for adapter in (open_adapter(folder), open_adapter(index), file):
        assert {module.path: (module.A.array().tobytes(), module.scaling) for module in adapter.modules} == values
        assert adapter.other_tensors == ("base_model.model.score.weight",)
        assert adapter.base_model == "some/base-model"
    assert [shard.name for shard in open_adapter(folder).files] == ["part-1.safetensors", "part-2.safetensors"]


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"weight_map": {"x": "../adapter_model.safetensors"}}, "names a shard outside the folder"),
        ({"weight_map": {"x": "/etc/passwd"}}, "names a shard outside the folder"),
        ({"weight_map": {"x": "."}}, "names a shard outside the folder"),
        ({"weight_map": {"x": "a\x00b"}}, "names a shard outside the folder"),
        ({"weight_map": {"x": "part-3.safetensors"}}, "part-3.safetensors: cannot be opened"),
        ({"weight_map": {"x": "part-1.safetensors"}}, "x: lists 1 tensors that are in no shard"),
        ({"weight_map": {"x": 1}}, "has no `weight_map`"),
        ({"weight_map": {str(i): f"{i}.safetensors" for i in range(1025)}}, "names 1025 shards"),
        ({}, "has no `weight_map`"),
    ],
)
def test_an_index_that_misleads_is_refused(tmp_path: Path, index: dict[str, Any], reason: str) -> None:
    shard(make_adapter(tmp_path / "a", MODULES), index)
    with pytest.raises(AdapterFileError) as caught:
        open_adapter(tmp_path / "a")
    assert reason in str(caught.value)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    shard(make_adapter(tmp_path / "a", MODULES))
    (tmp_path / "a" / "part-2.safetensors").write_bytes((tmp_path / "a" / "part-1.safetensors").read_bytes())
    with pytest.raises(AdapterFileError, match=r"in two shards|in no shard"):
        open_adapter(tmp_path / "a")


def test_weights_are_found_in_the_order_that_loaders_prefer(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", {"x": (4, 4, 2)})
    content = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.bin").write_bytes(b"not looked at")
    (folder / "checkpoint.safetensors").write_bytes(b"not looked at")
    assert open_adapter(folder).files[0].name == WEIGHTS[0]
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").unlink()
    (folder / "checkpoint.safetensors").write_bytes(content)
    assert open_adapter(folder).files[0].name == "checkpoint.safetensors"  # the only one of any name
    (folder / "checkpoint-2.safetensors").write_bytes(content)
    with pytest.raises(AdapterFileError, match=r"holds 2 weights files .*checkpoint-2.*name one of them"):
        open_adapter(folder)
    assert open_adapter(folder / "checkpoint-2.safetensors").modules


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(AdapterFileError, match="no such file or folder"):
        open_adapter(tmp_path / "missing")
    with pytest.raises(NothingToAuditError, match="holds no adapter weights"):
        open_adapter(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", {"model.layers.0.q_proj.weight": np.ones((4, 4), np.float32)})
    with pytest.raises(NothingToAuditError, match="none of its 1 tensors is a LoRA factor"):
        open_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(NothingToAuditError, match=r"adapter_config\.json is of a PEFT adapter: none of its 1 tensors"):
        open_adapter(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "adapter.gguf").write_bytes(b"GGUF")
    with pytest.raises(AdapterFileError, match="is truncated within its header"):
        open_adapter(tmp_path / "adapter.gguf")


def test_a_bare_file_uses_the_configuration_beside_it(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", {"x": (4, 4, 2)}, config={"lora_alpha": 5})
    assert open_adapter(folder / "adapter_model.safetensors").modules[0].scaling.value == 2.5
    (folder / "adapter_config.json").unlink()
    assert open_adapter(folder).modules[0].scaling.origin == "unknown"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"<!doctype html>", "is a web page"),
        (b"{", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"r": NaN}', "is not valid JSON"),
        (b"\xff\xfe{}", "is not valid JSON"),
        (b"[]", "must hold a JSON object"),
        (b"", "is not valid JSON"),
        (b" " * (4 * 1024 * 1024 + 1), "larger than 4,194,304 bytes"),
    ],
)
def test_an_unreadable_configuration_is_an_error_and_not_a_default(tmp_path: Path, content: bytes, reason: str) -> None:
    folder = make_adapter(tmp_path / "a", {"x": (4, 4, 2)})
    (folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(AdapterFileError, match="^" + re.escape(f"{folder}/adapter_config.json: ")) as caught:
        open_adapter(folder)
    assert reason in str(caught.value)


def test_what_the_system_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a folder without the right to list it, which nothing keeps from root."""

    def refused(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a").mkdir()
    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(AdapterFileError, match=r"/a: cannot be read \(Permission denied\)$"):
        open_adapter(tmp_path / "a")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_pipe_or_folder_in_place_of_a_file_does_not_block(tmp_path: Path, name: str) -> None:
    for i, make in enumerate((os.mkfifo, os.mkdir)):
        folder = make_adapter(tmp_path / str(i), {"x": (4, 4, 2)})
        (folder / name).unlink()
        make(folder / name)
        with pytest.raises(AdapterFileError, match="not a regular file"):
            open_adapter(folder)


def test_nothing_is_read_after_closing(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", MODULES)
    with open_adapter(folder) as adapter:
        module = adapter.modules[0]
        view = module.A.array()
        assert not view.flags.writeable
        copy = view.copy()
        del view
    with pytest.raises(AdapterFileError, match="was closed"):
        module.A.array()
    np.testing.assert_array_equal(open_adapter(folder).modules[0].A.array(), copy)


def test_files_are_closed_when_reading_fails(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", MODULES, config={"r": -3})
    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc here")
    with pytest.raises(AdapterFileError):
        open_adapter(folder)
    assert str(folder) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_every_floating_dtype_is_an_adapter(tmp_path: Path, dtype: str) -> None:
    adapter = open_adapter(make_adapter(tmp_path / "a", {"x": (6, 5, 2)}, dtype=dtype, seed=7))
    (module,) = adapter.modules
    a, _ = factors(6, 5, 2, dtype=dtype, seed=7 * 100_003)
    assert module.dtype == dtype
    assert module.A.array().tobytes() == a.tobytes()
