"""`convert --loader`: what is written loads there with the update that the adapter has, or nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s3lora
from s3lora import UnsupportedAdapterError, UsageError
from s3lora.adapter.loaders import LOADERS
from tests.command import call
from tests.forms import PATHS, peft_adapter
from tests.rewrite.test_convert import PREFIX, converted, dense, kohya_file, peft_folder, same, stored
from tests.support import factors, shared, write_safetensors

LANGUAGE = ["peft", "transformers", "vllm", "vllm=0.10.0", "vllm=0.33.0", "sglang", "llamacpp", "mlx"]
SPELLINGS = {
    "plain": str,
    "default": lambda name: name.replace(".weight", ".default.weight"),
    "style": lambda name: name.replace(".weight", ".style.weight"),
    "wrapper": "_orig_mod.{}".format,
    "bare": lambda name: name.removeprefix(PREFIX),
}


def mended(source: Path, out: Path, loader: str, **wishes: Any) -> s3lora.ConversionRecord:
    with s3lora.open_adapter(source) as adapter:
        return s3lora.write_converted(s3lora.convert(adapter, loader=loader, **wishes), out)[0]


def verdict(folder: Path, loader: str) -> s3lora.LoaderVerdict:
    return s3lora.check(folder, loaders=[loader]).loaders[0]


@settings(max_examples=60, deadline=None)
@given(
    loader=st.sampled_from(LANGUAGE),
    ranks=st.lists(st.sampled_from([2, 4]), min_size=4, max_size=4),
    spelling=st.sampled_from(sorted(SPELLINGS)),
    fields=st.fixed_dictionaries({
        "use_rslora": st.booleans(),
        "target_modules": st.sampled_from([["q_proj", "v_proj"], r".*\.(q|v)_proj", "all-linear"]),
    }),
    wishes=st.sampled_from([{}, {"bake": True}, {"pad": 8}, {"pad": 0}, {"dtype": "float32"}]),
)  # fmt: skip
def test_what_is_written_loads(tmp_path_factory, loader, ranks, spelling, fields, wishes):
    folder = tmp_path_factory.mktemp("loader")
    source, updates = peft_folder(folder / "in", dict(zip(PATHS, ranks, strict=True)), **fields)
    file = source / "adapter_model.safetensors"
    write_safetensors(file, {SPELLINGS[spelling](name): values for name, values in stored(file).items()})
    record = mended(source, folder / "out", loader, **wishes)
    assert (record.loader, record.to) == (loader, LOADERS[loader.partition("=")[0]].formats[0])
    found = verdict(folder / "out", loader)
    assert (found.verdict, found.reasons) == ("same", ())
    assert not any("before" in note for note in found.notes), "without a version every release loads it"
    if record.to == "mlx":
        converted(folder / "out", folder / "back")
    same(dense(folder / ("back" if record.to == "mlx" else "out")), updates)


@pytest.mark.parametrize("loader", ["vllm", "sglang", "llamacpp", "peft"])
def test_other_formats_get_patterns_only_where_these_are_read(tmp_path: Path, loader: str):
    source, updates = peft_folder(tmp_path / "in", dict(zip(PATHS, [2, 4, 4, 3], strict=True)), use_rslora=True)
    converted(source, tmp_path / "mlx", "mlx")
    tensors = stored(tmp_path / "mlx/adapters.safetensors")
    for name in [name for name in tensors if "layers.0" in name]:
        tensors[name] = tensors[name][:, :2] if "lora_a" in name else tensors[name][:2]
    write_safetensors(tmp_path / "mlx/adapters.safetensors", tensors)
    with s3lora.open_adapter(tmp_path / "mlx") as before:
        updates = {m.path: m.scaling.value * m.B.array().astype(np.float64) @ m.A.array() for m in before.modules}
        assert {module.rank for module in before.modules} == {2, 4}
    mended(tmp_path / "mlx", tmp_path / "out", loader)
    assert verdict(tmp_path / "out", loader).verdict == "same"
    same(dense(tmp_path / "out"), updates)


@pytest.mark.parametrize("loader", ["vllm=0.10.0", "llamacpp"])
def test_scalings_of_one_each_are_baked(tmp_path: Path, loader: str):
    a, b = factors(12, 18, 4)
    name = "lora_te_text_model_encoder_layers_{}_self_attn_{}_proj"
    tensors = {}
    for layer in range(2):
        for projection in "qv":
            path = name.format(layer, projection)
            tensors[f"{path}.lora_down.weight"], tensors[f"{path}.lora_up.weight"] = a, b
            tensors[f"{path}.alpha"] = np.array(layer + 1.0, np.float32)
    source = write_safetensors(tmp_path / "x.safetensors", tensors)
    assert mended(source, tmp_path / "out", loader).bake
    assert verdict(tmp_path / "out", loader).verdict == "same"
    product = b.astype(np.float64) @ a / 4
    same(dense(tmp_path / "out"), {
        f"text_model.encoder.layers.{layer}.self_attn.{projection}_proj": (layer + 1) * product
        for layer in range(2) for projection in "qv"
    })  # fmt: skip


def test_nothing_is_done_that_is_not_needed(tmp_path: Path):
    source, _ = peft_folder(tmp_path / "in", dict(zip(PATHS, [2, 4, 4, 3], strict=True)), use_rslora=True)
    for loader in ("peft", "vllm=0.33.0"):
        record = mended(source, tmp_path / loader, loader)
        assert (record.bake, record.pad_rank, record.difference) == (False, None, 0)
    old = mended(source, tmp_path / "old", "vllm=0.10.0")
    assert (old.bake, old.pad_rank) == (True, None)
    assert mended(source, tmp_path / "any", "vllm").bake, "without a version, as every release needs it"


@pytest.mark.parametrize("loader", ["vllm", "sglang", "llamacpp", "transformers"])
def test_what_no_writing_mends_is_refused(tmp_path: Path, loader: str, capsys: pytest.CaptureFixture[str]):
    source, _ = peft_folder(tmp_path / "in", dict.fromkeys(PATHS, 4), use_dora=True, use_rslora=True)
    tensors = stored(source / "adapter_model.safetensors")
    tensors |= {f"{PREFIX}{path}.lora_magnitude_vector": np.ones(12, np.float32) for path in PATHS}
    write_safetensors(source / "adapter_model.safetensors", tensors)
    done = call(capsys, "convert", source, "--loader", loader, "-o", tmp_path / "out")
    assert done.status == 2
    assert f"{loader} cannot load this adapter: it uses DoRA" in done.err
    assert not (tmp_path / "out").exists()
    assert all(reason.command is None for reason in verdict(source, loader).reasons), "no command would mend it"


def test_other_forms_are_refused(tmp_path: Path):
    for form in ("loha", "lokr", "vera"):
        with pytest.raises(UnsupportedAdapterError, match="vllm cannot load this adapter: it is"):
            mended(peft_adapter(tmp_path / form, form), tmp_path / "out", "vllm")
        mended(tmp_path / form, tmp_path / f"{form}-peft", "peft")
    mended(peft_adapter(tmp_path / "adalora", "adalora"), tmp_path / "lora", "sglang")
    assert verdict(tmp_path / "lora", "sglang").verdict == "same"


def test_incomplete_families_of_another_format_are_refused_too(tmp_path: Path):
    """Which is seen only by the rules for PEFT's format, once it is that."""
    source, _ = peft_folder(tmp_path / "in", dict.fromkeys([path for path in PATHS if "q_proj" in path], 4))
    converted(source, tmp_path / "mlx", "mlx")
    with pytest.raises(UnsupportedAdapterError, match="lacks projections that it joins with others, at which it stops"):
        mended(tmp_path / "mlx", tmp_path / "out", "sglang")
    assert verdict(tmp_path / "mlx", "sglang").reasons[0].command is None


