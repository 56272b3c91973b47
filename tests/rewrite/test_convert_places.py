"""Where a converted adapter says that its modules lie: in one model, under its names, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3lora
from s3lora import NonFiniteError, UnsupportedAdapterError
from tests.command import call
from tests.forms import PATHS, peft_adapter
from tests.rewrite.converting import PREFIX, converted, dense, peft_folder, same, stored
from tests.support import factors, write_safetensors

UNET = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT = "text_model.encoder.layers.0.self_attn.q_proj"


def diffusers(folder: Path, paths: list[str], names: tuple[str, str] = ("lora_A", "lora_B")) -> tuple[Path, Any]:
    """Write a file for a pipeline; return it, and the updates by the path in the file."""
    folder.mkdir()
    tensors, updates = {}, {}
    for seed, path in enumerate(paths):
        a, b = factors(12, 20, 4, seed=seed)
        tensors[f"{path}.{names[0]}.weight"], tensors[f"{path}.{names[1]}.weight"] = a, b
        updates[path] = b.astype(np.float64) @ a
    write_safetensors(folder / "pytorch_lora_weights.safetensors", tensors)
    return folder, updates


def targets(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    return found


@pytest.mark.parametrize("names", [("lora_A", "lora_B"), ("lora.down", "lora.up")])
@pytest.mark.parametrize(
    ("model", "path"), [("unet", UNET), ("text_encoder", TEXT), ("transformer", "layers.0.attention.to_q")]
)
def test_a_model_of_a_pipeline_is_no_part_of_the_path(tmp_path: Path, model: str, path: str, names: tuple[str, str]):
    source, updates = diffusers(tmp_path / "in", [f"{model}.{path}"], names)
    converted(source, tmp_path / "out")
    same(dense(tmp_path / "out"), {path: updates[f"{model}.{path}"]})
    assert targets(tmp_path / "out") == [path]


@pytest.mark.parametrize("to", ["peft", "mlx"])
@pytest.mark.parametrize("other", [f"text_encoder.{TEXT}", "mid_block.attentions.0.proj_in"])
def test_several_models_are_refused(tmp_path: Path, to: str, other: str):
    source, _ = diffusers(tmp_path / "in", [f"unet.{UNET}", other])
    with pytest.raises(UnsupportedAdapterError, match=r"holds updates of .* and unet, and \w+ has one model a file"):
        s3lora.convert(source, to)


def test_language_models_keep_what_they_call_transformer(tmp_path: Path):
    """GPT-2's own `transformer.` is a part of its paths, whether or not PEFT's prefix is there."""
    for i, path in enumerate(("transformer.h.0.attn.c_attn", "transformer.layers.0.attn.qkv_proj")):
        source, updates = diffusers(tmp_path / f"in{i}", [path])
        converted(source, tmp_path / f"out{i}")
        same(dense(tmp_path / f"out{i}"), updates)
    source, updates = diffusers(tmp_path / "other", [f"{PREFIX}unet.{UNET}"])
    converted(source, tmp_path / "kept")
    same(dense(tmp_path / "kept"), {f"unet.{UNET}": updates[f"{PREFIX}unet.{UNET}"]})


def test_there_and_back_again(tmp_path: Path):
    source, updates = diffusers(tmp_path / "in", [f"unet.{UNET}"])
    converted(source, tmp_path / "kohya", "kohya")
    converted(tmp_path / "kohya", tmp_path / "again", "diffusers")
    converted(tmp_path / "again", tmp_path / "out")
    same(dense(tmp_path / "out"), {UNET: updates[f"unet.{UNET}"]})


@pytest.mark.parametrize(("width", "name"), [(2048, "lora_te1_"), (768, "lora_te_")])
def test_the_first_of_two_text_encoders_is_known_by_the_unet(tmp_path: Path, width: int, name: str):
    cross = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    source, _ = diffusers(tmp_path / "in", [f"text_encoder.{TEXT}"])
    a, b = factors(12, width, 4)
    file = source / "pytorch_lora_weights.safetensors"
    write_safetensors(file, {**stored(file), f"{cross}.lora_A.weight": a, f"{cross}.lora_B.weight": b})
    record = converted(source, tmp_path / "out", "kohya")
    assert {key.partition("text_model")[0] for key in stored(tmp_path / "out/lora.safetensors") if "_te" in key} == {
        name
    }
    assert any("`lora_te1_`" in note for note in record.warnings) == (name == "lora_te_")


def test_targets_are_no_names_of_layers_that_the_file_lacks(tmp_path: Path):
    """The base may have more layers than the file: a name of a projection would be theirs too."""
    first = PATHS[0]
    source, updates = peft_folder(tmp_path / "in", {first: 4}, layers_to_transform=[0], layers_pattern="layers")
    converted(source, tmp_path / "mlx", "mlx")
    converted(tmp_path / "mlx", tmp_path / "out")
    same(dense(tmp_path / "out"), updates)
    assert targets(tmp_path / "out") == [first]
    converted(peft_adapter(tmp_path / "ada", "adalora"), tmp_path / "lora")
    assert targets(tmp_path / "lora") == sorted(PATHS)


def test_a_regular_expression_becomes_the_paths_that_it_stands_for(tmp_path: Path):
    path = "model.layers.0.self_attn.o_proj"
    source, _ = peft_folder(tmp_path / "in", {path: 4}, target_modules=r".*layers\.0\..*o_proj")
    converted(source, tmp_path / "out", None, loader="sglang")
    assert targets(tmp_path / "out") == [path]


@pytest.mark.parametrize("name", ["embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in"])
def test_embeddings_come_back_from_mlx_as_embeddings(tmp_path: Path, name: str):
    folder, path = tmp_path / "in", f"model.{name}"
    source, _ = peft_folder(folder, {PATHS[0]: 4}, target_modules=["q_proj", name])
    file = folder / "adapter_model.safetensors"
    a, b = factors(5, 9, 4)
    tables = {f"{PREFIX}{path}.lora_embedding_A": a, f"{PREFIX}{path}.lora_embedding_B": b}
    write_safetensors(file, {**stored(file), **tables})
    converted(source, tmp_path / "mlx", "mlx")
    converted(tmp_path / "mlx", tmp_path / "out")
    made = stored(tmp_path / "out/adapter_model.safetensors")
    assert np.array_equal(made[f"{PREFIX}{path}.lora_embedding_A"], a)
    assert np.array_equal(made[f"{PREFIX}{path}.lora_embedding_B"], b)


def test_an_embedding_that_nothing_tells_from_a_layer_is_said_to_be_one(tmp_path: Path):
    source, _ = peft_folder(tmp_path / "in", {PATHS[0]: 4}, target_modules=["q_proj", "table"])
    file = source / "adapter_model.safetensors"
    a, b = factors(5, 9, 4)
    write_safetensors(
        file, {**stored(file), f"{PREFIX}table.lora_embedding_A": a, f"{PREFIX}table.lora_embedding_B": b}
    )
    (note,) = converted(source, tmp_path / "mlx", "mlx").warnings
    assert note.startswith("table is an embedding, which neither its name nor a file of MLX's tells")


@pytest.mark.parametrize("to", ["peft", "mlx"])
def test_parts_of_a_fused_layer_have_no_place(tmp_path: Path, to: str):
    """litGPT's qkv are three updates of one weight, and no model has `attn.qkv.q`."""
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    parts = {"lora_A": random.normal(size=(6, 8)), "lora_B": random.normal(size=(24, 2))}
    tensors = {f"transformer.h.0.attn.qkv.{name}": values.astype(np.float32) for name, values in parts.items()}
    write_safetensors(tmp_path / "in/lit.safetensors", tensors)
    with pytest.raises(UnsupportedAdapterError, match="is a part of a fused layer"):
        s3lora.convert(tmp_path / "in", to)


