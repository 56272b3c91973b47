"""A command measures once: it opens the file once, reads and hashes every byte once, makes each Gram matrix once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3lora
from s3lora.adapter import open as opening
from s3lora.adapter import regular, stream
from s3lora.measure.configuration import Configuration
from s3lora.measure.scan import scan, scan_all
from s3lora.spectrum.tall import Tall
from tests.command import call
from tests.support import make_adapter

MODULES = {f"model.layers.{i}.{name}": (12 + 4 * (i % 2), 10, 3) for i in range(4) for name in ("q_proj", "v_proj")}


class Counts(Counter[str]):
    """How often files were opened, bytes of weights read and Gram matrices made."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()

        def counted(owner: Any, name: str, count: Any) -> None:
            original = getattr(owner, name)

            def wrapped(*arguments: Any, **keywords: Any) -> Any:
                result = original(*arguments, **keywords)
                self[name] += count(result, *arguments)
                return result

            patch.setattr(owner, name, wrapped)

        counted(opening, "_open", lambda *_: 1)
        counted(stream.Stream, "_hash", lambda _, stream, digest, piece: piece.nbytes)
        counted(Tall, "gram", lambda grams, *_: len(grams))
        counted(
            regular.RegularFile,
            "fresh",
            lambda piece, file, *_: piece.nbytes if "adapter_model" in file.path.name else 0,
        )


@pytest.mark.parametrize("form", ["text", "json", "csv", "html", "svg", "sarif"])
def test_a_scan_measures_once(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_adapter(tmp_path / "a", MODULES)
    counts = Counts(monkeypatch)
    assert call(capsys, "scan", folder, "--format", form).status == 0
    size = (folder / "adapter_model.safetensors").stat().st_size
    header = size - sum(4 * r * (m + n) for m, n, r in MODULES.values())
    assert counts["_open"] == 1
    assert counts["_hash"] == size
    assert counts["fresh"] <= size + 2 * header + 208, "the header alone is read once more, to open the file"
    assert counts["gram"] == 2 * len(MODULES), "one of A and one of B"


def test_prune_measures_once_and_reads_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_adapter(tmp_path / "a", MODULES)
    for form in ("text", "html"):
        with monkeypatch.context() as patch:
            counts = Counts(patch)
            assert call(capsys, "prune", folder, "-o", tmp_path / form, "--force-flat", "--format", form).status == 0
        assert counts["_open"] == 2, "the input, and the output to verify it"
        assert counts["_hash"] == (folder / "adapter_model.safetensors").stat().st_size
        assert counts["gram"] == 2 * len(MODULES)


def test_several_methods_in_one_pass_are_what_each_gives_alone(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", MODULES, zero_b=["model.layers.1.q_proj"])
    methods = ("mas-svd", "svd", "spsvd", "released")
    together = scan_all(folder, [Configuration(method) for method in methods])
    assert together == tuple(scan(folder, method) for method in methods)
    assert s3lora.scan(folder) == together[0]


def test_what_another_method_cannot_measure_is_no_error(tmp_path: Path) -> None:
    """1e160 · 1e160 exceeds float64 whatever the method, but only the first one's trouble is an error."""
    folder = make_adapter(tmp_path / "a", {"model.layers.0.q_proj": (20, 10, 2), "model.layers.1.q_proj": (10, 20, 2)})
    both = scan_all(folder, [Configuration("mas-svd"), Configuration("released")])
    assert [len(module.sigma) for module in both[0].modules] == [2, 2]
    assert [len(module.sigma) for module in both[1].modules] == [0, 1], "undefined where m > n"


def test_modules_of_many_shapes_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3lora.measure import batches

    shapes = {f"model.layers.{i}.q_proj": (10 + i, 9, 2) for i in range(30)}
    folder = make_adapter(tmp_path / "a", shapes)
    whole = scan(folder)
    monkeypatch.setattr(batches, "WAITING", 200)
    waiting: list[int] = []
    original = stream.Stream.done

    def done(self: Any, module: Any) -> None:
        waiting.append(self._bytes)
        original(self, module)

    monkeypatch.setattr(stream.Stream, "done", done)
    monkeypatch.setattr(stream, "CHUNK", 500)
    assert scan(folder) == whole
    assert max(waiting) < 0.5 * sum(4 * r * (m + n) for m, n, r in shapes.values())
    assert np.all(np.array(waiting) >= 0)
