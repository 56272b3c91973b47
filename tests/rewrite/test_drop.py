"""Parts that leave besides modules, names without wrappers, and what is said of what comes along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import s3lora
from s3lora import (
    AdapterFileError,
    NothingToAuditError,
    UnsupportedAdapterError,
    UsageError,
    open_adapter,
    prune,
    read_provenance,
    scan,
    write_pruned,
)
from s3lora.adapter.inventory.inventory import inventory_of
from s3lora.choose.select import choose_none
from s3lora.cli.main import cli
from tests.adapter.test_write import sharded
from tests.command import call
from tests.planning import PREFIX, config_of, prune_to, tensors_of
from tests.support import make_adapter, shared, write_safetensors

Q0, Q1 = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"
SHAPE = (8, 8, 2)
ONES = np.ones((8, 8), np.float32)
EVERYTHING = {
    "lm_head.weight": ONES,
    f"{Q0}.lora_B.bias": ONES[0],
    "model.embed_tokens.token_adapter.trainable_tokens_delta": ONES[:2],
    "model.norm.weight": ONES[0],
    "odd": ONES[0],
}
CONFIG = {"modules_to_save": ["lm_head"], "lora_bias": True, "trainable_token_indices": [1, 2]}
FACTORS = {f"{PREFIX}{path}.lora_{side}.weight" for path in (Q0, Q1) for side in "AB"}


def everything(folder: Path, **config: Any) -> Path:
    """Write an adapter that holds a tensor of each part."""
    return make_adapter(folder, {Q0: SHAPE, Q1: SHAPE}, heads=EVERYTHING, config={**CONFIG, **config})


@pytest.mark.parametrize(
    ("drop", "gone", "after"),
    [
        (["heads"], ["lm_head.weight"], {"modules_to_save": None}),
        (["bias"], [f"{Q0}.lora_B.bias"], {"lora_bias": False}),
        (["tokens"], ["model.embed_tokens.token_adapter.trainable_tokens_delta"], {"trainable_token_indices": None}),
        (["other"], ["model.norm.weight", "odd"], {}),
        (["other", "heads"], ["lm_head.weight", "model.norm.weight", "odd"], {"modules_to_save": None}),
        (["all"], [*EVERYTHING], dict.fromkeys(CONFIG) | {"lora_bias": False}),
    ],
)
def test_the_parts_and_their_configuration(tmp_path: Path, drop: list[str], gone: list[str], after: dict[str, Any]):
    source = everything(tmp_path / "a")
    before = tensors_of(source)
    out = prune_to(source, tmp_path / "b", [], drop=drop)
    names = {f"{PREFIX}{name}" for name in gone}
    assert tensors_of(out).keys() == before.keys() - names
    assert config_of(out) == {**config_of(source), **after}
    record = read_provenance(out)
    assert (set(record.drop), set(record.dropped)) == ({*drop}, names)
    assert s3lora.restore(out, source, tmp_path / "c") == ()
    for file in source.iterdir():
        assert (tmp_path / "c" / file.name).read_bytes() == file.read_bytes()


def test_some_back_leaves_the_parts_out(tmp_path: Path):
    source = everything(tmp_path / "a")
    out = prune_to(source, tmp_path / "b", [Q0], drop=["all"])
    assert s3lora.restore(out, source, tmp_path / "c", modules=[Q0]) == (Q0,)
    assert tensors_of(tmp_path / "c").keys() == FACTORS
    assert (read_provenance(tmp_path / "c").modules, read_provenance(tmp_path / "c").drop) == ((), ("all",))
    s3lora.restore(out, source, tmp_path / "d")
    assert tensors_of(tmp_path / "d").keys() == tensors_of(source).keys()


def test_a_classifier_without_its_head_is_of_no_task(tmp_path: Path):
    heads = {"score.weight": ONES}
    source = make_adapter(tmp_path / "a", {Q0: SHAPE}, heads=heads, config={"task_type": "SEQ_CLS"})
    out = prune_to(source, tmp_path / "b", [], drop=["heads"])
    assert config_of(out)["task_type"] is None
    assert any("`task_type` SEQ_CLS" in note for note in read_provenance(out).warnings)
    kept = {**heads, "model.embed_tokens.weight": ONES}
    source = make_adapter(tmp_path / "c", {Q0: SHAPE}, heads=kept, config={"task_type": "SEQ_CLS"})
    assert config_of(prune_to(source, tmp_path / "d", [], drop=["other"]))["task_type"] == "SEQ_CLS"


@pytest.mark.parametrize("loader", ["vllm", "llamacpp"])
def test_a_loader_that_takes_lora_alone_takes_what_is_left(tmp_path: Path, loader: str):
    source = everything(tmp_path / "a")
    with pytest.raises(UnsupportedAdapterError):
        prune_to(source, tmp_path / "b", [Q0], loader=loader)
    assert tensors_of(prune_to(source, tmp_path / "b", [Q0], loader=loader, drop=["all"])).keys() < FACTORS


def test_a_layer_whose_base_weight_is_dropped_can_leave(tmp_path: Path):
    source = make_adapter(tmp_path / "a", {Q0: SHAPE, Q1: SHAPE}, heads={f"{Q0}.base_layer.weight": ONES})
    assert read_provenance(prune_to(source, tmp_path / "b", [Q0])).zeroed
    out = prune_to(source, tmp_path / "c", [Q0], drop=["other"])
    assert not read_provenance(out).zeroed
    assert not any(Q0 in name for name in tensors_of(out))


def test_base_weights_do_not_come_along_without_a_word(tmp_path: Path):
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(9)]
    source = make_adapter(tmp_path / "a", {Q0: SHAPE, Q1: SHAPE}, heads=dict.fromkeys(names, ONES))
    notes = read_provenance(prune_to(source, tmp_path / "b", [Q0])).warnings
    said = next(note for note in notes if "--drop other" in note)
    assert "9 tensors take the place of weights of the base model" in said
    assert all(name in said for name in names[:8])
    assert "and 1 more" in said
    for drop, paths in ((["other"], [Q0]), (["all"], [])):
        notes = read_provenance(prune_to(source, tmp_path / "-".join(drop), paths, drop=drop)).warnings
        assert not any("--drop other" in note for note in notes)


def test_a_weight_that_peft_passes_over_is_not_told(tmp_path: Path):
    """PEFT calls the weight of an adapted layer `base_layer.weight`; once the layer is none, this one would be read."""
    source = make_adapter(tmp_path / "a", {Q0: SHAPE, Q1: SHAPE}, heads={f"{Q0}.weight": ONES})
    kept, gone = prune_to(source, tmp_path / "b", [Q1]), prune_to(source, tmp_path / "c", [Q0])
    assert f"{PREFIX}{Q0}.weight" in tensors_of(kept)
    assert f"{PREFIX}{Q0}.weight" not in tensors_of(gone)
    assert not any("--drop" in note for out in (kept, gone) for note in read_provenance(out).warnings)


def test_refusals(tmp_path: Path):
    plain = make_adapter(tmp_path / "a", {Q0: SHAPE, Q1: SHAPE})
    with pytest.raises(NothingToAuditError, match="the file holds no heads, all"):
        prune_to(plain, tmp_path / "b", [], drop=["heads", "all"])
    with pytest.raises(UsageError, match="nothing called norms can be dropped"):
        prune_to(plain, tmp_path / "b", [Q0], drop=["norms"])
    out = prune_to(plain, tmp_path / "b", [Q0], drop=["heads"])
    assert "--drop heads: the file holds nothing of it" in read_provenance(out).warnings


def test_parts_leave_an_adapter_that_cannot_be_pruned(tmp_path: Path):
    """Without a module that goes, the changed base weights of PiSSA stay right."""
    source = everything(tmp_path / "a", init_lora_weights="pissa")
    assert tensors_of(prune_to(source, tmp_path / "b", [], drop=["all"])).keys() == FACTORS
    with pytest.raises(UnsupportedAdapterError):
        prune_to(source, tmp_path / "c", [Q0], drop=["all"])


def renamed(folder: Path, name: Any, **keywords: Any) -> Path:
    """Write an adapter with a head, and give its keys the names that `name` makes."""
    source = make_adapter(folder, {Q0: SHAPE, Q1: SHAPE}, config={"modules_to_save": ["lm_head"]}, **keywords)
    tensors = {name(key): value for key, value in tensors_of(source).items()}
    write_safetensors(source / "adapter_model.safetensors", tensors, {"format": "pt"})
    return source


def test_two_names_that_become_one_are_refused(tmp_path: Path):
    heads = {"lm_head.weight": ONES, "_orig_mod.lm_head.weight": ONES}
    source = renamed(tmp_path / "a", lambda name: name.replace(".layers.", "._orig_mod.layers."), heads=heads)
    with pytest.raises(AdapterFileError, match="is the same tensor as"):
        prune_to(source, tmp_path / "b", [Q0])
    assert not (tmp_path / "b").exists()
    assert tensors_of(prune_to(source, tmp_path / "b", [], drop=["heads"])).keys() == FACTORS


def test_what_only_looks_wrapped_keeps_its_name(tmp_path: Path):
    """Its modules are named as PEFT names them, so that a tensor with another name is not PEFT's."""
    heads = {"model.norm.weight": ONES[0]}
    stray = {f"{PREFIX}model.norm.weight": "_orig_mod.model.norm.weight"}
    source = renamed(tmp_path / "a", lambda name: stray.get(name, name), heads=heads)
    assert "_orig_mod.model.norm.weight" in tensors_of(prune_to(source, tmp_path / "b", [Q0]))