@pytest.mark.parametrize("to", ["peft", "mlx"])
@pytest.mark.parametrize("names", [("unet:0:down", "unet:0:up"), ("w_a_000", "w_b_000")])
def test_numbers_are_no_names(tmp_path: Path, to: str, names: tuple[str, str]):
    (tmp_path / "in").mkdir()
    write_safetensors(tmp_path / "in/x.safetensors", dict(zip(names, factors(12, 20, 4), strict=True)))
    with pytest.raises(UnsupportedAdapterError, match=r"its modules are only numbered \((unet:0|w_000)\), and"):
        s3lora.convert(tmp_path / "in", to)


@pytest.mark.parametrize("wishes", [{}, {"dtype": "bfloat16"}, {"bake": True}, {"loader": "peft"}], ids=str)
def test_a_rank_that_the_tensors_have_not_is_set_right(tmp_path: Path, wishes: dict[str, Any]):
    """PEFT stops at an adapter whose `r` is another than the tensors have; the shapes win."""
    source, updates = peft_folder(tmp_path / "in", dict.fromkeys(PATHS, 4), r=16, lora_alpha=6)
    record = converted(source, tmp_path / "out", **wishes)
    same(dense(tmp_path / "out"), updates, 0.01 if "dtype" in wishes else 1e-6)
    told = "its configuration gave modules other ranks than their tensors have: these are written"
    assert (told in record.warnings) or wishes == {"bake": True}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("to", ["peft", "mlx"])
