"""One pass over the weights: every byte read once, what is hashed is what is given, and no memory that grows."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import AdapterFileError, open_adapter, scan
from s3lora.adapter import regular, stream, tensors
from s3lora.adapter.model import Adapter
from s3lora.adapter.stream import Stream
from tests.hostile import bad_files as bad
from tests.support import make_adapter, write_safetensors

SHAPES = {f"model.layers.{i}.q_proj": (12, 10, 3) for i in range(6)}


def read_all(adapter: Adapter) -> dict[str, tuple[Any, Any]]:
    found = {}
    with Stream(adapter) as passing:
        for module in passing:
            found[module.path] = module.A.array().copy(), module.B.array().copy()
            passing.done(module)
        assert passing.source().sha256 == hashlib.sha256(adapter.files[0].file.path.read_bytes()).hexdigest()
    return found


class Reads:
    """Which bytes were read."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ranges: list[tuple[int, int]] = []
        original = os.preadv

        def counted(descriptor: int, buffers: Any, offset: int) -> int:
            length = original(descriptor, buffers, offset)
            self.ranges.append((offset, length))
            return length

        patch.setattr(regular.os, "preadv", counted)

    def cover_once(self, size: int) -> bool:
        at = 0
        for offset, length in sorted(self.ranges):
            if offset != at:
                return False
            at += length
        return at == size


@pytest.mark.parametrize("chunk", [64, 1000, 1 << 20])
def test_every_byte_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(stream, "CHUNK", chunk)
    monkeypatch.setattr(regular, "CHUNK", chunk)
    folder = make_adapter(
        tmp_path / "a", SHAPES, heads={"base_model.model.score.weight": np.ones((50, 10), np.float32)}
    )
    with open_adapter(folder) as adapter:
        expected = {module.path: (module.A.array(), module.B.array()) for module in adapter.modules}
    with open_adapter(folder) as adapter:
        reads = Reads(monkeypatch)
        found = read_all(adapter)
        assert reads.cover_once(adapter.files[0].file.size)
    assert found.keys() == expected.keys()
    for path, (a, b) in expected.items():
        np.testing.assert_array_equal(found[path][0], a)
        np.testing.assert_array_equal(found[path][1], b)


def far_apart(folder: Path) -> Path:
    """Write an adapter whose lora_A all come before any lora_B."""
    random = np.random.default_rng(0)
    prefix = "base_model.model.model.layers"
    a = {f"{prefix}.{i}.q_proj.lora_A.weight": random.standard_normal((4, 30)) for i in range(20)}
    b = {f"{prefix}.{i}.q_proj.lora_B.weight": random.standard_normal((30, 4)) for i in range(20)}
    folder.mkdir()
    write_safetensors(folder / bad.WEIGHTS, {**a, **b})
    (folder / bad.CONFIG).write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
    return folder


def test_factors_far_apart_need_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = far_apart(tmp_path / "a")
    whole = scan(folder)
    monkeypatch.setattr(stream, "HELD", 3000)  # three of the twenty
    monkeypatch.setattr(stream, "CHUNK", 500)
    with open_adapter(folder) as adapter, Stream(adapter) as passing:
        for module in passing:
            assert sum(array.nbytes for file in adapter.files for array in file.file.held.values()) <= 3000
            module.A.array()
            passing.done(module)
    assert scan(folder) == whole


def test_what_is_read_again_must_be_what_was_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = far_apart(tmp_path / "a")
    monkeypatch.setattr(stream, "HELD", 3000)
    monkeypatch.setattr(stream, "CHUNK", 500)
    weights = folder / bad.WEIGHTS
    with open_adapter(folder) as adapter, Stream(adapter) as passing:
        passes = iter(passing)
        module = next(passes)
        content = bytearray(weights.read_bytes())
        start = adapter.files[0].tensors[module.A.tensor.name].offset
        content[start + 4] ^= 1
        with weights.open("r+b") as file:
            file.write(content)
        with pytest.raises(AdapterFileError, match=r"safetensors: was changed while it was read; run this again"):
            module.A.array()


def _truncate(path: Path) -> None:
    os.truncate(path, 200)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")


def _replace(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("change", [_truncate, _grow, _overwrite, _replace, Path.unlink])
@pytest.mark.parametrize("moment", ["at the first module", "at the last module"])
def test_a_file_that_changes_meanwhile_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], moment: str
) -> None:
    """And neither a mixture of both files nor SIGBUS."""
    monkeypatch.setattr(stream, "CHUNK", 500)
    folder = make_adapter(tmp_path / "a", {f"model.layers.{i}.q_proj": (60 + i, 40, 4) for i in range(12)})
    wanted = 1 if moment == "at the first module" else 12

    def progress(done: int, total: int) -> None:
        if done == wanted:
            change(folder / bad.WEIGHTS)

    with pytest.raises(AdapterFileError, match=r"(became shorter|was changed) while it was read; run this again"):
        scan(folder, progress=progress)


