"""What a check says of names: those of files that loaders do not look for, and those of modules that say nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import s3lora
from s3lora.cli.main import run
from tests.command import call
from tests.compat.test_check import adapter
from tests.support import make_adapter

SERVERS = ("peft", "vllm", "sglang", "llamacpp")


@pytest.mark.parametrize("loader", SERVERS)
def test_a_file_is_held_to_its_name_as_its_folder_is(tmp_path: Path, loader: str) -> None:
    folder = adapter(tmp_path)
    good = folder / "adapter_model.safetensors"
    assert s3lora.check(good, loaders=[loader])[loader].verdict == "same"
    other = good.rename(folder / "step200.safetensors")
    found = {str(place): s3lora.check(place, loaders=[loader])[loader] for place in (folder, other)}
    takes_any = loader == "sglang"
    assert [one.verdict for one in found.values()] == ["same" if takes_any else "fails"] * 2
    if not takes_any:
        what = found[str(other)].reasons[0].what
        assert "is called step200.safetensors, and of its folder the loader finds no adapter_model.safetensors" in what


def test_the_command_of_a_wrong_name_ends_in_a_right_one(tmp_path: Path) -> None:
    other = (adapter(tmp_path) / "adapter_model.safetensors").rename(tmp_path / "adapter" / "last.safetensors")
    command = s3lora.check(other, loaders=["vllm"])["vllm"].reasons[0].command
    assert command == "s3lora convert PATH --loader vllm -o OUT"
    words = command.replace("PATH", str(other)).replace("OUT", str(tmp_path / "out")).split()[1:]
    assert run(words) == 0
    assert s3lora.check(tmp_path / "out", loaders=["vllm"])["vllm"].verdict == "same"


def test_the_gate_sees_the_name_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = (adapter(tmp_path) / "adapter_model.safetensors").rename(tmp_path / "adapter" / "last.safetensors")
    assert call(capsys, "scan", other, "--fail-on", "loader:vllm").status == 1


def test_a_command_for_one_release_is_told_where_not_all_would_load_it(tmp_path: Path) -> None:
    folder = adapter(tmp_path, lora_bias=False, corda_config=None)  # at which PEFT 0.13 stops
    (folder / "adapter_model.safetensors").rename(folder / "last.safetensors")
    command = s3lora.check(folder, loaders=["peft"])["peft"].reasons[0].command
    assert command == "s3lora convert PATH --loader peft=0.21.2 -o OUT"


@pytest.mark.parametrize("names", [("w_000", "w_001"), ("unet:0", "text_encoder:1")])
def test_numbers_are_no_names_of_modules(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = make_adapter(tmp_path / "numbered", dict.fromkeys(names, (8, 8, 2)))
    made = s3lora.check(folder)
    assert {one.verdict for one in made.loaders} == {"unknown"}
    what = f"has modules called {', '.join(sorted(names))}, and no model is known to have such names"
    assert all(what in [reason.what for reason in one.reasons] for one in made.loaders)
    assert all(reason.command is None for one in made.loaders for reason in one.reasons)


def test_heads_and_kohyas_names_are_names(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "head", {"lm_head": (8, 8, 2), "model.layers.0.self_attn.q_proj": (8, 8, 2)})
    assert s3lora.check(folder, loaders=["peft"])["peft"].verdict == "same"


def test_commands_are_never_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = adapter(tmp_path)
    deep = tmp_path / ("long-" * 12) / "adapter"
    shutil.copytree(folder, deep)
    (deep / "adapter_model.safetensors").rename(deep / "last.safetensors")
    text = call(capsys, "check", deep, "--loader", "vllm").out
    joined = text.replace(" \\\n", " ")
    assert f"s3lora convert {deep}" in " ".join(joined.split())
    lines = [line for line in text.splitlines() if "s3lora convert" in line or "--loader vllm" in line]
    assert all(line.startswith(" " * 8) for line in lines)
    assert lines[0].endswith("\\")
