"""Results at a prompt: short, of a length, by path, and as plain values."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import s3lora
from s3lora.report.documents import to_json
from tests.support import make_adapter

PATHS = [f"model.layers.{i}.self_attn.q_proj" for i in range(3)]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [make_adapter(tmp_path / name, dict.fromkeys(PATHS, (8, 6, 2)), seed=i) for i, name in enumerate("ab")]


def test_what_a_prompt_shows(folders: list[Path]) -> None:
    scan = s3lora.scan(folders[0], "svd")
    ssi = [module.indices["ssi"] or 0.0 for module in scan]
    assert repr(scan).splitlines() == [
        "<Scan of a: 3 modules by svd",
        " LoRA of rank 2, layers 0 to 2: q_proj",
        f" ssi from {min(ssi):.4g} to {max(ssi):.4g}, median {sorted(ssi)[1]:.4g}",
        f" sharpest: {PATHS[ssi.index(max(ssi))]}, {max(ssi):.4g}",
        " warnings: none>",
    ]
    assert repr(scan.modules[0]) == f"<ModuleScan {PATHS[0]}: 8 × 6, rank 2, ssi {ssi[0]:.4g}>"
    assert repr(s3lora.select(scan, s3lora.Top(1))) == "<Plan: 1 of 3 modules, top 1 by ssi>"
    assert repr(s3lora.compare(folders)) == "<Comparison of 2 adapters: 3 modules, 3 of them in all>"
    assert repr(s3lora.compose(folders)) == "<Composition of 2 adapters: 3 modules>"
    with s3lora.open_adapter(folders[0]) as adapter:
        assert repr(adapter) == "<Adapter a: peft, 3 modules>"
        assert repr(adapter.modules[0]) == f"<LoraModule {PATHS[0]}: 8 × 6, rank 2, float32>"


def test_what_a_prompt_shows_of_what_is_made(folders: list[Path], tmp_path: Path) -> None:
    scan = s3lora.scan(folders[0])
    pruned = s3lora.prune(folders[0], s3lora.select(scan, s3lora.Top(1)))
    assert repr(pruned) == "<Pruned a: remove 1 module, for peft>"
    record, written = s3lora.write_pruned(pruned, scan, tmp_path / "pruned")
    assert repr(record) == "<Provenance: 1 removed>"
    assert repr(written) == "<Written: adapter_model.safetensors; 0 left behind>"
    converted = s3lora.convert(folders[0], "mlx")
    assert repr(converted) == "<Converted a: 3 modules to mlx>"
    assert repr(s3lora.write_converted(converted, tmp_path / "mlx")[0]).startswith("<ConversionRecord: ")
    assert repr(s3lora.resize(folders[0], tmp_path / "r", rank=1)[0]) == "<ResizeProvenance: 3 from rank 2 to 1>"


def test_a_path_is_opened_and_closed(folders: list[Path], tmp_path: Path) -> None:
    """Files stay open as long as a result reads from them, and no longer."""
    scan = s3lora.scan(folders[0])
    plan = s3lora.select(scan, s3lora.Top(1))

    def held() -> list[str]:
        names = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _is_open(number)]
        return [name for name in names if name.startswith(str(tmp_path))]

    for make in (lambda: s3lora.prune(folders[0], plan), lambda: s3lora.convert(folders[0], "mlx")):
        made = make()
        assert len(held()) == 1
        del made
        assert held() == []
    for wrong in (lambda: s3lora.prune(folders[0], plan, loader="x"), lambda: s3lora.convert(folders[0], "x")):
        with pytest.raises(s3lora.UsageError):
            wrong()
        assert held() == []


def _is_open(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def test_a_hostile_name_is_printable(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a\x1b[31m", dict.fromkeys(PATHS, (8, 6, 2)))
    assert "\x1b" not in repr(s3lora.scan(folder))


def test_records_by_path_and_in_order(folders: list[Path]) -> None:
    for result in (s3lora.scan(folders[0]), s3lora.compare(folders), s3lora.compose(folders)):
        assert len(result) == 3
        assert PATHS[0] in result
        assert result.modules[0] in result
        assert "elsewhere" not in result
        assert result.module(PATHS[1]) is result[PATHS[1]]
        assert [one.path for one in result] == PATHS
        assert [result[path] for path in PATHS] == list(result.modules)
        with pytest.raises(KeyError, match="elsewhere"):
            result["elsewhere"]


def test_json_reads_back_from_text_and_file(folders: list[Path], tmp_path: Path) -> None:
    for result in (s3lora.scan(folders[0]), s3lora.compare(folders), s3lora.compose(folders)):
        text = result.to_json()
        (tmp_path / "made.json").write_text(text)
        kind = type(result)
        for source in (text, text.encode(), tmp_path / "made.json", str(tmp_path / "made.json")):
            assert kind.from_json(source) == result
    with pytest.raises(s3lora.UsageError, match=r"no scan as JSON: Expected .*; give what Scan.to_json wrote$"):
        s3lora.Scan.from_json(s3lora.compare(folders).to_json())


def test_a_document_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3lora.measure.modules.LARGEST", 100)
    (tmp_path / "long.json").write_text("{" + " " * 100)
    with pytest.raises(s3lora.UsageError, match="larger than 100 bytes"):
        s3lora.Scan.from_json(tmp_path / "long.json")
    with pytest.raises(s3lora.UsageError, match="larger than 100 bytes"):
        s3lora.Scan.from_json("{" + " " * 100)


def test_plain_values_are_those_of_the_document(folders: list[Path]) -> None:
    for result in (s3lora.scan(folders[0]), s3lora.compare(folders), s3lora.compose(folders)):
        assert json.loads(json.dumps(result.to_dict())) == json.loads(to_json(result))
