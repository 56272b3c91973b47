"""The block of the documentation that gives a switched model to Inspect, run as it stands there, on the tiny model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.pages import DOCS, blocks
from tests.tiny_adapters import MODULES, tiny_adapter

pytest.importorskip("inspect_ai", reason="inspect-ai is not installed")


def test_inspect_is_answered_by_whatever_is_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Run as it stands; for `demo` and the adapter, the tiny ones are put in their place."""
    [block] = [one for one in blocks(DOCS / "harness.md", "python", slow=True) if "inspect_ai" in one.text]
    tiny_adapter(tiny, tmp_path / "my-adapter", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    source = block.source.replace('LocalModel("demo")', f"LocalModel({os.fspath(tiny)!r})")
    source = source.replace("adapter.modules[:30]", "adapter.modules[:3]")
    assert "modules[:30]" not in source
    source = source.replace("    print(log", "    logs.append(log)\n    print(log")
    logs: list[Any] = []
    names: dict[str, Any] = {"logs": logs}
    exec(compile(source, str(block.page), "exec"), names)
    assert [log.status for log in logs] == ["success"] * 3
    told = [log.samples[0].output.completion for log in logs]
    model, prompt = names["local"], names["Prompt"].ask("Name the capital of France.")
    expected = []
    for state in ((), (names["adapter"],), (names["adapter"], MODULES[:3])):
        model.use(*state)
        [(_, answer)] = model.generate([prompt], names["Decoding"](max_new_tokens=16))
        expected.append(answer.text)
    assert told == expected
    assert len(set(told)) == 3