def test_names_without_peft_keep_what_they_have(tmp_path: Path):
    source = renamed(tmp_path / "a", lambda name: f"module.{name.removeprefix(PREFIX)}")
    (source / "adapter_config.json").unlink()
    assert tensors_of(prune_to(source, tmp_path / "b", [])).keys() == {name.removeprefix(PREFIX) for name in FACTORS}


def test_shards_and_their_index_get_the_new_names(tmp_path: Path):
    source = sharded(tmp_path / "a", [Q0, Q1])
    for file in source.glob("*.safetensors"):
        tensors = tensors_of(source)
        own = {f"_orig_mod.{name}": value for name, value in tensors.items() if name in _names(file)}
        write_safetensors(file, own, {"format": "pt"})
    index = source / "adapter_model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"] = {f"_orig_mod.{name}": file for name, file in table["weight_map"].items()}
    index.write_text(json.dumps(table))
    out = prune_to(source, tmp_path / "b", [Q0])
    kept = {name for name in FACTORS if Q0 not in name}
    assert json.loads((out / index.name).read_text())["weight_map"].keys() == tensors_of(out).keys() == kept


def _names(file: Path) -> set[str]:
    raw = file.read_bytes()
    return set(json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]))


def test_a_module_of_several_parameters_stays_as_zeros(tmp_path: Path):
    """Which of them a pair of factors belongs to, nothing tells, so that none can leave `target_parameters`."""
    gates = [f"model.layers.{i}.mlp.gate" for i in range(2)]
    config = {"target_modules": ["q_proj"], "target_parameters": ["mlp.gate.weight", "mlp.gate.scale"]}
    source = make_adapter(tmp_path / "a", dict.fromkeys([*gates, Q0], SHAPE), config=config)
    out = prune_to(source, tmp_path / "b", [gates[0], Q0])
    assert read_provenance(out).zeroed.keys() == {gates[0]}
    assert config_of(out)["target_parameters"] == config["target_parameters"]
    assert not tensors_of(out)[f"{PREFIX}{gates[0]}.lora_B.weight"].any()