def test_a_file_that_is_touched_before_is_no_error(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", SHAPES)
    os.utime(folder / bad.WEIGHTS, (1, 1))
    assert len(scan(folder).modules) == 6


@pytest.mark.parametrize("length", ["short", "long"])
def test_a_long_tensor_gives_what_a_short_one_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: str
) -> None:
    folder = make_adapter(tmp_path / "a", {"model.layers.0.q_proj": (200, 150, 4), "model.layers.1.q_proj": (9, 8, 2)})
    plain = scan(folder, kurtosis=True)
    if length == "long":
        monkeypatch.setattr(tensors, "LONG", 1000)
        monkeypatch.setattr(stream, "LONG", 1000)
    found = scan(folder, kurtosis=True)
    assert found.source == plain.source
    for ours, theirs in zip(found.modules, plain.modules, strict=True):
        np.testing.assert_allclose(ours.sigma, theirs.sigma, rtol=1e-13)


def test_experts_that_share_a_tensor_read_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    folder = tmp_path / "a"
    folder.mkdir()
    name = "base_model.model.model.layers.0.mlp.experts"
    write_safetensors(
        folder / bad.WEIGHTS,
        {
            f"{name}.lora_A.weight": random.standard_normal((8, 12)),
            f"{name}.lora_B.weight": random.standard_normal((10, 8)),
        },
    )
    (folder / bad.CONFIG).write_text(
        '{"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_parameters": ["mlp.experts.gate_up_proj"]}'
    )
    with open_adapter(folder) as adapter:
        assert len(adapter.modules) == 4
        reads = Reads(monkeypatch)
        read_all(adapter)
        assert reads.cover_once(adapter.files[0].file.size)


def test_what_lies_between_small_tensors_is_not_kept_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is what counts, not the tensors in it: they are views of what was read together."""
    folder = tmp_path / "a"
    folder.mkdir()
    name = "base_model.model.model.layers.{}.{}.weight".format
    lying: dict[str, Any] = {}
    for i in range(40):
        lying[name(i, "q_proj.lora_A")] = np.ones((2, 4))
        lying[name(i, "norm")] = np.ones(50)
    write_safetensors(folder / bad.WEIGHTS, {**lying, **{name(i, "q_proj.lora_B"): np.ones((4, 2)) for i in range(40)}})
    (folder / bad.CONFIG).write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 8}')
    monkeypatch.setattr(stream, "HELD", 3000)
    monkeypatch.setattr(stream, "CHUNK", 500)
    with open_adapter(folder) as adapter, Stream(adapter) as passing:
        held = adapter.files[0].file.held
        for module in passing:
            memory = {id(array.base): array.base.nbytes for array in held.values() if array.base is not None}
            assert sum(memory.values()) <= 3000
            passing.done(module)
        assert not held


@pytest.mark.parametrize("layout", ["stacked experts", "interleaved experts", "transposed"])
def test_parts_of_a_long_tensor_give_what_those_of_a_short_one_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    random = np.random.default_rng(0)
    folder = tmp_path / "a"
    folder.mkdir()
    name, config = "base_model.model.model.layers.0.mlp.experts", '{"peft_type": "LORA", "r": 2, "lora_alpha": 8}'
    if layout == "stacked experts":
        name, shapes = f"{name}.gate_proj", ((5, 2, 120), (5, 100, 2))
    elif layout == "interleaved experts":
        shapes = ((10, 120), (100, 10))
        config = config.replace("}", ', "target_parameters": ["mlp.experts.gate_up_proj"]}')
    else:
        name, shapes, config = "model.layers.0.q_proj", ((120, 2), (2, 100)), '{"lora_parameters": {"scale": 2.0}}'
    ends = ("lora_a", "lora_b") if layout == "transposed" else ("lora_A.weight", "lora_B.weight")
    write_safetensors(
        folder / bad.WEIGHTS,
        {f"{name}.{end}": random.standard_normal(shape) for end, shape in zip(ends, shapes, strict=True)},
    )
    (folder / bad.CONFIG).write_text(config)
    plain = scan(folder)
    for module in (stream, tensors):
        monkeypatch.setattr(module, "LONG", 1500)
    for chunk in (64, 1 << 20):
        monkeypatch.setattr(tensors, "CHUNK", chunk)
        found = scan(folder)
        assert found.source == plain.source
        for ours, theirs in zip(found.modules, plain.modules, strict=True):
            np.testing.assert_allclose(ours.sigma, theirs.sigma, rtol=1e-12)


def test_the_factor_of_an_expert_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the tensor of all experts is too long to be held."""
    folder = tmp_path / "a"
    folder.mkdir()
    name = "base_model.model.model.layers.0.mlp.experts.gate_proj.lora_{}.weight".format
    write_safetensors(folder / bad.WEIGHTS, {name("A"): np.ones((50, 2, 9)), name("B"): np.ones((50, 9, 2))})
    (folder / bad.CONFIG).write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 8}')
    monkeypatch.setattr(tensors, "LONG", 1000)
    with open_adapter(folder) as adapter:
        reads = Reads(monkeypatch)
        assert adapter.modules[7].B.matrix().shape == (9, 2)
        assert [length for _, length in reads.ranges] == [9 * 2 * 8]


def test_what_is_no_regular_file_is_refused_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(regular.os, "open", lambda *_: pytest.fail("opened"))
    for path in (tmp_path / "pipe", Path(os.devnull), tmp_path):
        with pytest.raises(AdapterFileError, match="is not a regular file"):
            regular.RegularFile(path)