def test_what_is_not_known_is_written_and_told(tmp_path: Path):
    paths = [f"transformer.h.{i}.attn.c_attn" for i in range(2)]
    source, _ = peft_folder(tmp_path / "in", dict(zip(paths, [2, 4], strict=True)), target_modules=["c_attn"])
    record = mended(source, tmp_path / "out", "vllm=0.10.0")
    assert record.bake
    assert [note for note in record.warnings if note.startswith("vllm=0.10.0 is not known to load it: it has ")]
    assert verdict(tmp_path / "out", "vllm=0.10.0").verdict == "unknown"


def test_heads_are_dropped_where_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fields = {"modules_to_save": ["lm_head"], "use_rslora": True}
    source, updates = peft_folder(tmp_path / "in", dict.fromkeys(PATHS, 4), **fields)
    tensors = stored(source / "adapter_model.safetensors")
    write_safetensors(source / "adapter_model.safetensors",
                      {**tensors, f"{PREFIX}lm_head.weight": np.ones((5, 20), np.float32)})  # fmt: skip
    commands = {reason.command for reason in verdict(source, "llamacpp").reasons}
    assert commands == {"s3lora convert PATH --loader llamacpp --drop all -o OUT"}
    assert call(capsys, "convert", source, "--loader", "llamacpp", "-o", tmp_path / "a").status == 2
    assert call(capsys, "convert", source, "--loader", "llamacpp", "--drop", "all", "-o", tmp_path / "b").status == 0
    assert verdict(tmp_path / "b", "llamacpp").verdict == "same"
    same(dense(tmp_path / "b"), updates)


