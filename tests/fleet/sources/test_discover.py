"""Which adapters a folder holds, by the names of its files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.fleet.sources.discover import (
    BASE_MODEL,
    GGUF,
    HIDDEN,
    TRAINING,
    UNNAMED,
    Adapters,
    adapters_in,
    enters,
    in_order,
    is_weights,
)

CONFIG = "adapter_config.json"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        # the folder itself
        ([CONFIG, "adapter_model.safetensors", "README.md"], Adapters(True)),
        (["adapter_model.safetensors"], Adapters(True)),
        (["adapter_model.bin", CONFIG], Adapters(True)),
        (["adapters.safetensors", CONFIG], Adapters(True)),
        (["pytorch_lora_weights.safetensors"], Adapters(True)),
        ([CONFIG, "some.safetensors"], Adapters(True)),
        ([CONFIG], Adapters(True)),
        (["adapter_model-00001-of-00002.safetensors", "adapter_model-00002-of-00002.safetensors"], Adapters(True)),
        (
            ["adapter_model.safetensors.index.json", "adapter_model-00001-of-00001.safetensors", CONFIG],
            Adapters(True),
        ),
        # two weights files are one adapter
        (["adapter_model.safetensors", "adapter_model.bin", "pytorch_lora_weights.safetensors"], Adapters(True)),
        # an adapter whose run saved the whole model too
        (["config.json", "model.safetensors", "adapter_model.safetensors", CONFIG], Adapters(True)),
        # loose files
        (["lora_rank8.safetensors"], Adapters(False, ("lora_rank8.safetensors",))),
        (["b-10.safetensors", "b-9.safetensors"], Adapters(False, ("b-9.safetensors", "b-10.safetensors"))),
        (
            ["a_lora.pt", "x.pt", "pytorch_lora_weights.bin"],
            Adapters(False, ("a_lora.pt", "pytorch_lora_weights.bin"), (("x.pt", UNNAMED),)),
        ),
        (["model.safetensors"], Adapters(False, ("model.safetensors",))),
        # litGPT: a file of torch that is called so
        (["lit_model.pth.lora"], Adapters(False, ("lit_model.pth.lora",))),
        (
            ["lit_model.pth", "lit_model.pth.lora"],
            Adapters(False, ("lit_model.pth.lora",), (("lit_model.pth", UNNAMED),)),
        ),
        # MLX: checkpoints beside the last adapter, or without it
        (
            ["0000100_adapters.safetensors", "adapters.safetensors", CONFIG],
            Adapters(True, ("0000100_adapters.safetensors",)),
        ),
        (
            ["0000100_adapters.safetensors", "0000200_adapters.safetensors", CONFIG],
            Adapters(False, ("0000100_adapters.safetensors", "0000200_adapters.safetensors")),
        ),
        # base models
        (["config.json", "model.safetensors"], Adapters(False, (), (("", BASE_MODEL),))),
        (["model-00001-of-00003.safetensors"], Adapters(False, (), (("", BASE_MODEL),))),
        (["config.json", "pytorch_model.bin", "tokenizer.json"], Adapters(False, (), (("", BASE_MODEL),))),
        (["config.json", "diffusion_pytorch_model.fp16.safetensors"], Adapters(False, (), (("", BASE_MODEL),))),
        (["consolidated.00.pth", "config.json"], Adapters(False, (), (("", BASE_MODEL),))),
        # nothing
        ([], Adapters()),
        (["README.md", "train.txt"], Adapters()),
        (
            ["weights.npz", "._adapter_model.safetensors"],
            Adapters(skipped=(("._adapter_model.safetensors", HIDDEN), ("weights.npz", UNNAMED))),
        ),
        # what only resumes a training, and what another program loads
        (["scheduler.pt", "optimizer.pt"], Adapters(skipped=(("optimizer.pt", TRAINING), ("scheduler.pt", TRAINING)))),
        (["rng_state_0.pth"], Adapters(skipped=(("rng_state_0.pth", TRAINING),))),
        (["my-lora.gguf", "model.Q4_0.gguf"], Adapters(files=("my-lora.gguf",), skipped=(("model.Q4_0.gguf", GGUF),))),
    ],
)  # fmt: skip
def test_what_a_folder_holds(names: list[str], found: Adapters) -> None:
    assert adapters_in(names) == found


NAMES = st.sampled_from(
    (
        *(CONFIG, "config.json", "adapter_model.safetensors", "adapter_model.bin", "adapters.safetensors"),
        *("0000100_adapters.safetensors", "model.safetensors", "model-00001-of-00002.safetensors", "optimizer.pt"),
        *("x_lora.safetensors", "anything.safetensors", "README.md", ".hidden.safetensors", "lora.pt"),
    )
)


@given(st.sets(NAMES))
def test_no_weights_file_is_lost(names: set[str]) -> None:
    found = adapters_in(names)
    assert found == adapters_in(sorted(names, reverse=True))
    assert len(set(found.files)) == len(found.files)
    assert set(found.files) <= {name for name in names if is_weights(name) and not name.startswith(".")}
    told = {name for name, _ in found.skipped}
    for name in names:
        if name.endswith(".safetensors") and not name.startswith("."):
            # each is an adapter, part of one, told as skipped, or a base model's
            assert found.whole or name in found.files or name in told or ("", BASE_MODEL) in found.skipped
    if CONFIG in names or "adapter_model.safetensors" in names:
        assert found.whole or len(found.files) > 1, "an adapter's configuration is never passed over"


@pytest.mark.parametrize(
    ("folder", "looked"),
    [("checkpoint-1", True), ("runs", True), (".git", False), (".cache", False), ("wandb", False), ("x.old", False)],
)  # fmt: skip
def test_folders_that_hold_no_adapters(folder: str, *, looked: bool) -> None:
    assert enters(folder) is looked


def test_order_is_that_of_the_numbers() -> None:
    assert in_order(["checkpoint-1000", "checkpoint-200", "a"]) == ["a", "checkpoint-200", "checkpoint-1000"]
    assert in_order(["1", "01"]) == in_order(["01", "1"])


@given(st.lists(st.text("ab0123/", max_size=8), unique=True))
def test_order_does_not_depend_on_the_order_given(names: list[str]) -> None:
    assert in_order(names) == in_order(reversed(names))
    assert sorted(in_order(names)) == sorted(names)
