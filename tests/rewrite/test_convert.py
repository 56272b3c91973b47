"""Converted adapters against the dense updates, computed here from what was put into the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s3lora
from s3lora import UnsupportedAdapterError, UsageError
from tests.command import call
from tests.forms import PATHS, peft_adapter
from tests.gguf_files import gguf_bytes
from tests.rewrite.converting import PREFIX, UPDATE, converted, dense, gguf_content, peft_folder, same, stored
from tests.support import factors, write_safetensors


@settings(max_examples=30, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 6), min_size=4, max_size=4),
    rslora=st.booleans(),
    bake=st.booleans(),
    pad=st.sampled_from([None, 0, 8]),
    dtype=st.sampled_from([None, "float32", "bfloat16"]),
)
def test_every_wish_keeps_the_updates(tmp_path_factory, ranks, rslora, bake, pad, dtype):
    folder = tmp_path_factory.mktemp("wish")
    source, updates = peft_folder(folder / "in", dict(zip(PATHS, ranks, strict=True)), use_rslora=rslora)
    record = converted(source, folder / "out", bake=bake, pad=pad, dtype=dtype)
    tolerance = 0.01 if dtype == "bfloat16" else 1e-6
    same(dense(folder / "out"), updates, tolerance)
    assert record.difference <= tolerance
    config = json.loads((folder / "out/adapter_config.json").read_text())
    if bake:
        assert config["lora_alpha"] == config["r"]
        assert config["alpha_pattern"] == config["rank_pattern"]
    if pad is not None:
        sizes = {values.shape[0] for name, values in stored(folder / "out/adapter_model.safetensors").items()
                 if "lora_A" in name}  # fmt: skip
        assert sizes == {pad or max(ranks)}
        assert not config["rank_pattern"]
    if dtype is not None:
        assert {v.dtype.name for v in stored(folder / "out/adapter_model.safetensors").values()} == {dtype}


def test_nothing_asked_for_is_bit_for_bit_and_twice_the_same(tmp_path: Path):
    source, _ = peft_folder(tmp_path / "in", dict.fromkeys(PATHS, 4), "bfloat16")
    first, second = (converted(source, tmp_path / name) for name in "ab")
    assert first == second
    assert first.difference == 0
    assert first.differs is None
    assert (tmp_path / "a/s3lora.json").read_bytes() == (tmp_path / "b/s3lora.json").read_bytes()
    before, after = stored(source / "adapter_model.safetensors"), stored(tmp_path / "a/adapter_model.safetensors")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", PREFIX, "_fsdp_wrapped_module."])
def test_wrappers_leave(tmp_path: Path, wrapper: str):
    source, updates = peft_folder(tmp_path / "in", dict.fromkeys(PATHS, 4))
    file = source / "adapter_model.safetensors"
    write_safetensors(file, {f"{wrapper}{name}": values for name, values in stored(file).items()})
    converted(source, tmp_path / "out")
    same(dense(tmp_path / "out"), updates)


def test_mlx_becomes_peft(tmp_path: Path):
    (tmp_path / "in").mkdir()
    tensors, updates = {}, {}
    for seed, path in enumerate(PATHS):
        a, b = factors(12, 20, 4, seed=seed)
        tensors[f"{path}.lora_a"], tensors[f"{path}.lora_b"] = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
        updates[path] = 2.5 * b.astype(np.float64) @ a
    write_safetensors(tmp_path / "in/adapters.safetensors", tensors)
    config = {"lora_parameters": {"rank": 4, "scale": 2.5}, "num_layers": 2, "model": "some/base"}
    (tmp_path / "in/adapter_config.json").write_text(json.dumps(config))
    record = converted(tmp_path / "in", tmp_path / "out")
    assert record.difference == 0
    same(dense(tmp_path / "out"), updates)
    written = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"], written["target_modules"]) == (4, 10, sorted(PATHS))
    assert written["base_model_name_or_path"] == "some/base"


@pytest.mark.parametrize("form", ["adalora", "qalora"])
def test_products_become_lora(tmp_path: Path, form: str):
    source = peft_adapter(tmp_path / "in", form)
    converted(source, tmp_path / "out")
    with s3lora.open_adapter(source) as before:
        expected = {m.path: m.scaling.value * m.B.array().astype(np.float64) @ m.A.array() for m in before.modules}
    same(dense(tmp_path / "out"), expected)
    with s3lora.open_adapter(tmp_path / "out") as after:
        assert {module.form for module in after.modules} == {"LoRA"}


@pytest.mark.parametrize("form", ["loha", "lokr", "vera"])
def test_other_forms_keep_theirs(tmp_path: Path, form: str):
    source = peft_adapter(tmp_path / "in", form)
    assert converted(source, tmp_path / "out").difference == 0
    with pytest.raises(UnsupportedAdapterError, match="q_proj is "):
        converted(source, tmp_path / "baked", bake=True)
    assert not (tmp_path / "baked").exists()


def test_what_peft_cannot_have_is_named(tmp_path: Path):
    a, b = factors(12, 20, 4)
    tensors = {"lora_unet_what_ever.lora_down.weight": a, "lora_unet_what_ever.lora_up.weight": b}
    source = write_safetensors(tmp_path / "x.safetensors", tensors)
    with pytest.raises(UnsupportedAdapterError, match="lora_unet_what_ever has a name whose underscores"):
        converted(source, tmp_path / "out")


def test_a_rank_that_is_too_small_is_refused(tmp_path: Path):
    source, _ = peft_folder(tmp_path / "in", dict(zip(PATHS, [2, 4, 4, 4], strict=True)))
    with pytest.raises(UnsupportedAdapterError, match="has rank 4, more than 3"):
        converted(source, tmp_path / "out", pad=3)
    for wrong in ({"to": "onnx"}, {"dtype": "int8"}, {"pad": -1}):
        with pytest.raises(UsageError):
            converted(source, tmp_path / "out", **wrong)


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path):
    source, _ = peft_folder(tmp_path / "in", dict.fromkeys(PATHS, 4), lora_alpha=1e7)
    with pytest.raises(s3lora.OutputError, match="does not fit into float16"):
        converted(source, tmp_path / "out", bake=True, dtype="float16")
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, updates = peft_folder(tmp_path / "in", dict(zip(PATHS, [2, 4, 4, 4], strict=True)), use_rslora=True)
    done = call(capsys, "convert", source, "--to", "peft", "--bake-scaling", "--pad-rank", "-o", tmp_path / "out")
    assert done.status == 0, done.err
    assert "largest relative difference of an update: " in done.out
    same(dense(tmp_path / "out"), updates)
    with pytest.raises(s3lora.AdapterFileError, match="was converted, which cannot be undone"):
        s3lora.read_provenance(tmp_path / "out")
    again = call(capsys, "convert", source, "--to", "peft", "-o", tmp_path / "out")
    assert again.status == 2
    assert "exists and is not empty" in again.err


@pytest.mark.parametrize("bake", [False, True])
def test_mlx_has_one_rank_and_one_scale(tmp_path: Path, bake: bool):
    source, updates = peft_folder(tmp_path / "in", dict(zip(PATHS, [2, 4, 4, 3], strict=True)), use_rslora=True)
    record = converted(source, tmp_path / "mlx", "mlx", bake=bake)
    assert record.difference < 1e-6
    config = json.loads((tmp_path / "mlx/adapter_config.json").read_text())
    assert config["lora_parameters"] == {"dropout": 0.0, "keys": ["self_attn.q_proj", "self_attn.v_proj"],
                                         "rank": 4, "scale": 1.0}  # fmt: skip
    tensors = stored(tmp_path / "mlx/adapters.safetensors")
    for path, update in updates.items():
        found = (tensors[f"{path}.lora_a"].astype(np.float64) @ tensors[f"{path}.lora_b"]).T
        assert np.linalg.norm(found - update) < 1e-6 * np.linalg.norm(update)
    converted(tmp_path / "mlx", tmp_path / "back")
    same(dense(tmp_path / "back"), updates)


def test_experts_are_stacked_for_mlx_and_one_each_for_peft(tmp_path: Path):
    ranks = {f"model.layers.0.mlp.experts.{i}.up_proj": 4 for i in range(3)}
    source, updates = peft_folder(tmp_path / "in", ranks)
    assert converted(source, tmp_path / "mlx", "mlx").difference == 0
    tensors = stored(tmp_path / "mlx/adapters.safetensors")
    name = "model.layers.0.mlp.switch_mlp.up_proj"
    assert tensors[f"{name}.lora_a"].shape == (3, 4, 20)
    scale = json.loads((tmp_path / "mlx/adapter_config.json").read_text())["lora_parameters"]["scale"]
    for i, update in enumerate(updates.values()):
        found = scale * tensors[f"{name}.lora_b"][i].astype(np.float64) @ tensors[f"{name}.lora_a"][i]
        assert np.linalg.norm(found - update) < 1e-6 * np.linalg.norm(update)
    converted(tmp_path / "mlx", tmp_path / "back")
    same(dense(tmp_path / "back"), updates)
    few, _ = peft_folder(tmp_path / "few", dict.fromkeys(list(ranks)[1:], 4))
    with pytest.raises(UnsupportedAdapterError, match="of which others have no update"):
        converted(few, tmp_path / "none", "mlx")


KOHYA = {
    "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0":
        "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0",
    "lora_te_text_model_encoder_layers_3_mlp_fc1": "text_encoder.text_model.encoder.layers.3.mlp.fc1",
    "lora_unet_up_blocks_1_resnets_2_conv1": "unet.up_blocks.1.resnets.2.conv1",
}  # fmt: skip


def kohya_file(path: Path) -> UPDATE:
    """Write a file of kohya's with another alpha a module, a convolution among them; return its updates."""
    tensors, updates = {}, {}
    for seed, name in enumerate(KOHYA):
        a, b = factors(12, 18, 4, seed=seed)
        updates[name] = (seed + 3) / 4 * b.astype(np.float64) @ a
        conv = "conv" in name
        tensors[f"{name}.lora_down.weight"] = a.reshape(4, 2, 3, 3) if conv else a
        tensors[f"{name}.lora_up.weight"] = b.reshape(12, 4, 1, 1) if conv else b
        tensors[f"{name}.alpha"] = np.array(float(seed + 3), np.float32)
    write_safetensors(path, tensors)
    return updates