def test_a_file_that_the_loader_does_not_take(tmp_path: Path):
    source, updates = peft_folder(tmp_path / "in", dict.fromkeys(PATHS, 4))
    (source / "adapter_model.safetensors").rename(source / "weights.safetensors")
    (reason,) = verdict(source, "vllm").reasons
    assert reason.command == "s3lora convert PATH --loader vllm -o OUT"
    mended(source, tmp_path / "out", "vllm")
    assert verdict(tmp_path / "out", "vllm").verdict == "same"
    same(dense(tmp_path / "out"), updates)


def test_a_format_and_a_loader_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, _ = peft_folder(tmp_path / "in", dict.fromkeys(PATHS, 4))
    with pytest.raises(UsageError, match="vllm does not read mlx; give to= peft, or leave it out"):
        mended(source, tmp_path / "out", "vllm", to="mlx")
    with pytest.raises(UsageError, match="no loader 'ollama'"):
        mended(source, tmp_path / "out", "ollama")
    neither = call(capsys, "convert", source, "-o", tmp_path / "out")
    assert (neither.status, "neither a format nor a loader is given" in neither.err) == (2, True)
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text(json.dumps({"model_type": "qwen2"}))
    done = call(capsys, "convert", source, "--loader", "llamacpp", "--to", "gguf", "--base", tmp_path / "base",
                "-o", tmp_path / "gguf")  # fmt: skip
    assert done.status == 0, done.err
    assert verdict(tmp_path / "gguf", "llamacpp").verdict == "same"
    kohya_file(tmp_path / "x.safetensors")
    with pytest.raises(UnsupportedAdapterError, match="diffusers cannot load this adapter"):
        mended(tmp_path / "x.safetensors", tmp_path / "no", "diffusers")  # its text encoder has no attention
    tensors = stored(tmp_path / "x.safetensors")
    write_safetensors(tmp_path / "x.safetensors", {name: tensors[name] for name in tensors if "lora_te" not in name})
    assert mended(tmp_path / "x.safetensors", tmp_path / "pictures", "diffusers").to == "diffusers"
    assert verdict(tmp_path / "pictures", "diffusers").verdict == "same"


@pytest.mark.parametrize("loader", [*LOADERS, "vllm=0.10.0", "peft=0.13.2"])
def test_every_command_that_a_check_names_mends_it(loader: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    seen = 0
    for path in sorted([*(shared() / "cases").iterdir(), *(shared() / "adapters").iterdir()]):
        try:
            commands = {reason.command for reason in verdict(path, loader).reasons if reason.command}
        except s3lora.S3LoRAError:
            continue
        for command in commands:
            out = tmp_path / path.name
            words = [{"PATH": path, "OUT": out}.get(word, word) for word in command.split()[1:]]
            done = call(capsys, *words)
            assert done.status == 0, (path.name, command, done.err)
            assert verdict(out, loader).verdict in ("same", "unknown"), (path.name, command)
            seen += 1
    assert seen > 1 or loader == "diffusers"


def test_the_name_of_a_loader_is_looked_at_before_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (("--loader", "nobody"), "nobody"),
        (("--loader", "vllm", "--to", "gguf"), "does not read gguf"),
    ):
        told = call(capsys, "convert", tmp_path / "no-such-adapter", *words, "-o", tmp_path / "out")
        assert (told.status, says in told.err, "no-such-adapter" in told.err) == (2, True, False)
