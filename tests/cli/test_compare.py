"""`s3lora compare` of a run, of more than two adapters, and as a page."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from s3lora import Comparison, checkpoints, compare
from s3lora.report.compare_view import cosine, number
from s3lora.report.schemas import schema
from tests.command import call
from tests.hostile import bad_files as bad
from tests.report.test_page import Page, row
from tests.support import make_adapter, shared

LAYERS = {f"model.layers.{i}.self_attn.{name}": (16, 12, 4) for i in range(6) for name in ("q_proj", "v_proj")}
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for seed, step in enumerate((500, 1000, 1500)):
        make_adapter(folder / f"checkpoint-{step}", LAYERS, seed=seed)
    return make_adapter(folder, LAYERS, seed=9)


def test_a_page_of_two(run: Path, tmp_path: Path, capsys: Capture) -> None:
    a, b = run / "checkpoint-500", run / "checkpoint-1000"
    result = call(capsys, "compare", a, b, "--format", "html")
    assert (result.status, result.err) == (0, "")
    page = Page(result.out)
    assert page.texts["h1"][0].split() == ["A", "checkpoint-500", "→", "B", "checkpoint-1000"]
    assert len(page.tables["modules"]) == 13
    file = tmp_path / "report.html"
    assert call(capsys, "compare", a, b, "--format", "html", "--output", file).out == ""
    assert file.read_text(encoding="utf-8") == result.out
    assert str(tmp_path) not in result.out


def test_two_as_text(run: Path, capsys: Capture) -> None:
    """Every row tells distance and cosine, and sharpness and norm before and after."""
    a, b = run / "checkpoint-500", run / "checkpoint-1000"
    result = call(capsys, "compare", a, b)
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "checkpoint-500 → checkpoint-1000  12 modules in both, 12 changed"
    assert lines[1] == "nothing but LoRA in both"
    assert lines[3].split() == ["changed", "most", "distance", "cosine", "ssi", "‖ΔW‖"]
    module = max(compare([a, b]).modules, key=lambda module: module.net_distance or 0.0)
    told = (*module.ssi, *module.frobenius)
    ends = [number(value) for value in told]
    wanted = [number(module.net_distance), cosine(module.net_cosine), ends[0], "→", ends[1], ends[2], "→", ends[3]]
    assert lines[4].split() == [module.path, *wanted]
    assert lines[-1].strip() == "… and 2 more"


def test_a_run_as_text(run: Path, capsys: Capture) -> None:
    result = call(capsys, "compare", run)
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "checkpoint-500 → run  4 adapters, 12 common modules, 12 changed"
    steps = [line.split() for line in lines[4:8]]
    assert [cells[:2] for cells in steps] == [["500", "12"], ["1000", "12"], ["1500", "12"], ["end", "12"]]
    assert steps[0][-2:] == ["–", "–"]
    assert result.out.count("self_attn") == 10
    assert lines[-1].strip() == "… and 2 more"
    assert all(len(line) <= 80 and line == line.rstrip() for line in lines)


def test_a_run_as_data(run: Path, capsys: Capture) -> None:
    printed = call(capsys, "compare", run, "--format", "json").out
    jsonschema.Draft202012Validator(json.loads(schema("compare"))).validate(json.loads(printed))
    comparison = msgspec.json.decode(printed.encode(), type=Comparison)
    assert comparison == compare(checkpoints(run))
    rows = list(csv.DictReader(io.StringIO(call(capsys, "compare", run, "--format", "csv").out)))
    assert len(rows) == 12 * 4
    for found, wanted in zip(rows[:4], range(4), strict=True):
        module = comparison.modules[0]
        assert (found["path"], found["adapter"]) == (module.path, comparison.sources[wanted].name)
        assert found["step"] == ("" if wanted == 3 else str(comparison.steps[wanted]))
        assert float(found["ssi"]) == module.ssi[wanted]
        assert found["distance"] == (repr(module.distance[wanted - 1]) if wanted else "")


def test_a_run_as_a_page(run: Path, capsys: Capture) -> None:
    page = Page(call(capsys, "compare", run, "--format", "html").out)
    assert len(page.tables["stages"]) == 5
    assert row(page, "stages", "end")[1] == "run"
    assert len(page.texts["figcaption"]) == 2 + 4, "a panel a projection, and four maps"


def test_several_adapters(run: Path, capsys: Capture) -> None:
    paths = [run / f"checkpoint-{step}" for step in (1500, 500, 1000)]
    result = call(capsys, "compare", *paths)
    assert result.out.splitlines()[0].startswith("checkpoint-1500 → checkpoint-1000  3 adapters,")
    content = json.loads(call(capsys, "compare", *paths, "--format", "json").out)
    assert content["steps"] == [1500, 500, 1000]


def test_what_is_no_run(run: Path, tmp_path: Path, capsys: Capture) -> None:
    result = call(capsys, "compare", run / "checkpoint-500")
    assert result.status == 2
    assert result.err == (
        f"s3lora: {run}/checkpoint-500 holds no checkpoints, so there is nothing to compare; give two adapters, or the "
        "folder of a run with folders checkpoint-N in it\n"
    )
    assert call(capsys, "compare", tmp_path / "nowhere").err.endswith("nowhere: no such file or folder\n")
    assert call(capsys, "compare").status == 2


def test_a_broken_checkpoint_leaves_nothing_behind(run: Path, tmp_path: Path, capsys: Capture) -> None:
    bad.weights(bad.POINTER)(run / "checkpoint-700")
    file = tmp_path / "report.html"
    result = call(capsys, "compare", run, "--format", "html", "-o", file)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"s3lora: {run}/checkpoint-700/{bad.WEIGHTS}: is a Git LFS pointer")
    assert result.err.endswith(", or name the others to leave it out\n")
    assert not file.exists()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("qwen25-mlx/0000100_adapters.safetensors", "qwen25-mlx/0000200_adapters.safetensors"),
        ("sam-vit-custom-r2", "sam-vit-custom-r8"),
        ("sd1-mixed-dtype", "sd1-mixed-dtype"),
    ],
)
def test_pages_of_real_adapters(a: str, b: str, capsys: Capture) -> None:
    folder = shared() / "adapters"
    result = call(capsys, "compare", folder / a, folder / b, "--format", "html")
    assert (result.status, result.err) == (0, "")
    assert len(result.out.encode()) < 300_000
    page = Page(result.out)
    assert len(page.tables["modules"]) > 8
    assert ("moved" in page.tables) == (a != b)
    assert ("change their rank" in result.out) == a.startswith("sam")
