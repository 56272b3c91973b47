"""`s3lora compose`: text, CSV and JSON of sums."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from rich.cells import cell_len

from s3lora import Composition, compose
from s3lora.report.compose_csv import compose_csv
from s3lora.report.compose_text import compose_text
from s3lora.report.schemas import schema
from s3lora.report.text import to_text
from tests.command import call
from tests.report.test_text import HOSTILE
from tests.support import make_adapter, shared

LAYERS = {f"model.layers.{i}.self_attn.{name}": (16, 12, 4) for i in range(6) for name in ("q_proj", "v_proj")}
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Return three adapters; the last lacks two modules, and one of its is a zero update."""
    fewer = dict(list(LAYERS.items())[2:])
    return [
        make_adapter(tmp_path / "first", LAYERS, seed=1),
        make_adapter(tmp_path / "second", LAYERS, seed=2),
        make_adapter(tmp_path / "third", fewer, seed=3, zero_b=[next(iter(fewer))]),
    ]


def test_text(three: list[Path], capsys: Capture) -> None:
    result = call(capsys, "compose", *three, "--weights", "-1,0.5,2")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[:2] == ["− first + 0.5·second + 2·third", "3 adapters · 12 modules · method mas-svd"]
    found = compose(three, (-1, 0.5, 2))
    count = sum(module.sharper for module in found.modules)
    assert f"{count or 'None'} of 12 modules" in lines[3]
    gains = [float(line.split()[-5].replace("−", "-")) for line in lines if "self_attn" in line and "→" in line]
    assert len(gains) == 10
    assert gains == sorted(gains, reverse=True)
    assert gains[0] == pytest.approx(max(module.gain or -1.0 for module in found.modules), abs=5e-4)
    best = max(found.modules, key=lambda module: module.gain or -1.0)
    assert best.together is not None
    alone = max(update.indices["energy"] or 0.0 for update in best.alone if update is not None)
    first = next(line for line in lines if "self_attn" in line)
    assert f"{alone:.3f} → {best.together.indices['energy']:.3f}" in first
    assert " … and 2 more" in lines
    pairs = [line for line in lines if " · " in line and "(" in line]
    assert [line.split()[:3] for line in pairs] == [
        ["first", "·", "second"], ["first", "·", "third"], ["second", "·", "third"]
    ]  # fmt: skip
    assert [line.split()[3] for line in pairs] == ["12", "9", "9"]
    assert "third: 1 of 10 modules are zero updates" in result.out
    assert all(len(line) <= 80 and line == line.rstrip() for line in lines)


def test_how_many_are_shown(three: list[Path], capsys: Capture) -> None:
    shown = [call(capsys, "compose", *three, "--top", top).out.count("self_attn") for top in (0, 3, 99)]
    assert shown == [0, 3, 12]
    idle = call(capsys, "compose", *three, "--top", 3, "--format", "csv")
    assert (idle.status, idle.out, idle.err) == (2, "", "s3lora: --top does nothing with --format csv\n")


def test_many_adapters(tmp_path: Path, capsys: Capture) -> None:
    paths = [make_adapter(tmp_path / f"adapter-{i}", {"w.q_proj": (16, 12, 2)}, seed=i) for i in range(6)]
    lines = call(capsys, "compose", *paths).out.splitlines()
    assert lines[0] == "adapter-0 + adapter-1 + adapter-2 + adapter-3 + …"
    assert len([line for line in lines if " · adapter-" in line]) == 10
    assert " … and 5 more" in lines


def test_json(three: list[Path], tmp_path: Path, capsys: Capture) -> None:
    arguments = ("compose", *three, "--weights", "1, 2e-1,-3", "--method", "svd", "--format", "json")
    printed = call(capsys, *arguments).out
    jsonschema.Draft202012Validator(json.loads(schema("compose"))).validate(json.loads(printed))
    assert msgspec.json.decode(printed.encode(), type=Composition) == compose(three, (1, 0.2, -3), "svd")
    file = tmp_path / "sum.json"
    assert call(capsys, *arguments, "--report", file).out == ""
    assert file.read_text(encoding="utf-8") == printed
    assert str(tmp_path) not in printed


def test_csv(three: list[Path], capsys: Capture) -> None:
    text = call(capsys, "compose", *three, "--format", "csv").out
    assert {len(row) for row in csv.reader(io.StringIO(text))} == {31}
    rows = list(csv.DictReader(io.StringIO(text)))
    found = compose(three)
    for module in found.modules:
        mine = [row for row in rows if row["path"] == module.path]
        together, alone, pairs = (
            [row for row in mine if row["kind"] == kind] for kind in ("together", "alone", "pair")
        )
        assert len(mine) == len(together) + len(alone) + len(pairs)
        assert module.together is not None
        (one,) = together
        assert float(one["energy"]) == module.together.indices["energy"]
        assert (float(one["gain"]), one["sharper"]) == (module.gain, str(module.sharper).lower())
        assert [row["name"] for row in alone] == ["first", "second", "third"][
            : sum(r is not None for r in module.ranks)
        ]
        for row in alone:
            update = module.alone[int(row["adapter"]) - 1]
            assert row["rank"] == str(0 if update is None else update.rank)
            assert row["ssi"] == ("" if update is None else repr(update.indices["ssi"]))
        assert [(int(row["adapter"]) - 1, int(row["other"]) - 1) for row in pairs] == [
            o.pair for o in module.alignments
        ]
        for row, alignment in zip(pairs, module.alignments, strict=True):
            assert float(row["cosine"]) == alignment.cosine
            assert float(row["columns_mean_square"]) == alignment.columns.mean_square
            assert float(row["rows_chance"]) == alignment.rows.chance


