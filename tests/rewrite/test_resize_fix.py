"""What a refused `resize` says to do, and that it leads there: the command that it names is run."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import s3lora
from s3lora import UnsupportedAdapterError
from tests.command import call
from tests.forms import peft_adapter
from tests.rewrite.converting import converted
from tests.rewrite.test_convert_experts import base, fused


def refused(path: Path, out: Path) -> str:
    with pytest.raises(UnsupportedAdapterError, match="stored as one matrix each") as error:
        s3lora.resize(path, out, rank=1)
    assert not out.exists()
    return str(error.value.fix)


@pytest.mark.parametrize("kind", ["adalora", "qalora", "mlx", "gguf"])
def test_the_command_that_is_named_leads_there(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind in ("adalora", "qalora"):
        peft_adapter(tmp_path / "in", kind)
    else:
        fused(tmp_path / "fused")
        converted(tmp_path / "fused", tmp_path / "in", kind, base=base(tmp_path / "base"))
    named = refused(tmp_path / "in", tmp_path / "out").partition("s3lora ")[2]
    words = {"PATH": str(tmp_path / "in"), "OUT": str(tmp_path / "plain")}
    assert call(capsys, *(words.get(word, word) for word in shlex.split(named))).status == 0
    record, _ = s3lora.resize(tmp_path / "plain", tmp_path / "out", rank=1)
    assert {module.rank for module in record.modules} == {1}


@pytest.mark.parametrize("kind", ["loha", "lokr", "vera"])
def test_where_no_command_does_none_is_named(tmp_path: Path, kind: str) -> None:
    peft_adapter(tmp_path / "in", kind)
    assert "s3lora" not in refused(tmp_path / "in", tmp_path / "out")


def test_experts_that_peft_fused_need_the_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fused(tmp_path / "in")
    words = {"PATH": tmp_path / "in", "OUT": tmp_path / "plain", "FOLDER": base(tmp_path / "base")}
    named = refused(tmp_path / "in", tmp_path / "out").partition("s3lora ")[2]
    assert call(capsys, *(words.get(word, word) for word in shlex.split(named))).status == 0
    record, _ = s3lora.resize(tmp_path / "plain", tmp_path / "out", rank=1)
    assert {module.rank for module in record.modules} == {1}