def test_what_is_not_finite_is_named_and_not_written(tmp_path: Path, value: float, to: str):
    source, _ = peft_folder(tmp_path / "in", dict.fromkeys(PATHS, 4))
    file = source / "adapter_model.safetensors"
    tensors = {name: values.copy() for name, values in stored(file).items()}
    name = f"{PREFIX}{PATHS[1]}.lora_B.weight"
    tensors[name][0, 0] = value
    write_safetensors(file, tensors)
    with pytest.raises(NonFiniteError, match=rf"{PATHS[1]}.*holds NaN or infinity in {name}"):
        converted(source, tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


def test_what_to_leave_out_is_named_by_its_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, _ = peft_folder(tmp_path / "in", dict.fromkeys(PATHS, 4), modules_to_save=["score"])
    file = source / "adapter_model.safetensors"
    more = {f"{PREFIX}score.modules_to_save.weight": np.ones((5, 20), np.float32)}
    write_safetensors(file, {**stored(file), **more})
    refused = call(capsys, "convert", source, "--to", "mlx", "-o", tmp_path / "out")
    assert refused.err.rstrip().endswith("leave them out: --drop heads")
    assert call(capsys, "convert", source, "--to", "mlx", "--drop", "heads", "-o", tmp_path / "out").status == 0
    with pytest.raises(UnsupportedAdapterError) as error:
        s3lora.convert(source, "mlx")
    assert str(error.value.fix) == 'leave them out: drop=["heads"]'


def test_a_file_of_any_name_is_an_adapter_that_force_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, _ = diffusers(tmp_path / "in", [f"unet.{UNET}", f"text_encoder.{TEXT}"], ("lora.down", "lora.up"))
    (source / "pytorch_lora_weights.safetensors").rename(source / "style.safetensors")
    assert call(capsys, "prune", source, "--top", "1", "--force-flat", "-o", tmp_path / "p").status == 0
    again = ("restore", tmp_path / "p", "--from", source, "-o", tmp_path / "r", "--force")
    assert [call(capsys, *again).status for _ in range(2)] == [0, 0]
    (tmp_path / "book").mkdir()
    (tmp_path / "book/page.txt").write_text("no adapter")
    assert call(capsys, *again[:-2], tmp_path / "book", "--force").status == 2
    assert (tmp_path / "book/page.txt").is_file()
