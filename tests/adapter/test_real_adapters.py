"""What adapters published by other people hold, checked against a description written by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from s3lora.adapter.model import Adapter, Scaling
from s3lora.adapter.open import open_adapter
from s3lora.errors import AdapterFileError
from tests.support import shared

TWO = Scaling(2.0, "alpha/r")
FOUR = Scaling(4.0, "alpha/r")
#: folder or file → format, modules, layers, {(projection, m, n)}, rank, dtype, scaling, other tensors
PUBLISHED = {
    "distilgpt2-peft": ("peft", 6, range(6), {("c_attn", 2304, 768)}, 8, TWO, 0),
    "dialogpt-synthetic-peft": ("peft", 12, range(6), {("c_attn", 2304, 768), ("c_proj", 768, 768)}, 8, TWO, 0),
    "gpt2-classifier-peft": (
        "peft",
        36,
        range(12),
        {("c_attn", 2304, 768), ("c_proj", 768, 768), ("c_proj", 768, 3072)},
        8,
        FOUR,
        1,
    ),
    "token-classifier-gqa-peft": (
        "peft",
        32,
        range(8),
        {("q_proj", 896, 640), ("k_proj", 128, 640), ("v_proj", 128, 640), ("o_proj", 640, 896)},
        16,
        TWO,
        2,
    ),
    "gpt-oss-20b-peft": ("peft", 48, range(24), {("q_proj", 4096, 2880), ("v_proj", 512, 2880)}, 4, TWO, 0),
    "qwen25-mlx/0000100_adapters.safetensors": (
        "mlx",
        8,
        range(20, 24),
        {("q_proj", 896, 896), ("v_proj", 128, 896)},
        8,
        Scaling(10.0, "ambiguous"),
        0,
    ),
    "qwen25-mlx/0000200_adapters.safetensors": (
        "mlx",
        8,
        range(20, 24),
        {("q_proj", 896, 896), ("v_proj", 128, 896)},
        8,
        Scaling(10.0, "ambiguous"),
        0,
    ),
    "sam-vit-custom-r2": (
        "segment-anything-numbered",
        24,
        range(12),
        {("q", 768, 768), ("v", 768, 768)},
        2,
        Scaling(1.0, "unknown"),
        0,
    ),
    "sam-vit-custom-r8": (
        "segment-anything-numbered",
        24,
        range(12),
        {("q", 768, 768), ("v", 768, 768)},
        8,
        Scaling(1.0, "unknown"),
        0,
    ),
}


def published(name: str) -> Adapter:
    return open_adapter(shared() / "adapters" / name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_each_published_adapter_holds(name: str) -> None:
    form, count, layers, projections, rank, scaling, others = PUBLISHED[name]
    with published(name) as adapter:
        assert (adapter.format, len(adapter.modules), len(adapter.other_tensors)) == (form, count, others)
        assert {module.layer for module in adapter.modules} == set(layers)
        assert {(module.projection, module.m, module.n) for module in adapter.modules} == projections
        assert {(module.rank, module.dtype, module.scaling) for module in adapter.modules} == {
            (rank, "float32", scaling)
        }
        assert len({module.path for module in adapter.modules}) == count
        assert [module.layer for module in adapter.modules] == sorted(module.layer or 0 for module in adapter.modules)
        assert all(np.isfinite(module.A.array()).all() for module in adapter.modules)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values_are_those_of_the_reference_reader(name: str) -> None:
    reference = pytest.importorskip("safetensors.numpy")
    with published(name) as adapter:
        (file,) = adapter.files
        expected = reference.load_file(file.file.path)
        assert set(expected) == set(file.tensors)
        for module in adapter.modules:
            a, b = expected[module.A.tensor.name], expected[module.B.tensor.name]
            if adapter.format == "mlx":
                a, b = a.T, b.T
            np.testing.assert_array_equal(module.A.array(), a)
            np.testing.assert_array_equal(module.B.array(), b)


def test_stable_diffusion_mixes_dtypes_and_carries_tokens() -> None:
    adapter = published("sd1-mixed-dtype")
    assert (adapter.format, adapter.removable, len(adapter.modules)) == ("stable-diffusion-numbered", False, 192)
    assert {(module.rank, module.dtype) for module in adapter.modules} == {(1, "float16")}
    assert sum(module.projection == "text_encoder" for module in adapter.modules) == 48
    assert adapter.other_tensors == ("<s1>", "<s2>")
    assert {adapter.files[0].tensors[name].dtype for name in adapter.other_tensors} == {"float32"}
    assert "the configuration says rank" not in " ".join(adapter.warnings)
    # Its header ends at no multiple of 8, so no tensor is aligned.
    assert adapter.files[0].tensors["<s1>"].offset % 4


def test_a_pointer_is_named_as_such_and_says_how_to_fetch_the_file(tmp_path: Path) -> None:
    folder = shared() / "adapters" / "broken-lfs-pointer"
    with pytest.raises(AdapterFileError, match=r"adapter_model\.safetensors: is a Git LFS pointer.*git lfs pull"):
        open_adapter(folder)
    copy = tmp_path / "configuration"
    shutil.copytree(shared() / "adapters" / "distilgpt2-peft", copy)
    shutil.copy(folder / "adapter_model.safetensors", copy / "adapter_config.json")
    with pytest.raises(AdapterFileError, match=r"adapter_config\.json: is a Git LFS pointer"):
        open_adapter(copy)


def test_the_file_decides_and_not_the_configuration() -> None:
    # `modules_to_save` lists a classifier that is not there; the head that is there passes through.
    adapter = published("gpt2-classifier-peft")
    assert adapter.config is not None
    assert adapter.config["modules_to_save"] == ["classifier", "score"]
    assert adapter.other_tensors == ("base_model.model.score.weight",)
    assert adapter.base_model == "gpt2"
    assert set(published("token-classifier-gqa-peft").other_tensors) == {
        "base_model.model.score.bias",
        "base_model.model.score.weight",
    }


def test_mlx_states_both_scalings_and_a_folder_of_checkpoints_asks_which() -> None:
    (warning,) = published("qwen25-mlx/0000100_adapters.safetensors").warnings
    assert "`scale` = 10" in warning
    assert "scale·alpha/rank = 20" in warning
    with pytest.raises(AdapterFileError, match=r"holds 2 weights files.*name one of them"):
        published("qwen25-mlx")
    first, second = (published(f"qwen25-mlx/0000{n}00_adapters.safetensors").modules[0] for n in (1, 2))
    assert first.path == second.path
    assert not np.array_equal(first.B.array(), second.B.array())


def test_peft_agrees_on_a_published_adapters_scaling() -> None:
    peft = pytest.importorskip("peft")
    for name in ("distilgpt2-peft", "gpt2-classifier-peft", "gpt-oss-20b-peft"):
        config = peft.LoraConfig.from_pretrained(str(shared() / "adapters" / name))
        assert published(name).modules[0].scaling.value == config.lora_alpha / config.r