def test_an_older_record_is_read(tmp_path: Path):
    source = everything(tmp_path / "a")
    out = prune_to(source, tmp_path / "b", [Q0])
    record = json.loads((out / "s3lora.json").read_text())
    del record["drop"], record["dropped"]
    (out / "s3lora.json").write_text(json.dumps(record))
    assert read_provenance(out).dropped == ()
    assert s3lora.restore(out, source, tmp_path / "c") == (Q0,)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


def test_on_the_command_line_it_prunes_no_module_of_itself(tmp_path: Path):
    source = everything(tmp_path / "a")
    done = run("prune", source, "-o", tmp_path / "b", "--drop", "heads", "--drop", "bias")
    assert done.exit_code == 0
    assert "2 other tensors dropped (heads, bias)" in done.stdout.replace("\n", " ")
    assert tensors_of(tmp_path / "b").keys() >= FACTORS
    back = run("restore", tmp_path / "b", "--from", source, "-o", tmp_path / "c")
    assert "0 modules and 2 other tensors back" in back.stdout.replace("\n", " ")
    document = run("restore", tmp_path / "b", "--from", source, "-o", tmp_path / "d", "--format", "json").stdout
    assert json.loads(document)["tensors"] == [*read_provenance(tmp_path / "b").dropped]
    for option in (("--top", 1), ("--mode", "zero"), ("--index", "weighted-ssi"), ("--only", "layers")):
        out = tmp_path / option[0]
        assert run("prune", source, "-o", out, "--drop", "all", *option).exit_code == 0
        assert len(read_provenance(out).modules) == 1
    assert run("prune", source, "-o", tmp_path / "e", "--drop", "heads", "--top", 0).exit_code == 0
    with pytest.raises(NothingToAuditError):
        run("prune", tmp_path / "b", "-o", tmp_path / "f", "--drop", "heads")