def test_kohya_becomes_diffusers_and_comes_back(tmp_path: Path):
    updates = kohya_file(tmp_path / "x.safetensors")
    assert converted(tmp_path / "x.safetensors", tmp_path / "d", "diffusers").difference == 0
    tensors = stored(tmp_path / "d/pytorch_lora_weights.safetensors")
    assert {name for name in tensors if "lora_A" in name} == {f"{new}.lora_A.weight" for new in KOHYA.values()}
    assert tensors["unet.up_blocks.1.resnets.2.conv1.lora_A.weight"].shape == (4, 2, 3, 3)
    raw = (tmp_path / "d/pytorch_lora_weights.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    told = json.loads(header["__metadata__"]["lora_adapter_metadata"])
    for old, new in KOHYA.items():
        model, _, path = new.partition(".")
        alpha = told[f"{model}.alpha_pattern"].get(path, told[f"{model}.lora_alpha"])
        a, b = tensors[f"{new}.lora_A.weight"].reshape(4, -1), tensors[f"{new}.lora_B.weight"].reshape(12, -1)
        found = alpha / 4 * b.astype(np.float64) @ a
        assert np.linalg.norm(found - updates[old]) < 1e-6 * np.linalg.norm(updates[old])
    assert converted(tmp_path / "d", tmp_path / "k", "kohya").difference == 0
    before, after = stored(tmp_path / "x.safetensors"), stored(tmp_path / "k/lora.safetensors")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_kohya_baked(tmp_path: Path):
    updates = kohya_file(tmp_path / "x.safetensors")
    converted(tmp_path / "x.safetensors", tmp_path / "k", "kohya", bake=True, pad=6)
    tensors = stored(tmp_path / "k/lora.safetensors")
    for name, update in updates.items():
        a, b = (tensors[f"{name}.lora_{half}.weight"] for half in ("down", "up"))
        assert tensors[f"{name}.alpha"] == len(a) == 6
        found = b.reshape(12, 6).astype(np.float64) @ a.reshape(6, -1)
        assert np.linalg.norm(found - update) < 1e-6 * np.linalg.norm(update)


def test_two_models_are_too_many_for_peft(tmp_path: Path):
    kohya_file(tmp_path / "x.safetensors")
    with pytest.raises(UnsupportedAdapterError, match="text_encoder and unet"):
        converted(tmp_path / "x.safetensors", tmp_path / "out")


@pytest.mark.parametrize("to", ["kohya", "diffusers", "mlx", "gguf"])
def test_what_is_no_plain_lora_is_refused_by_name(tmp_path: Path, to: str):
    with pytest.raises(UnsupportedAdapterError, match=r"layers\.0\.self_attn\.q_proj is VeRA"):
        converted(peft_adapter(tmp_path / "vera", "vera"), tmp_path / "out", to)
    source, _ = peft_folder(tmp_path / "head", dict.fromkeys(PATHS, 4))
    tensors = stored(source / "adapter_model.safetensors")
    magnitude = {f"{PREFIX}{PATHS[1]}.lora_magnitude_vector": np.ones(12, np.float32)}
    write_safetensors(source / "adapter_model.safetensors", {**tensors, **magnitude})
    why = "does not begin with a model" if to == "kohya" else f"{PATHS[1]} has a DoRA magnitude"
    with pytest.raises(UnsupportedAdapterError, match=why):
        converted(source, tmp_path / "out", to)
    head = {f"{PREFIX}score.weight": np.ones((2, 20), np.float32)}
    write_safetensors(source / "adapter_model.safetensors", {**tensors, **head})
    with pytest.raises(UnsupportedAdapterError, match=r"score\.weight is no part of LoRA"):
        converted(source, tmp_path / "out", to)
    if to == "mlx":
        record = converted(source, tmp_path / "out", to, drop=["heads", "other"])
        assert record.dropped == (f"{PREFIX}score.weight",)
    elif to != "gguf":
        with pytest.raises(UnsupportedAdapterError, match="does not begin with a model"):
            converted(source, tmp_path / "out", to, drop=["all"])


NAMES = {"q_proj": "attn_q", "v_proj": "attn_v"}


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("bake", [False, True])
def test_gguf(tmp_path: Path, kind: str, bake: bool):
    source, updates = peft_folder(tmp_path / "in", dict(zip(PATHS, [2, 4, 4, 3], strict=True)), use_rslora=True)
    base = {"model_type": kind, "num_attention_heads": 3, "num_key_value_heads": 1}
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text(json.dumps(base))
    record = converted(source, tmp_path / "out", "gguf", bake=bake, base=tmp_path / "base")
    assert record.difference < 1e-6
    keys, tensors = gguf_content(tmp_path / "out/adapter.gguf")
    assert (keys["general.architecture"], keys["general.type"], keys["adapter.type"]) == (kind, "adapter", "lora")
    for path, update in updates.items():
        name = f"blk.{path.split('.')[2]}.{NAMES[path.rpartition('.')[2]]}.weight"
        a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"].astype(np.float64)
        found = keys["adapter.lora.alpha"] / len(a) * b @ a
        if kind == "llama" and "q_proj" in path:  # of 4 rows a head: 0 and 2 are a pair, 1 and 3
            found = found.reshape(3, 4, -1)[:, [0, 2, 1, 3]].reshape(12, -1)
        assert np.linalg.norm(found - update) < 1e-6 * np.linalg.norm(update), path
    converted(tmp_path / "out", tmp_path / "back")
    same(dense(tmp_path / "back"), updates)


def test_rows_in_pairs_need_the_heads_of_the_base(tmp_path: Path):
    """llama.cpp's own converter writes no heads into an adapter: without them, q and k would be of another order."""
    update = {half: one.astype(np.float32) for half, one in zip("ab", factors(12, 20, 4, seed=3), strict=True)}
    pairs = update["b"].reshape(3, 2, 2, 4).swapaxes(1, 2).reshape(12, 4)
    tensors = {"blk.0.attn_q.weight.lora_a": update["a"], "blk.0.attn_q.weight.lora_b": pairs}
    (tmp_path / "in").mkdir()
    (tmp_path / "in/adapter.gguf").write_bytes(gguf_bytes(tensors))
    for to in ("peft", "mlx"):
        with pytest.raises(UnsupportedAdapterError, match=r"q and k in pairs of each head.*base="):
            converted(tmp_path / "in", tmp_path / "out", to)
    config = tmp_path / "config.json"
    config.write_text("{}")
    with pytest.raises(UnsupportedAdapterError, match="how many heads"):
        converted(tmp_path / "in", tmp_path / "out", base=config)
    config.write_text(json.dumps({"model_type": "llama", "num_attention_heads": 3}))
    assert converted(tmp_path / "in", tmp_path / "out", base=config).difference == 0
    found = dense(tmp_path / "out")["model.layers.0.self_attn.q_proj"]
    np.testing.assert_allclose(found, 2.0 * update["b"].astype(float) @ update["a"].astype(float), rtol=1e-6)
    converted(tmp_path / "in", tmp_path / "again", "gguf", base=config)
    np.testing.assert_array_equal(gguf_content(tmp_path / "again/adapter.gguf")[1]["blk.0.attn_q.weight.lora_b"], pairs)


@pytest.mark.parametrize(("kind", "turned"), [("llama", True), ("qwen2", False), (None, None)])
def test_rows_that_may_lie_in_pairs(tmp_path: Path, kind: str | None, turned: bool | None):
    a, b = factors(12, 20, 4, seed=3)
    keys = [f"layers.0.attn.q_proj.lora_{half}.weight" for half in "ab"]
    write_safetensors(tmp_path / "x.safetensors", dict(zip(keys, (a, b), strict=True)))
    config = tmp_path / "base.json"
    config.write_text(json.dumps({"num_attention_heads": 3, "model_type": kind}))
    with pytest.raises(UnsupportedAdapterError, match="may have the rows of q and k in pairs"):
        converted(tmp_path / "x.safetensors", tmp_path / "out")
    if turned is None:
        return
    converted(tmp_path / "x.safetensors", tmp_path / "out", base=config)
    rows = b.reshape(3, 2, 2, 4).swapaxes(1, 2).reshape(12, 4) if turned else b
    found = stored(tmp_path / "out/adapter_model.safetensors")[f"{PREFIX}model.layers.0.self_attn.q_proj.lora_B.weight"]
    np.testing.assert_array_equal(found, rows)


def test_gguf_needs_its_base(tmp_path: Path):
    source, _ = peft_folder(tmp_path / "in", dict.fromkeys(PATHS, 4))
    with pytest.raises(UsageError, match="give base="):
        converted(source, tmp_path / "out", "gguf")
    config = tmp_path / "config.json"
    for kind in ("t5", ["llama"], None):
        config.write_text(json.dumps({"model_type": kind}))
        with pytest.raises(UsageError, match="is not written for llama"):
            converted(source, tmp_path / "out", "gguf", base=config)
    config.write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UnsupportedAdapterError, match="which 0 heads do not share"):
        converted(source, tmp_path / "out", "gguf", base=config)
    with pytest.raises(UsageError, match="no use to peft"):
        converted(source, tmp_path / "out", base=config)


