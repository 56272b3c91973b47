"""A base model on the Hub: what `check --base hf://…` fetches of it, and what is said where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import s3lora
from s3lora.errors import AdapterFileError, UsageError
from s3lora.fleet.sources.base_models import fetched_base
from tests.command import call
from tests.fleet.sources.hub_stand_in import Hub
from tests.support import make_adapter, safetensors_bytes

pytest.importorskip("huggingface_hub")
pytest.importorskip("aiohttp")

NAMES = [f"model.layers.{i}.self_attn.{name}_proj" for i in range(2) for name in "qv"]
CONFIG = {"model_type": "llama", "hidden_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2,
          "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 100}  # fmt: skip


def shard(*names: str) -> bytes:
    return safetensors_bytes({f"{name}.weight": np.ones((512 if "q_" in name else 256, 512), np.float32)
                              for name in names})  # fmt: skip


FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors.index.json": json.dumps({"weight_map": {
        f"{name}.weight": f"model-{1 + i // 2}.safetensors" for i, name in enumerate(NAMES)}}).encode(),
    "model-1.safetensors": shard(*NAMES[:2]),
    "model-2.safetensors": shard(*NAMES[2:]),
}  # fmt: skip


def test_names_and_shapes_are_those_of_the_headers(models: Hub, tmp_path: Path) -> None:
    models.publish("someone/llama", FILES, [])
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    here, fetched = s3lora.read_base(str(tmp_path)), fetched_base("hf://someone/llama")
    assert (fetched.modules, fetched.architecture, fetched.evidence) == (here.modules, "llama", "weights")
    assert fetched.name == "hf://someone/llama"
    assert fetched.modules[NAMES[0]].shape == (512, 512)


def test_an_old_name_is_that_of_its_owner(models: Hub) -> None:
    models.publish("openai-community/gpt2", FILES, [])
    found = fetched_base("hf://gpt2")
    assert (found.name, NAMES[0] in found.modules) == ("hf://gpt2", True)


def test_check_by_name(models: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models.publish("someone/llama", FILES, [])
    good = make_adapter(tmp_path / "good", {name: (512 if "q_" in name else 256, 512, 2) for name in NAMES})
    result = call(capsys, "check", good, "--base", "hf://someone/llama", "--fail-on", "modules")
    assert (result.status, result.err) == (0, "")
    assert "by its weights" in result.out
    bad = make_adapter(tmp_path / "bad", {NAMES[0]: (512, 512, 2), "model.layers.5.self_attn.q_proj": (512, 512, 2)})
    result = call(capsys, "check", bad, "--base", "hf://someone/llama@v1", "--fail-on", "modules")
    assert result.status == 1
    assert "1 of 2 modules are not in the base under their names: model.layers.5.self_attn.q_proj" in result.err


@pytest.mark.parametrize("left", [("config.json",), ("config.json", "model.safetensors.index.json")])
def test_what_is_there_is_enough(models: Hub, left: tuple[str, ...]) -> None:
    """A configuration alone has names and shapes by rule, and an index without its shards adds names."""
    models.publish("someone/llama", {name: FILES[name] for name in left}, [])
    assert set(NAMES) <= set(fetched_base("hf://someone/llama").modules)


def test_weights_are_not_fetched(models: Hub) -> None:
    large = {"config.json": FILES["config.json"], "model.safetensors": shard(*NAMES, *(f"{n}.q_" for n in NAMES))}
    assert len(large["model.safetensors"]) > 2**22
    models.publish("someone/llama", large, [])
    assert fetched_base("hf://someone/llama").modules[NAMES[1]].shape == (256, 512)
    assert models.site.sent < 2**20


@pytest.mark.parametrize(
    ("base", "status", "says"),
    [
        ("hf://someone/nothing", 2, "hf://someone/nothing"),
        ("hf://someone/empty", 2, "has no config.json and no weights, so it is no model"),
        ("hf://someone", 2, "is no single model; give hf://OWNER/NAME"),
        ("hf://", 2, "hf://"),
    ],
)
def test_what_is_no_model_there(base: str, status: int, says: str, models: Hub, tmp_path: Path, capsys) -> None:
    models.publish("someone/empty", {"README.md": b"x"}, [])
    adapter = make_adapter(tmp_path / "a", {NAMES[0]: (8, 6, 2)})
    result = call(capsys, "check", adapter, "--base", base)
    assert (result.status, result.out) == (status, "")
    assert says in result.err
    assert result.err.count("\n") == 1


def test_without_a_network(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    adapter = make_adapter(tmp_path / "a", {NAMES[0]: (8, 6, 2)})
    result = call(capsys, "check", adapter, "--base", "hf://someone/llama")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("s3lora: hf://someone/llama: ")
    assert result.err.endswith("; or give a copy: --base PATH/config.json\n")
    assert result.err.count("\n") == 1


def test_an_index_that_names_files_elsewhere(models: Hub) -> None:
    index = json.dumps({"weight_map": {"a.weight": "../secret.safetensors"}}).encode()
    models.publish("someone/llama", {"model.safetensors.index.json": index}, [])
    with pytest.raises(AdapterFileError, match="names a shard outside the folder"):
        fetched_base("hf://someone/llama")
    with pytest.raises(UsageError):
        fetched_base("hf://?search=llama")