def test_what_cancels(three: list[Path], capsys: Capture) -> None:
    result = call(capsys, "compose", three[0], three[0], "--weights", "1,-1")
    assert result.status == 0
    assert "No module has an update in more than one adapter that does not cancel." in result.out
    assert "−1.000" in result.out
    rows = list(csv.DictReader(io.StringIO(call(capsys, "compose", three[0], three[0], "--weights", "1,-1",
                                                "--format", "csv").out)))  # fmt: skip
    sums = [row for row in rows if row["kind"] == "together"]
    assert {(row["rank"], row["ssi"], row["gain"], row["sharper"]) for row in sums} == {("0", "", "", "false")}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--weights", "1,two,3"), "--weights 1,two,3 is no list of numbers; write for example 1,0.5"),
        (("--weights", ""), "--weights  is no list of numbers; write for example 1,0.5"),
        (("--weights", "1,2"), "2 weights for 3 adapters; give one for each"),
        (("--weights", "1,nan,2"), "a weight must be a finite number"),
    ],
)
def test_wrong_use(more: tuple[str, ...], says: str, three: list[Path], capsys: Capture) -> None:
    result = call(capsys, "compose", *three, *more)
    assert (result.status, result.out, result.err) == (2, "", f"s3lora: {says}\n")


def test_errors_name_the_file_and_write_nothing(three: list[Path], tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "sum.csv"
    other = make_adapter(tmp_path / "other", dict.fromkeys(LAYERS, (20, 12, 4)))
    result = call(capsys, "compose", three[0], other, "--format", "csv", "--report", file)
    assert (result.status, result.out) == (2, "")
    assert "(20 × 12): does not add up with 16 × 12 of first; give adapters of one base model" in result.err
    assert (
        call(capsys, "compose", three[0], tmp_path / "none").err == f"s3lora: {tmp_path}/none: no such file or folder\n"
    )
    assert call(capsys, "compose", three[0]).err == "s3lora: one adapter is no composition; give two or more\n"
    assert call(capsys, "compose", three[0], three[1], "--method", "released").status == 2
    assert not file.exists()


def renamed(made: Composition, name: str) -> Composition:
    """Return the composition with `name` in every place where a file can put one."""
    modules = [dataclasses.replace(module, path=f"{module.path}.{name}", projection=name) for module in made.modules]
    sources = [dataclasses.replace(source, name=name, base_model=name) for source in made.sources]
    return dataclasses.replace(
        made, modules=tuple(modules), sources=tuple(sources), warnings=(*made.warnings, f"about {name}")
    )


@pytest.mark.parametrize("name", [*HOSTILE, "=1+1"])
def test_hostile_names_are_printed_harmlessly(name: str, three: list[Path]) -> None:
    made = renamed(compose(three), name)
    shown = to_text(compose_text(made))
    assert shown.endswith("\n")
    for line in shown.splitlines():
        assert line.isprintable(), line
        assert cell_len(line) <= 80, line
        assert line == line.rstrip(" ")
    if "markup" in name:
        assert name in shown, "shown, and not obeyed"
    cells = [cell for row in csv.reader(io.StringIO(compose_csv(made))) for cell in row]
    assert all(cell.isprintable() for cell in cells)
    assert not [cell for cell in cells if cell.startswith("=")]


def test_real_adapters(capsys: Capture) -> None:
    folder = shared() / "adapters"
    result = call(capsys, "compose", folder / "sam-vit-custom-r2", folder / "sam-vit-custom-r8", "--top", 3)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("sam-vit-custom-r2 + sam-vit-custom-r8\n2 adapters · 24 modules · method mas-svd\n")


def test_gains_that_differ_by_rounding_keep_the_order_of_the_model(three: list[Path]) -> None:
    made = compose(three)
    modules = [dataclasses.replace(module, gain=-1e-17 * (i + 1)) for i, module in enumerate(made.modules)]
    for order in (modules, [dataclasses.replace(one, gain=-(one.gain or 0.0)) for one in modules]):
        shown = to_text(compose_text(dataclasses.replace(made, modules=tuple(order)), shown=99))
        at = [shown.index(module.path.removeprefix("model.")) for module in order]
        assert at == sorted(at)


def test_a_report_is_replaced_and_lies_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = make_adapter(tmp_path / "one", {"layers.0.q_proj": (8, 6, 2), "layers.1.q_proj": (8, 6, 2)})
    report = tmp_path / "sum.csv"
    for _ in range(2):
        assert call(capsys, "compose", one, one, "--format", "csv", "--report", report).status == 0
    assert report.read_text().startswith("path,")
    for place in (tmp_path / "out", tmp_path / "out" / "sum.csv"):
        refused = call(capsys, "compose", one, one, "--force", "-o", tmp_path / "out", "--report", place)
        assert refused.status == 2
        assert not (tmp_path / "out").exists()
    weights = one / "adapter_model.safetensors"
    before = weights.read_bytes()
    refused = call(capsys, "compose", one, one, "--report", weights)
    assert (refused.status, weights.read_bytes()) == (2, before)
    assert "is part of an adapter; give --report another file" in refused.err