@pytest.mark.parametrize("loader", ["sglang", "llamacpp", "vllm=0.10.0", "peft"])
@pytest.mark.parametrize("fault", ["scaling", "name", "wrapper"])
def test_the_command_that_a_check_names_mends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], loader: str, fault: str
):
    ranks = [2, 4, 4, 4] if fault == "scaling" else [4] * 4
    fields = {"base_model_name_or_path": "some/base", "use_rslora": fault == "scaling"}
    source, updates = peft_folder(tmp_path / "in", dict(zip(PATHS, ranks, strict=True)), **fields)
    file = source / "adapter_model.safetensors"
    if fault != "scaling":
        spell = {"name": lambda name: name.replace(".weight", ".style.weight"), "wrapper": "_orig_mod.{}".format}[fault]
        write_safetensors(file, {spell(name): values for name, values in stored(file).items()})
    place, steps = source, 0
    while (verdict := s3lora.check(place, loaders=[loader]).loaders[0]).verdict != "same":
        command = next(reason.command for reason in verdict.reasons if reason.command)
        place, last, steps = tmp_path / str(steps), place, steps + 1
        assert steps < 4, verdict
        words = [{"PATH": last, "OUT": place}.get(word, word) for word in command.split()[1:]]
        assert call(capsys, *words).status == 0, command
    if steps:
        same(dense(place), updates)
    else:  # these read it as it is
        assert (loader, fault) in {("peft", "scaling"), ("sglang", "wrapper"), ("sglang", "name")}


def test_what_is_refused_alike_is_told_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = [f"model.layers.{i}.self_attn.q_proj" for i in range(50)]
    source, _ = peft_folder(tmp_path / "in", dict.fromkeys(paths, 2))
    done = call(capsys, "convert", source, "--to", "kohya", "-o", tmp_path / "out")
    assert done.status == 2
    assert not (tmp_path / "out").exists()
    assert done.err.startswith(f"s3lora: {source}: cannot be written for kohya: {paths[0]} does not begin with a model")
    assert done.err.count("does not begin") == 1
    assert f"(and 49 more: {paths[1]}, {paths[2]}, {paths[3]}, …); choose another --to" in done.err
