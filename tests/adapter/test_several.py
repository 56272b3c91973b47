"""Several adapters in one file, or one in each folder of a folder: which one is named, and what to type if none is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3lora
from s3lora.adapter.open import open_adapter
from s3lora.errors import AdapterFileError, NothingToAuditError, UnsupportedAdapterError
from tests.command import call
from tests.support import factors, make_adapter, write_safetensors

P = "base_model.model.model.layers"
A, B = factors(6, 8, 2)
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}


def two_in_one(folder: Path, names: tuple[str, ...] = ("default", "style.v1")) -> Path:
    folder.mkdir(exist_ok=True)
    tensors: dict[str, Any] = {f"{P}.0.input_layernorm.weight": np.ones(8, np.float32)}
    for number, name in enumerate(names):
        for layer in range(3):
            path = f"{P}.{layer}.self_attn.q_proj"
            tensors[f"{path}.lora_A.{name}.weight"] = A + layer + number
            tensors[f"{path}.lora_B.{name}.weight"] = B - layer - number
        tensors[f"base_model.model.score.modules_to_save.{name}.weight"] = np.full((2, 8), number, np.float32)
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, "modules_to_save": ["score"]}))
    return folder


def in_folders(folder: Path) -> Path:
    for number, name in enumerate(("default", "reference")):
        make_adapter(folder / name, {f"model.layers.{i}.self_attn.q_proj": (6, 8, 2) for i in range(3)}, seed=number)
    return folder


@pytest.mark.parametrize("number", [0, 1])
def test_one_of_a_file_is_picked(tmp_path: Path, number: int) -> None:
    name, other = ("default", "style.v1") if number == 0 else ("style.v1", "default")
    with open_adapter(two_in_one(tmp_path / "x"), name) as adapter:
        assert (adapter.picked, len(adapter.modules)) == (name, 3)
        for layer, module in enumerate(adapter.modules):
            np.testing.assert_array_equal(module.A.array(), A + layer + number)
            np.testing.assert_array_equal(module.B.array(), B - layer - number)
        assert {one for file in adapter.files for one in file.tensors if other in one} == set()
        assert f"base_model.model.score.modules_to_save.{name}.weight" in adapter.other_tensors
        assert any(other in warning and "left out" in warning for warning in adapter.warnings)


def test_without_a_name_it_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedAdapterError, match=r"several adapters .*default, style\.v1.*adapter=default"):
        open_adapter(two_in_one(tmp_path / "x"))
    with pytest.raises(NothingToAuditError, match=r"default/, reference/.*adapter=default"):
        open_adapter(in_folders(tmp_path / "y"))


def test_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(AdapterFileError, match=r"no adapter called nobody.*it holds default, style\.v1"):
        open_adapter(two_in_one(tmp_path / "x"), "nobody")
    for name in ("nobody", "../y/default", "", "."):
        with pytest.raises((AdapterFileError, NothingToAuditError)):
            open_adapter(in_folders(tmp_path / "y"), name)


def test_one_of_the_folders_is_picked(tmp_path: Path) -> None:
    folder = in_folders(tmp_path / "x")
    with open_adapter(folder, "reference") as adapter, open_adapter(folder / "reference") as same:
        assert adapter.path == same.path
        assert [m.path for m in adapter.modules] == [m.path for m in same.modules]


def test_the_only_one_may_be_named(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "x", {"model.layers.0.self_attn.q_proj": (6, 8, 2)})
    with open_adapter(folder, "default") as adapter:
        assert adapter.warnings == ()


@pytest.mark.parametrize("name", ["default", "style.v1"])
@pytest.mark.parametrize("mode", ["remove", "zero"])
def test_pruned_alone_for_peft_and_put_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, mode: str
) -> None:
    source = two_in_one(tmp_path / "x")
    out = tmp_path / "out"
    done = call(capsys, "prune", source, "--adapter", name, "-o", out, "--top", 1, "--mode", mode, "--force-flat")
    assert done.status == 0, done.err
    with open_adapter(out) as result:
        keys = {key for file in result.files for key in file.tensors if "lora_" in key}
        assert len(keys) == (4 if mode == "remove" else 6)
        assert all(key.endswith((".lora_A.weight", ".lora_B.weight")) for key in keys)
    assert s3lora.read_provenance(out).source.adapter == name
    s3lora.restore(out, source, tmp_path / "back")
    back, original = (folder / "adapter_model.safetensors" for folder in (tmp_path / "back", source))
    assert back.read_bytes() == original.read_bytes()
    first = s3lora.read_provenance(out).modules[0].path
    s3lora.restore(out, source, tmp_path / "some", modules=[first])


def test_every_command_takes_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, folders = two_in_one(tmp_path / "x"), in_folders(tmp_path / "y")
    for path, name in ((source, "style.v1"), (folders, "reference")):
        document = json.loads(call(capsys, "scan", path, "--adapter", name, "--format", "json").out)
        assert len(document["modules"]) == 3
        assert call(capsys, "bom", path, "--adapter", name).status == 0
        assert call(capsys, "scan", path).status in (2, 3)
    for names in (("default",), ("default", "style.v1")):
        words = [word for name in names for word in ("--adapter", name)]
        made = json.loads(call(capsys, "compare", source, source, *words, "--format", "json").out)
        distances = [module["distance"][0] for module in made["modules"]]
        assert len(distances) == 3
        assert (max(distances) == 0) == (len(names) == 1)
    told = call(capsys, "compare", source, source, *["--adapter", "default"] * 3)
    assert (told.status, "3 names for 2 adapters" in told.err) == (2, True)


def test_check_card_and_resize_take_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = two_in_one(tmp_path / "x")
    for command in ("check", "card"):
        assert "--adapter default" in call(capsys, command, source).err
    checked = json.loads(call(capsys, "check", source, "--adapter", "style.v1", "--format", "json").out)
    assert (checked["source"]["adapter"], len(checked["modules"])) == ("style.v1", 3)
    told = call(capsys, "check", source, "--adapter", "nobody")
    assert (told.status, "it holds default, style.v1" in told.err) == (2, True)
    assert call(capsys, "card", source, "--adapter", "style.v1").status == 0
    card = (source / "README.md").read_text()
    assert "- Adapter: `style.v1`, of several in the file" in card
    assert "s3lora card . --adapter style.v1 --check" in card
    assert call(capsys, "card", source, "--adapter", "style.v1", "--check").status == 0
    assert call(capsys, "card", source, "--adapter", "default", "--check").status == 1
    assert call(capsys, "resize", source, "--adapter", "style.v1", "--rank", 1, "-o", tmp_path / "small").status == 0


def test_the_card_of_an_adapter_lies_in_its_own_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = in_folders(tmp_path / "x")
    assert call(capsys, "card", folder, "--adapter", "reference").status == 0
    assert not (folder / "README.md").exists()
    assert "s3lora card . --check" in (folder / "reference" / "README.md").read_text()
    assert call(capsys, "card", folder / "reference", "--check").status == 0


@pytest.mark.parametrize("make", [two_in_one, in_folders])
def test_restoring_takes_a_name_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], Path]
) -> None:
    name = "style.v1" if make is two_in_one else "reference"
    source, pruned, back = make(tmp_path / "x"), tmp_path / "pruned", tmp_path / "back"
    words = ("--adapter", name, "--top", 1, "--force-flat", "-o", pruned)
    assert call(capsys, "prune", source, *words).status == 0
    assert call(capsys, "restore", pruned, "--from", source, "--adapter", name, "-o", back).status == 0
    place = source if make is two_in_one else source / name
    assert (back / "adapter_model.safetensors").read_bytes() == (place / "adapter_model.safetensors").read_bytes()
    told = call(capsys, "restore", pruned, "--from", source, "--adapter", "nobody", "-o", tmp_path / "no")
    assert (told.status in (2, 3), name in told.err, (tmp_path / "no").exists()) == (True, True, False)


def test_adapters_of_one_file_are_added_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "x"
    two_in_one(source)
    tensors = {key: value for key, value in read(source).items() if "lora_" in key}
    write_safetensors(source / "adapter_model.safetensors", tensors)
    (source / "adapter_config.json").write_text(json.dumps(CONFIG))
    words = ("--adapter", "default", "--adapter", "style.v1", "-o", tmp_path / "sum", "--format", "json")
    made = json.loads(call(capsys, "compose", source, source, *words).out)
    assert [one["adapter"] for one in made["sources"]] == ["default", "style.v1"]
    with open_adapter(tmp_path / "sum") as total:
        for layer, module in enumerate(total.modules):
            wanted = 2.0 * sum((B - layer - number) @ (A + layer + number) for number in (0, 1))
            found = module.scaling.value * module.B.array() @ module.A.array()
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
    told = call(capsys, "compose", source, source)
    assert (told.status, "--adapter default" in told.err) == (2, True)
    told = call(capsys, "compose", source, source, *["--adapter", "default"] * 3)
    assert (told.status, "3 names for 2 adapters" in told.err) == (2, True)


def read(folder: Path) -> dict[str, np.ndarray]:
    with open_adapter(folder, "default") as one, open_adapter(folder, "style.v1") as other:
        found = [file.tensors for adapter in (one, other) for file in adapter.files]
        return {key: np.array(tensor.array()) for tensors in found for key, tensor in tensors.items()}


def test_a_fleet_takes_one_of_each_file_that_holds_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "all").mkdir()
    two_in_one(tmp_path / "all" / "several")
    make_adapter(tmp_path / "all" / "plain", {"model.layers.0.self_attn.q_proj": (6, 8, 2)})
    words = ("fleet", "scan", tmp_path / "all", "--out")
    refused = json.loads(call(capsys, *words, tmp_path / "none", "--format", "json", "-q").out)
    assert (refused["counts"]["adapters"], refused["counts"]["errors"]) == (1, {"UnsupportedAdapter": 1})
    done = call(capsys, *words, tmp_path / "one", "--adapter", "style.v1", "--format", "json", "-q")
    summary = json.loads(done.out)
    assert summary["settings"]["adapter"] == "style.v1"
    assert (summary["counts"]["adapters"], summary["counts"]["errors"]) == (2, {})
    told = call(capsys, *words, tmp_path / "one", "--adapter", "default", "-q")
    assert (told.status, "other settings" in told.err) == (2, True)
