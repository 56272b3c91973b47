"""The page of a scan as text: what it holds, how large it is, and that nothing in it leads elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s3lora
from s3lora.choose.rankings import survey
from s3lora.choose.rules import Fraction, Null, Top
from s3lora.choose.select import Filter, select
from s3lora.choose.ties import rounded
from s3lora.errors import NothingToAuditError, UsageError
from s3lora.measure.published import among_published, bands
from s3lora.measure.scan import scan
from s3lora.report.documents import scan_document
from s3lora.report.heatmap_file import heat_map_png, heat_map_svg
from s3lora.report.scan_page import LISTED, Reported, scan_page
from s3lora.spectrum.methods import METHODS
from tests.command import call
from tests.report import made_inventory
from tests.report.measured import sweep as made_sweep
from tests.report.scanned import DEMO, comparable, many, mixed, page, reported, wide
from tests.report.test_page import ATTACK
from tests.report.unpacked import paths, unpack
from tests.support import make_adapter, shared


def data_of(text: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    content: dict[str, object] = json.loads(found[1])
    return content


def modules_of(text: str) -> str:
    """Return the page from its table of modules on."""
    return text[text.index('<table class="modules">') :]


@pytest.mark.parametrize(("layers", "rank", "limit"), [(32, 16, 200_000), (286, 12, 500_000)])
def test_size(tmp_path: Path, layers: int, rank: int, limit: int) -> None:
    measured = scan(wide(tmp_path / "wide", layers, rank))
    # Another method gives other numbers, but as many of them.
    others = [replace(measured, configuration=replace(measured.configuration, method=name)) for name in METHODS][1:]
    text = scan_page(
        [Reported(document=scan_document(measured, select(measured)), ranked=survey([measured, *others]), path="wide")]
    )
    assert modules_of(text).count('<tr><th scope="row">') == min(7 * layers, LISTED)
    assert len(text.encode()) <= limit


@pytest.mark.thorough
@pytest.mark.parametrize("rank", [1, 16])
def test_size_with_many_experts(tmp_path: Path, rank: int) -> None:
    """36,864 modules: every number stands in the page once, in no more bits than it needs."""
    text = scan_page([many(tmp_path / "few", rank)])
    found = data_of(text)
    assert found["count"] == 36_864
    assert len(paths(found["names"], 36_864)) == 36_864  # type: ignore[arg-type]
    assert len(text.encode()) <= 1_500_000
    # It is not data that compress well, nor a page that holds less.
    assert len(text.encode()) >= 600_000 * (1 + (rank > 1))


def test_equal_scans_give_equal_bytes(tmp_path: Path) -> None:
    path = mixed(tmp_path / "made")
    assert page(path) == page(path)
    assert heat_map_svg(reported(path).document, reported(path).ranked) == heat_map_svg(
        reported(path).document, reported(path).ranked
    )
    assert str(tmp_path) not in page(path)


def test_the_policy_names_what_is_there_by_digest(tmp_path: Path) -> None:
    text = page(mixed(tmp_path / "made"))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    blocks = [re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("style", "script")]
    for block, name in zip(blocks, ("style-src", "script-src"), strict=True):
        assert block is not None
        digest = base64.b64encode(hashlib.sha256(block[1].encode()).digest()).decode()
        assert f"{name} &#39;sha256-{digest}&#39;" in policy[1]
    assert "unsafe" not in policy[1]
    assert not re.search(r'\sstyle="|\son\w+="|https?://(?!www\.w3\.org/2000/svg)', text)


def test_every_module_and_its_numbers_are_in_the_table(tmp_path: Path) -> None:
    path = mixed(tmp_path / "made")
    text = page(path, Top(3))
    rows = re.findall(r'<tr><th scope="row"><span>([^<]*)</span></th><td>([^<]*)</td>(.*?)</tr>', modules_of(text))
    plan = select(scan(path), Top(3), index="ssi")
    modules = scan(path).modules
    in_order = sorted(modules, key=lambda module: -(module.indices["ssi"] or 0))
    assert [name for name, _, _ in rows] == [module.path for module in in_order], "the sharpest first"
    assert {name for name, mark, _ in rows if mark == "×"} == set(plan.paths)
    for (_, _, cells), module in zip(rows, in_order, strict=True):
        shown = re.findall(r"<td>([^<]*)</td>", cells)
        assert shown[-2:] == [f"{module.shape[0]} × {module.shape[1]}", str(module.rank)]
        value = module.indices["ssi"]
        assert shown[0] == "–" if value is None else float(shown[0]) == pytest.approx(value, abs=6e-4)


def test_the_script_gets_every_module_and_the_digits_that_rules_see(tmp_path: Path) -> None:
    path = mixed(tmp_path / "made")
    found: dict[str, Any] = data_of(page(path))
    modules = scan(path).modules
    assert paths(found["names"], len(modules)) == [module.path for module in modules]
    series = {(one["index"], one["method"]): one for one in found["series"]}
    for index, method in (("ssi", "mas-svd"), ("ssi", "svd"), ("ssi", "spsvd"), ("magnitude", "mas-svd")):
        known = [module.indices[index] for module in scan(path, method).modules]
        wanted = [v if v is None else rounded(v, scale_free=index == "ssi") for v in known]
        assert unpack(series[index, method]["values"], len(modules)) == wanted
    chosen = unpack(found["chosen"], len(modules))
    assert [bool(mark) for mark in chosen] == [m.path in select(scan(path), index="ssi").paths for m in modules]
    assert found["allowed"] is None
    kept: dict[str, Any] = data_of(page(path, Top(2), only=Filter(projections=("k_proj",))))["allowed"]  # type: ignore[assignment]
    assert [bool(mark) for mark in unpack(kept, len(modules))] == [m.projection == "k_proj" for m in modules]
    shapes = [found["forms"][form][0] for form in unpack(found["form"], len(modules))]
    assert shapes == [f"{m.shape[0]} × {m.shape[1]}" for m in modules]
    columns = [unpack(column, len(modules)) for column in found["sigma"]]
    spectra = [list(m.sigma) for m in modules]
    if found["spectrum"]:  # the first is the magnitude
        spectra = [one[1:] for one in spectra]
    for i, wanted_sigma in enumerate(spectra):
        got = [column[i] for column in columns if column[i] is not None]
        assert got == [pytest.approx(value, rel=5.1e-3) for value in wanted_sigma]


def test_the_script_gets_the_bands_of_published_modules(tmp_path: Path) -> None:
    path = comparable(tmp_path / "made")
    against = among_published(scan(path))
    known = bands(against)
    found: dict[str, Any] = data_of(page(path, index="energy", against=True))
    groups = [
        None if (standing := against.standings.get(module.path)) is None else standing.group
        for module in scan(path).modules
    ]
    assert unpack(found["group"], len(groups)) == groups
    assert (groups.count(None), len(against.groups)) == (3, 3)
    other = next(i for i, group in enumerate(against.groups) if group.role == "decoder.down")
    series = {(one["index"], one["method"]): shown for one, shown in zip(found["series"], found["bands"], strict=True)}
    as_lists = {name: [list(band) for band in values] for name, values in known.items()}
    # Raw SSI is compared within one rank alone, and what σ̃ give within one method.
    within_rank = [None if i == other else band for i, band in enumerate(as_lists["ssi"])]
    assert series["ssi", "mas-svd"] == within_rank
    assert series["normalised_ssi", "mas-svd"] == as_lists["normalised_ssi"]
    assert series["energy", "mas-svd"] == as_lists["energy"]
    assert series["ssi", "svd"] is series["magnitude", "mas-svd"] is None
    assert "bands" not in data_of(page(path))


def test_survey_ranks_every_candidate_by_every_index(tmp_path: Path) -> None:
    path = mixed(tmp_path / "made")
    first, second = scan(path), scan(path, "svd")
    ranked = survey([first, second], index="energy")
    assert {(one.index, one.method) for one in ranked} == {
        *(
            (name, "mas-svd")
            for name in ("ssi", "normalised_ssi", "weighted_ssi", "magnitude", "frobenius", "stable_rank")
        ),
        ("energy", "mas-svd"),
        ("ssi", "svd"),
    }
    for one in ranked:
        plan = select(one.scan, Fraction(1.0), index=one.index)
        assert tuple(path for unit in one.units for path in unit.paths) == plan.paths
        assert one.flat == plan.flat
    zeros = make_adapter(tmp_path / "zero", {"layers.0.q_proj": (8, 8, 2)}, zero_b=("layers.0.q_proj",))
    assert survey([scan(zeros)]) == ()


def test_a_page_has_the_commands_that_the_base_model_is_needed_for(capsys: pytest.CaptureFixture[str]) -> None:
    shown = html.unescape(call(capsys, "scan", DEMO, "--format", "html").out)
    base = "HuggingFaceTB/SmolLM2-135M-Instruct"
    for command in (
        "check demo-adapter",
        f"eval demo-adapter --base {base} --suite safety --no-prune --no-cost",
        f"repair demo-adapter --base {base} -o REPAIRED",
    ):
        assert shown.count(f"<dd><code>s3lora {command}</code></dd>") == 1


def test_a_page_has_the_way_out_of_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_adapter(tmp_path / "a", {f"layers.{i}.q_proj": (8, 8, 2) for i in range(3)})
    command = "s3lora convert a --to peft -o CLEAN"
    assert command not in html.unescape(call(capsys, "scan", path, "--format", "html").out)
    (path / "own.py").write_text("")
    assert command in html.unescape(call(capsys, "scan", path, "--format", "html").out)


def test_an_adapter_of_zero_updates_has_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modules = {f"layers.{i}.q_proj": (8, 8, 2) for i in range(3)}
    path = make_adapter(tmp_path / "zero", modules, zero_b=modules)
    done = call(capsys, "scan", path, "--format", "html")
    assert done.status == 0
    assert "3 of 3 modules (B = 0" in done.out
    assert '<script type="application/json">' not in done.out


def test_names_stay_text(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "hostile", {f"model.layers.{i}.{ATTACK}": (8, 8, 2) for i in range(3)})
    for text in (page(path), heat_map_svg(reported(path).document, reported(path).ranked)):
        assert "<script>alert" not in text
        assert "<img" not in text
    assert "</script>" not in re.search(r"application/json.>(.*?)</script>", page(path), re.DOTALL)[1]  # type: ignore[index]


def test_all_that_is_in_the_adapter_comes_first(tmp_path: Path) -> None:
    inventory = made_inventory.full()
    text = page(mixed(tmp_path / "a"), change=lambda scan: replace(scan, inventory=inventory))
    assert text.index("At a glance") < text.index("Layer by projection") < text.index("What a rule would choose")
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text)
    names = [html.unescape(name) for name, _ in rows]
    tensors, files = [one.name for one in inventory.unmeasured], [one.path for one in inventory.files]
    assert names[: len(tensors)] == tensors
    assert [name for name in names if name in files] == files
    cells = {html.unescape(name): re.findall(r"<td[^>]*>(.*?)</td>", row) for name, row in rows}
    assert cells["score.made-up.weight"][:6] == ["head", "2 × 64", "float32", "512", "0.250", "yes"]
    assert cells["made-up.pkl"][0] == "pickle"
    assert "os.made-up4" in cells["made-up.pkl"][3], "all of them"
    assert cells["MLX"][:2] == ["made-up.bin", "no"]
    assert cells["diffusers"][:2] == ["nothing", ""]
    assert "<code>h.0.made-up</code>" in text
    assert "2 of 33 modules are zero updates" not in text, "told at a glance"


def test_names_of_an_inventory_stay_text(tmp_path: Path) -> None:
    made = mixed(tmp_path / "a")
    tags = []
    for name in ("made-up", ATTACK):
        inventory = made_inventory.full(name)
        text = page(made, change=lambda scan, found=inventory: replace(scan, inventory=found))
        tags.append(re.findall(r"<[a-z]+", text))
    assert tags[0] == tags[1]


@settings(max_examples=20)
@given(st.text(max_size=30))
def test_words_of_the_command_come_through(word: str) -> None:
    one = replace(reported(DEMO, Top(3)), path=word, shared=("--only", word))
    found = data_of(scan_page([one]))["command"]
    import shlex

    assert shlex.split(found["path"]) == [word]  # type: ignore[index]
    assert [shlex.split(part)[0] for part in found["shared"]] == ["--only", word]  # type: ignore[index]


def test_a_sweep_of_another_adapter_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="another SHA-256"):
        page(DEMO, sweep=made_sweep())
    measured = replace(made_sweep(), adapter=scan(DEMO).source)
    text = page(DEMO, sweep=measured)
    assert "What it does to the model" in text
    assert text.count("<figure>") == 5
    from s3lora.report.documents import to_json

    monkeypatch.chdir(tmp_path)
    Path("sweep.json").write_text(to_json(measured))
    done = call(capsys, "scan", DEMO, "--format", "html", "--evaluation", "sweep.json", "-o", "page.html")
    assert (done.status, done.out) == (0, "")
    assert "What it does to the model" in Path("page.html").read_text()
    for arguments, said in (
        (("--evaluation", "sweep.json"), "--evaluation does nothing without --format html"),
        (("--format", "html", "--evaluation", "page.html"), "no result of eval, sweep or tune"),
        (("--format", "html", "--evaluation", "absent.json"), "absent.json"),
    ):
        done = call(capsys, "scan", DEMO, *arguments)
        assert done.status == 2
        assert said in done.err
        assert done.out == ""


def test_a_pruning_has_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mixed(tmp_path / "made")
    loader = ("--loader", "vllm=0.33.0", "--bake-scaling")
    done = call(capsys, "prune", path, "-o", tmp_path / "out", "--top", 4, *loader, "--format", "html")
    assert done.status == 0
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert "What was done" in done.out
    assert 'name="rule"' not in done.out, "it tells what was done, and is no chooser"
    assert "--loader vllm=0.33.0 --bake-scaling --top 4" in done.out
    for chosen in select(scan(path), Top(4)).paths:
        assert re.search(
            rf"<code>{re.escape(chosen)}</code></th><td>(removed|zeroed)</td>", done.out.replace("<wbr>", "")
        )
    assert str(tmp_path) not in done.out


def test_pictures_of_the_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("resvg_py")
    path = mixed(tmp_path / "made")
    measured = reported(path, Null(draws=100))
    svg, png = heat_map_svg(measured.document, measured.ranked), heat_map_png(measured.document, measured.ranked)
    assert svg.count("<rect class=") >= 32
    assert png == heat_map_png(measured.document, measured.ranked)
    assert png.startswith(b"\x89PNG")
    assert b"Software" not in png
    target = tmp_path / "map.png"
    assert call(capsys, "scan", path, "--format", "png", "-o", target).status == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    done = call(capsys, "scan", path, "--format", "svg")
    assert done.out.startswith("<svg ")
    two = call(capsys, "scan", path, path, "--format", "svg")
    assert (two.status, two.out) == (2, "")
    assert "a picture shows one adapter" in two.err
    single = make_adapter(tmp_path / "single", {"lm_head": (8, 8, 2), "head": (8, 8, 2)})
    with pytest.raises(NothingToAuditError, match="fewer than two modules with a layer"):
        heat_map_svg(reported(single).document, reported(single).ranked)
    assert "See" not in page(single)
    assert "There is no map" in page(single)


@pytest.mark.parametrize("index", ["random", "random-matched", "kurtosis", "energy"])
def test_rankings_that_the_page_does_not_usually_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], index: str
) -> None:
    path = mixed(tmp_path / "made")
    done = call(capsys, "scan", path, "--index", index, "--format", "html")
    assert done.status == 0
    start = data_of(done.out)["start"]
    assert start["rule"] == ("given" if "random" in index else "top")  # type: ignore[index]


@pytest.mark.thorough
def test_real_adapters(capsys: pytest.CaptureFixture[str]) -> None:
    for folder in sorted((shared() / "adapters").iterdir()):
        if folder.is_dir():
            plain, done = (call(capsys, "scan", folder, "--format", form) for form in ("json", "html"))
            assert done.status == plain.status
            assert bool(done.out) == bool(plain.out)
            if plain.out:
                found = s3lora.scan(folder)
                beside = found.inventory
                rows = min(len(found), LISTED) + len(beside.unmeasured) + len(beside.files) + len(beside.loaders)
                assert done.out.count('<tr><th scope="row">') == rows
            assert str(shared()) not in done.out