def test_where_no_module_could_be_chosen_parts_are_dropped_all_the_same(tmp_path: Path):
    source = make_adapter(tmp_path / "a", {Q0: SHAPE}, heads=EVERYTHING, config=CONFIG, zero_b=[Q0])
    assert run("prune", source, "-o", tmp_path / "b", "--drop", "all").exit_code == 0
    with open_adapter(source) as adapter:
        measured = scan(adapter)
        record, _ = write_pruned(prune(adapter, choose_none(measured), drop=["all"]), measured, tmp_path / "c")
    assert (record.plan.chosen, record.plan.candidates) == ((), 1)


def test_wrappers_alone_are_enough_to_write(tmp_path: Path):
    source = renamed(tmp_path / "a", lambda name: f"_orig_mod.{name}", heads={"lm_head.weight": ONES})
    done = run("prune", source, "-o", tmp_path / "b", "--top", 0)
    assert done.exit_code == 0
    assert "5 keys held `_orig_mod`, which comes from torch.compile" in done.stdout.replace("\n     ", " ")
    assert tensors_of(tmp_path / "b").keys() == {*FACTORS, f"{PREFIX}lm_head.weight"}
    with open_adapter(tmp_path / "b") as adapter:
        assert not inventory_of(adapter).dead


@pytest.mark.parametrize("name", ["pfx_orig_mod", "pfx_ddp_module", "pfx_fsdp_wrap", "pfx_double_prefix", "q_noprefix"])
def test_a_case_of_modules_that_no_loader_applies_is_mended(tmp_path: Path, name: str):
    source = shared() / "cases" / name
    with open_adapter(source) as adapter:
        paths = [module.path for module in adapter.modules]
        assert set(inventory_of(adapter).dead) == {*paths}
    with open_adapter(prune_to(source, tmp_path / "b", paths[:1])) as adapter:
        assert [module.path for module in adapter.modules] == paths[1:]
        assert not inventory_of(adapter).dead


@pytest.mark.parametrize("name", ["mts_full", "full_weights_peft_loads", "stray_full_weights", "base_weights_inside"])
def test_a_case_of_full_weights_is_lora_alone_once_all_is_dropped(tmp_path: Path, name: str):
    source = shared() / "cases" / name
    out = prune_to(source, tmp_path / "b", [], drop=["all"])
    before = tensors_of(source)
    assert tensors_of(out).keys() == {tensor for tensor in before if ".lora_" in tensor} < before.keys()


def test_a_case_with_code_is_left_with_none(tmp_path: Path):
    source = shared() / "cases" / "code_beside"
    out = prune_to(source, tmp_path / "b", ["model.layers.0.self_attn.q_proj"])
    with open_adapter(out) as adapter:
        files = inventory_of(adapter).files
    assert [file.path for file in files] == ["adapter_config.json", "adapter_model.safetensors", "s3lora.json"]
    assert not [name for file in files for name in file.runs]


def test_what_is_converted_passes_the_gate_that_its_source_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The finding says so: `s3lora convert` writes the same updates without such files."""
    source, rules = shared() / "cases" / "code_beside", ("-q", "--fail-on", "code", "--fail-on", "pickles")
    assert call(capsys, "scan", source, *rules).status == 1
    assert call(capsys, "convert", source, "--to", "peft", "-o", tmp_path / "clean").status == 0
    assert call(capsys, "scan", tmp_path / "clean", *rules).status == 0


def test_a_restored_configuration_says_that_it_points_to_code_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = shared() / "cases" / "code_beside"
    assert call(capsys, "prune", source, "-o", tmp_path / "p", "--top", "1").status == 0
    told = call(capsys, "restore", tmp_path / "p", "--from", source, "-o", tmp_path / "r")
    note = "the configuration is the original's, and points to code: auto_map: modeling_evil.Evil, auto_mapping"
    assert f"note {note}" in " ".join(told.out.split())
    told = call(capsys, "restore", tmp_path / "p", "--from", source, "-o", tmp_path / "s", "--format", "json")
    assert [one.startswith(note) for one in json.loads(told.out)["notes"]] == [True]
