"""`s3lora scan`: its options, formats and exit status."""

from __future__ import annotations

import csv
import hashlib
import html
import io
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.choose.select import select
from s3lora.cli.main import run
from s3lora.cli.options import GATING
from s3lora.cli.prune import prune_command
from s3lora.cli.scan import scan_command
from s3lora.errors import SelectionError, UsageError
from s3lora.gate.counting import Asked
from s3lora.gate.findings import Gate
from s3lora.measure.scan import scan
from tests.command import Result, call
from tests.hostile import bad_files as bad
from tests.support import make_adapter, shared, write_safetensors

LAYERS = {f"model.layers.{i}.self_attn.{name}": (16, 12, 4) for i in range(6) for name in ("q_proj", "v_proj")}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("scan") / "adapter", LAYERS)


@pytest.fixture(scope="module")
def zeros(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("zeros") / "zeros", LAYERS, zero_b=LAYERS)


@pytest.mark.parametrize("form", ["text", "html", "json", "csv", "sarif", "junit", "svg"])
def test_the_name_of_a_folder_need_not_be_text(form: str, adapter: Path, tmp_path: Path, capsys: Any) -> None:
    folder = shutil.copytree(adapter, tmp_path / os.fsdecode(b"\xff\xfe"))
    done = call(capsys, "scan", folder, "--format", form)
    assert (done.status, done.err) == (0, "")
    assert done.out.encode()


def document(result: Result) -> Any:
    """Return the JSON that a command printed, having checked that nothing else was printed."""
    assert result.out.startswith(("{", "["))
    return json.loads(result.out)


def pruning(result: Result) -> list[str]:
    """Return the words of the command that a report ends with, as a shell would read them."""
    block = result.out.partition("\nsmaller files, which is no repair:\n")[2].partition("\n      s3lora prune ")
    return shlex.split("".join(block[1:]).replace("\\\n", ""))


def next_steps(result: Result) -> list[list[str]]:
    """Return the words of the commands that a report names as next steps."""
    block = result.out.partition("\nnext  ")[2].partition("\n\n")[0].replace("\\\n", "")
    return [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]


def selected(result: Result) -> list[str]:
    return [module["path"] for module in document(result)["modules"] if module["selected"]]


def test_text(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", adapter)
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "adapter  peft · 12 modules · rank 4 · float32"
    assert re.fullmatch(r"method mas-svd · sha256 [0-9a-f]{12}… · base some/base-model", lines[1])
    assert "\x1b" not in result.out
    assert all(len(line) <= 80 and line == line.rstrip() for line in lines)
    assert (
        "top 10 by ssi (capped at 6, 50% of the 12 candidates) would prune 6 of 12\nmodules: 50.0% of LoRA parameters"
        in result.out
    )
    assert result.out.count("capped at") == 1
    assert pruning(result) == ["s3lora", "prune", str(adapter), "-o", "PRUNED"]
    assert next_steps(result) == [
        ["s3lora", "scan", str(adapter), "-o", "report.html"],
        ["s3lora", "check", str(adapter)],
        [
            *("s3lora", "eval", str(adapter), "--base", "some/base-model"),
            *("--suite", "safety", "--no-prune", "--no-cost"),
        ],
        ["s3lora", "repair", str(adapter), "--base", "some/base-model", "-o", "REPAIRED"],
    ]
    order = [
        "at a glance",
        "sharp   ",
        "published   ",
        "not told",
        " q_proj  ",
        "sharpest modules",
        "next  ",
        "top 10 by",
    ]
    places = [result.out.index(what) for what in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "named",
    [
        None,
        "",
        "/m/llama",
        "../x",
        "a/b/c",
        "-x/y",
        "a/--force",
        "ä/b",
        "a/b;c",
        "https://x/y",
        "outputs/merged",
        "a..b",
    ],
)
def test_a_base_that_is_no_name_on_the_hub_is_left_to_the_user(
    named: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # commands with a long path have lines of their own
    make_adapter(tmp_path / "a", {"layers.0.q_proj": (8, 8, 2)}, config={"base_model_name_or_path": named})
    result = call(capsys, "scan", "a")
    assert [step[step.index("--base") + 1] for step in next_steps(result)[2:]] == ["MODEL"] * 2
    assert "--base PATH tells" in " ".join(call(capsys, "check", "a").out.split())
    for comment in ("# as a page", "# will it load?", "# does the model still refuse?", "# give refusals back"):
        assert result.out.count(comment) == 1


def test_code_is_left_behind_by_the_first_of_the_next_steps(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (adapter / "evil.py").write_text("raise SystemExit")
    result = call(capsys, "scan", adapter)
    clean = ["s3lora", "convert", str(adapter), "--to", "peft", "-o", "CLEAN"]
    assert next_steps(result)[0] == clean
    assert "with code, no other weights, no pickles" in " ".join(result.out.split())
    assert call(capsys, *clean[1:-1], tmp_path / "clean").status == 0
    assert next_steps(call(capsys, "scan", tmp_path / "clean"))[0][1] == "scan"


def test_a_head_of_classes_is_asked_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads, config = {"score.weight": np.ones((2, 16), "float32")}, {"modules_to_save": ["score"]}
    made = make_adapter(tmp_path / "a", {"layers.0.self_attn.q_proj": (16, 12, 2)}, heads=heads, config=config)
    result = call(capsys, "scan", made)
    assert [step[1] for step in next_steps(result)] == ["scan", "check"]
    assert "no file tells; eval and repair are for models that write" in " ".join(result.out.split())


def test_several_paths_end_with_one_table(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads = {"base_model.model.score.weight": np.ones((2, 16), "float32")}
    other = make_adapter(tmp_path / "other", {"model.layers.0.self_attn.q_proj": (16, 12, 2)}, heads=heads)
    result = call(capsys, "scan", adapter, other, tmp_path / "nowhere")
    table = result.out.partition("\n2 adapters  ssi of their modules\n")[2].splitlines()
    assert table[0].split() == ["adapter", "modules", "rank", "median", "highest", "published", "besides"]
    assert table[1].split()[1:3] == ["12", "4"]
    assert table[2].split()[1:3] == ["1", "2"]
    assert table[2].split()[-1] == "base-weights"
    assert table[-1] == "1 more could not be measured"
    assert all(len(line) <= 80 for line in table)
    assert call(capsys, "scan", adapter, other, "-o", tmp_path / "both.txt").status == 0
    assert (tmp_path / "both.txt").read_text(encoding="utf-8").count("2 adapters") == 1
    assert "adapters  ssi" not in call(capsys, "scan", adapter).out


def test_the_pruning_repeats_the_options(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed must prune what the report has marked."""
    options = ("--top", "2", "--index", "weighted-ssi", "--only", "q_proj|v_proj", "--kurtosis", "--layers", "1-4")
    result = call(capsys, "scan", adapter, *options)
    told = ["--kurtosis", "--index", "weighted-ssi", "--top", "2", "--layers", "1-4", "--only", "q_proj|v_proj"]
    assert pruning(result) == ["s3lora", "prune", str(adapter), *told, "-o", "PRUNED"]


def test_the_pruning_has_options_of_prune_alone(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_scan, of_prune = ({option.name for option in one.params} for one in (scan_command, prune_command))
    assert of_scan - of_prune - {"paths"} <= set(GATING)
    gated = ("--fail-on", "ssi > 0.99", "--allow", "heads: ours", "--allow", "bias: ours", "--sarif", tmp_path / "x")
    told = ["s3lora", "prune", str(adapter), "--top", "2", "-o", "PRUNED"]
    assert pruning(call(capsys, "scan", adapter, "--top", "2", *gated)) == told
    shown = html.unescape(call(capsys, "scan", adapter, "--top", "2", *gated, "--format", "html").out)
    assert "<code>s3lora prune adapter --top 2 -o PRUNED</code>" in shown


def test_two_results_do_not_share_a_file(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for other in ("x.json", "./x.json", str(tmp_path / "x.json")):
        result = call(capsys, "scan", adapter, "-o", "x.json", "--fail-on", "ssi > 0.99", "--sarif", other)
        assert (result.status, result.err.startswith("s3lora: --sarif and --output name one file")) == (2, True)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["--only=.*|", "--sarif=out", "-o", "--projection=x"])
def test_a_file_that_reads_as_an_option_is_no_option(
    folder: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pre-commit would give it, among the names of other files."""
    monkeypatch.chdir(tmp_path)
    make_adapter(tmp_path / folder, {"model.layers.0.self_attn.q_proj": (8, 8, 2)})
    before = sorted(tmp_path.rglob("*"))
    hidden = f"{folder}/adapter_model.safetensors"
    result = call(capsys, "scan", "--quiet", "--fail-on", "ssi > 0", adapter, hidden)
    assert (result.status, result.out) == (2, "")
    assert result.err == f"s3lora: {hidden} is also the name of a file; write ./{hidden}\n"
    assert call(capsys, "scan", "--quiet", "--fail-on", "ssi > 0", f"./{hidden}").status == 1
    assert call(capsys, "scan", "--quiet", "--fail-on", "ssi > 0", "--", hidden).status == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_options_that_are_given_again_are_repeated(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drops = ("--drop", "heads", "--drop", "bias", "--top", "2")
    shown = call(capsys, "prune", adapter, "-o", tmp_path / "out", *drops, "--format", "html").out
    assert "--drop heads --drop bias" in html.unescape(shown)


@pytest.mark.parametrize("options", [("--rank", "1"), ("--top", "0"), ("--fraction", "1")])
def test_no_pruning_that_would_be_refused(
    options: tuple[str, ...], adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = call(capsys, "scan", adapter, *options)
    assert "s3lora prune" not in result.out
    assert next_steps(result)[-1][1] == "repair", "it goes by other things than the plan"


def test_no_repair_that_would_be_refused(zeros: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "s3lora repair" not in call(capsys, "scan", zeros).out
    magnitude = {f"{path}.lora_magnitude_vector": np.ones(shape[0], "float32") for path, shape in LAYERS.items()}
    dora = make_adapter(tmp_path / "dora", LAYERS, config={"use_dora": True}, heads=magnitude)
    pissa = make_adapter(tmp_path / "pissa", LAYERS, config={"init_lora_weights": "pissa"})
    for refused in (dora, pissa):
        result = call(capsys, "scan", refused)
        assert result.status == 0
        assert "s3lora repair" not in result.out, refused


def test_a_flat_plan_is_said_to_be_refused(adapter: Path, tmp_path: Path, capsys: Any) -> None:
    modules = [f"model.layers.{i}.self_attn.q_proj" for i in range(4)]
    b = np.diag([2.0, 1.0]).astype("float32")
    tensors = {
        f"base_model.model.{path}.lora_{letter}.weight": np.eye(2, dtype="float32") if letter == "A" else b
        for path in modules
        for letter in "AB"
    }
    flat = make_adapter(tmp_path / "flat", dict.fromkeys(modules, (2, 2, 2)))
    write_safetensors(flat / "adapter_model.safetensors", tensors)
    words = " ".join(call(capsys, "scan", flat).out.split())
    assert "top 10 by ssi (capped at 2, 50% of the 4 candidates) chooses 2 of 4 modules: " in words
    assert "prune will refuse, as ssi does not tell these modules apart; --force-flat insists." in words
    assert "would prune" not in words
    assert words.count("does not discriminate here") == 1
    assert "note ssi does not discriminate here: its spread over the candidates is below 0.01" in words
    written = document(call(capsys, "scan", flat, "--format", "json"))["warnings"]
    assert sum("does not discriminate here" in note for note in written) == 2, "data keep both"
    other = " ".join(call(capsys, "scan", flat, "--index", "random").out.split())
    assert "note the SSI does not discriminate here" in other, "which no plan says"
    assert "would prune 2 of 4" in other
    assert call(capsys, "prune", flat, "-o", tmp_path / "out").status == 2
    forced = call(capsys, "prune", flat, "-o", tmp_path / "out", "--force-flat")
    assert (forced.status, forced.out.count("does not discriminate")) == (0, 1)
    assert "prune will refuse" not in call(capsys, "scan", adapter).out


def test_json(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", adapter, "--format", "json", "--kurtosis", "--seed", "7")
    assert (result.status, result.err) == (0, "")
    content = document(result)
    heads = ["schema_version", "tool", "configuration", "source", "inventory", "warnings", "modules"]
    assert list(content)[:7] == heads
    assert content["tool"]["name"] == "s3lora"
    assert content["configuration"] == {
        "method": "mas-svd", "rank": None, "fit": "l2", "sample": None, "seed": 7, "kurtosis": True,
    }  # fmt: skip
    assert re.fullmatch("[0-9a-f]{64}", content["source"]["sha256"])
    first = content["modules"][0]
    assert first["path"] == "model.layers.0.self_attn.q_proj"
    assert (first["layer"], first["projection"], first["rank"], first["dtype"]) == (0, "q_proj", 4, "float32")
    assert (first["shape"], first["scaling"], len(first["sigma"])) == ([16, 12], 2.0, 4)
    assert {"ssi", "normalised_ssi", "magnitude", "frobenius", "stable_rank", "kurtosis"} <= set(first["indices"])
    assert len(selected(result)) == 6
    assert call(capsys, "scan", adapter, "--format", "json", "--kurtosis", "--seed", "7").out == result.out


def test_undefined_values_are_null(zeros: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", zeros, "--format", "json")
    content = document(result)
    assert result.status == 0, "an adapter of zeros is a complete scan"
    assert content["plan"] is None
    assert {module["indices"]["ssi"] for module in content["modules"]} == {None}
    assert {module["indices"]["frobenius"] for module in content["modules"]} == {0.0}


def test_several_give_an_array(adapter: Path, zeros: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", adapter, zeros, "--format", "json")
    assert result.status == 0
    assert [one["source"]["name"] for one in document(result)] == ["adapter", "zeros"]
    text = call(capsys, "scan", adapter, zeros).out
    assert "\n\nzeros  peft" in text, "a blank line between two reports"


@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_output_is_what_would_be_printed(
    form: str, adapter: Path, zeros: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = call(capsys, "scan", adapter, zeros, "--format", form)
    written = call(capsys, "scan", adapter, zeros, "--format", form, "--output", tmp_path / "result")
    assert (written.status, written.out, written.err) == (0, "", "")
    assert (tmp_path / "result").read_text(encoding="utf-8") == printed.out


def test_csv_reads_back(adapter: Path, zeros: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", adapter, zeros, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert len(rows) == 24
    first = scan(adapter).modules[0]
    assert list(rows[0])[:3] == ["adapter", "sha256", "path"]
    assert rows[0]["path"] == first.path
    assert rows[0]["sha256"] == hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert (int(rows[0]["m"]), int(rows[0]["n"]), int(rows[0]["rank"])) == (16, 12, 4)
    assert float(rows[0]["ssi"]) == first.indices["ssi"], "every digit"
    assert tuple(map(float, rows[0]["sigma"].split())) == first.sigma
    assert sum(row["selected"] == "true" for row in rows) == 6
    assert rows[12] | {"adapter": "zeros", "ssi": "", "sigma": "", "zero": "true"} == rows[12]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("--top", "3"), 3),
        (("--top", "0"), 0),
        (("--fraction", "0.25"), 3),
        (("--threshold", "0"), 12),
        (("--projection", "v_proj", "--top", "99"), 6),
        (("--projection", "q_proj, v_proj", "--top", "99"), 12),
        (("--layers", "2-3", "--top", "99"), 4),
        (("--layers", "2", "--top", "99"), 2),
        (("--only", r"layers\.[01]\.", "--top", "99"), 4),
        (("--unit", "layer", "--top", "2"), 4),
        (("--unit", "layer", "--combine", "max", "--top", "1"), 2),
        (("--index", "random", "--top", "5"), 5),
        (("--index", "random-matched", "--match", "frobenius", "--top", "5"), 5),
        (("--index", "kurtosis", "--top", "4"), 4),
        (("--index", "weighted_ssi", "--top", "4"), 4),
        (("--index", "stable-rank", "--top", "4"), 4),
        (("--method", "svd", "--top", "1"), 1),
        (("--method", "spsvd", "--fit", "l1", "--sample", "8", "--top", "1"), 1),
        (("--method", "spsvd", "--fit", "l1", "--sample", "0", "--top", "1"), 1),
    ],
)
def test_selection_options(
    options: tuple[str, ...], count: int, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(selected(call(capsys, "scan", adapter, "--format", "json", *options))) == count


def test_adaptive_rules(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def plan(*options: str) -> Any:
        return document(call(capsys, "scan", adapter, "--format", "json", *options))["plan"]

    assert plan("--rule", "gap")["rule"] == "gap"
    assert plan("--rule", "outlier", "--z", "1")["rule"] == "outlier 1"
    assert plan("--rule", "outlier", "--z", "99")["chosen"] == []
    assert plan("--rule", "null", "--quantile", "0.9", "--draws", "50")["rule"] == "null 0.9"


def test_seed_and_rank(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def random(seed: int) -> list[str]:
        return selected(call(capsys, "scan", adapter, "--format", "json", "--index", "random", "--seed", seed))

    assert random(1) == random(1)
    assert any(random(1) != random(seed) for seed in range(2, 6))
    content = document(call(capsys, "scan", adapter, "--format", "json", "--rank", "2"))
    assert {len(module["sigma"]) for module in content["modules"]} == {2}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--top", "3", "--fraction", "0.1"), "--top and --fraction exclude each other; give one rule"),
        (("--threshold", "1", "--rule", "gap"), "--threshold and --rule exclude each other"),
        (("--fraction", "nan"), "fraction nan cannot be meant"),
        (("--threshold", "inf"), "must be a finite number"),
        (("--rule", "outlier", "--z", "0"), "must be above 0"),
        (("--rule", "null", "--quantile", "1"), "0 < q < 1"),
        (("--rule", "null", "--draws", "1000000000"), "20 to 100,000 draws"),
        (("--rule", "null", "--index", "magnitude"), "cannot judge magnitude"),
        (("--z", "2"), "s3lora: --z does nothing without --rule outlier\n"),
        (("--rule", "gap", "--z", "3.5"), "--z does nothing without --rule outlier"),
        (("--z", "2", "--fail-on", "selected"), "--z does nothing without --rule outlier"),
        (("--z", "0", "--fail-on", "outliers"), "must be above 0"),
        (("--quantile", "0.9"), "--quantile does nothing without --rule null"),
        (("--rule", "outlier", "--draws", "50"), "--draws does nothing without --rule null"),
        (("--match", "frobenius"), "--match does nothing without --index random-matched"),
        (("--index", "random", "--match", "ssi"), "--match does nothing without --index random-matched"),
        (("--combine", "max"), "--combine does nothing without --unit layer"),
        (("--fit", "l1"), "--fit does nothing without --method spsvd"),
        (("--sample", "8"), "--sample does nothing without --method spsvd"),
        (("--method", "spsvd", "--sample", "8"), "--sample does nothing without --fit l1"),
        (("--layers", "5-2"), "layers 5-2 is no range"),
        (("--layers", "-1"), "--layers -1 is no range; write for example 8-15, or 8"),
        (("--layers", "\x1b[2J"), "is no range"),
        (("--only", "("), "( is no regular expression"),
        (("--method", "spsvd", "--fit", "l1", "--sample", "1"), "sample must be 2 or more, not 1"),
        (("--fail-on", "sharp > 1"), "no rule to fail on: 'sharp > 1'; write for example 'ssi > 0.8'"),
    ],
)
def test_options_that_cannot_be_meant(
    options: tuple[str, ...], says: str, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = call(capsys, "scan", adapter, *options)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("s3lora: ")
    assert result.err.endswith("\n")
    assert says in result.err
    assert result.err[:-1].isprintable()


@pytest.mark.parametrize("options", [("--index", "sharpness"), ("--format", "xml"), ("--top", "-1"), ("--nope",), ()])
def test_wrong_use_is_told_with_the_usage(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", *options)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("Usage: s3lora scan [OPTIONS] PATH...\n")
    assert "Error: " in result.err


def test_nothing_passes_the_filter(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", adapter, "--projection", "k_proj")
    assert result.status == 3
    assert (
        result.err
        == f"s3lora: {adapter}: no module passes the filter (projection k_proj); its projections are q_proj, v_proj\n"
    )


@pytest.mark.parametrize(
    ("rule", "status"),
    [
        ("ssi > 0.01", 1),
        ("ssi>0.01", 1),
        ("  ssi  >=  0.01 ", 1),
        ("ssi > 1", 0),
        ("ssi > 1e-3", 1),
        ("stable-rank < 100", 1),
        ("stable_rank < 1", 0),
        ("magnitude > -1", 1),
        ("selected", 1),
        ("selected > 6", 0),
        ("selected == 6", 1),
        ("selected <= 5", 0),
        ("zero_updates", 0),
        ("zero-updates == 0", 1),
        ("outliers >= 0", 1),
        ("outliers > 12", 0),
        ("kurtosis > -10", 1),
        ("kurtosis < -10", 0),
    ],
)
def test_fail_on(rule: str, status: int, adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", adapter, "--fail-on", rule, "--format", "json")
    assert result.status == status
    assert len(document(result)["modules"]) == 12, "a finding is no error: the result is whole"
    found = [line for line in result.err.splitlines() if line.startswith(f"s3lora: {adapter}: finding: ")]
    assert bool(found) == (status == 1)
    assert len(found) == len(result.err.splitlines())
    assert all(line.endswith(f", rule {Gate.parse(rule)}") for line in found)


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "ssi",
        "ssi >",
        "> 0.8",
        "ssi > x",
        "ssi > 1.2.3",
        "ssi = 1",
        "ssi > 0.8 or 1",
        "SSI > 1",
        "sigma > 1",
        "a\nb",
    ],
)
def test_rules_that_are_none(rule: str) -> None:
    with pytest.raises(UsageError, match=r"is no number|no rule to fail on"):
        Gate.parse(rule)


def test_findings_name_modules_and_values(adapter: Path, zeros: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", adapter, "--fail-on", "ssi > 0.01", "--fail-on", "selected")
    lines = result.err.splitlines()
    assert len(lines) == 12
    sharpest = sorted(scan(adapter).modules, key=lambda module: -(module.indices["ssi"] or 0))
    for line, module in zip(lines, sharpest[:10], strict=False):
        value = f"{module.indices['ssi']:.4g}"
        assert line == f"s3lora: {adapter}: finding: {module.path}: ssi is {value}, rule ssi > 0.01"
    assert lines[10] == f"s3lora: {adapter}: finding: 2 more modules, rule ssi > 0.01"
    assert lines[-1] == f"s3lora: {adapter}: finding: selected is 6, rule selected > 0"
    result = call(capsys, "scan", zeros, "--fail-on", "zero_updates", "--fail-on", "ssi > 0", "--fail-on", "outliers")
    assert result.status == 1, "an adapter that was never trained has findings, though nothing can be selected"
    assert result.err == f"s3lora: {zeros}: finding: zero-updates is 12, rule zero-updates > 0\n"


@pytest.mark.parametrize(
    ("options", "passing"),
    [
        (("--layers", "0-0"), r"layers\.0\."),
        (("--projection", "v_proj"), "v_proj"),
        (("--only", r"\.[01]\..*q_"), r"\.[01]\..*q_proj"),
    ],
)
def test_rules_are_about_what_the_filters_let_pass(
    options: tuple[str, ...], passing: str, adapter: Path, zeros: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [path for path in LAYERS if re.search(passing, path)]
    result = call(capsys, "scan", adapter, *options, "--fail-on", "ssi > 0.01")
    assert result.status == 1
    assert sorted(line.split(": ")[3] for line in result.err.splitlines()) == sorted(paths)
    result = call(capsys, "scan", zeros, *options, "--fail-on", "zero-updates")
    assert result.err == f"s3lora: {zeros}: finding: zero-updates is {len(paths)}, rule zero-updates > 0\n"


def test_a_filter_that_nothing_passes_is_no_verdict(zeros: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "scan", zeros, "--projection", "k_proj", "--fail-on", "zero_updates")
    assert result.status == 3
    assert "no module passes the filter" in result.err


def test_quiet(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = call(capsys, "scan", adapter, "--quiet")
    assert (nothing.status, nothing.out) == (0, "")
    assert nothing.err.startswith("s3lora: no rule was given, here or in a policy: ")
    loud, quiet = (call(capsys, "scan", adapter, "nowhere", "--fail-on", "selected", *more) for more in ((), ("-q",)))
    assert (quiet.status, quiet.out, quiet.err) == (loud.status, "", loud.err)
    assert len(quiet.err.splitlines()) == 2
    refused = call(capsys, "scan", adapter, "--quiet", "--format", "json")
    assert (refused.status, refused.err) == (2, "s3lora: --quiet does nothing with --format json\n")


def test_a_report_in_a_file_is_quiet_anyway(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("report.txt", "report.json"):
        written = [tmp_path / f"{more}{name}" for more in ("", "quiet-")]
        for file, options in zip(written, ((), ("--quiet",)), strict=True):
            assert call(capsys, "scan", adapter, "-o", file, *options) == Result(0, "", "")
        assert written[0].read_bytes() == written[1].read_bytes()


def test_no_classifier_is_asked_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_adapter(tmp_path / "a", LAYERS, heads={"score.weight": np.ones((2, 16), "float32")},
                        config={"task_type": "SEQ_CLS", "modules_to_save": ["score"],
                                "base_model_name_or_path": "gpt2"})  # fmt: skip
    steps = next_steps(call(capsys, "scan", made))
    assert [step[1] for step in steps] == ["scan", "check"]
    told = " ".join(call(capsys, "check", made).out.split())
    assert "--base hf://openai-community/gpt2 tells" in told, "the Hub has no models without an owner any more"


def test_outliers_are_counted_as_they_are_chosen(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (("--z", "0.5"), ("--z", "0.5", "--projection", "v_proj"), ("--z", "1.5", "--layers", "0-4")):
        chosen = len(selected(call(capsys, "scan", adapter, "--rule", "outlier", *options, "--format", "json")))
        for rule in (("--rule", "outlier"), ()):
            result = call(capsys, "scan", adapter, *rule, *options, "--fail-on", "outliers >= 0")
            assert result.err == f"s3lora: {adapter}: finding: outliers is {chosen}, rule outliers >= 0\n"
            told = pruning(result)
            assert ("--z" in told) == bool(rule and told), "prune would refuse a --z without its rule"
    assert call(capsys, "scan", adapter, "--z", "0.5", "--fail-on", "outliers").status == 1
    assert call(capsys, "scan", adapter, "--z", "99", "--fail-on", "outliers").status == 0


def test_a_rule_about_what_was_not_measured(adapter: Path) -> None:
    measured = scan(adapter)
    with pytest.raises(SelectionError, match="the scan has no kurtosis"):
        Gate.parse("kurtosis > 3").findings(Asked(measured, select(measured)))


def test_the_gravest_status_counts(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2 before 3 before 1 before 0, in whatever order the paths are given."""
    empty, broken = bad.empty_folder(tmp_path / "empty"), bad.weights(bad.POINTER)(tmp_path / "broken")
    finding = ("--fail-on", "selected")
    for paths, options, status in (
        ((adapter,), (), 0),
        ((adapter, adapter), finding, 1),
        ((adapter, empty), finding, 3),
        ((empty, adapter), (), 3),
        ((broken, adapter, empty), finding, 2),
        ((empty, adapter, broken), (), 2),
    ):
        assert call(capsys, "scan", *paths, *options).status == status, (paths, options)


def test_real_adapters(capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared() / "adapters"
    result = call(capsys, "scan", *sorted(path for path in folder.iterdir() if path.is_dir()))
    assert result.status == 2, "among them are a pointer, two checkpoints in one folder, and a 3-D factor"
    assert len(result.err.splitlines()) == 3
    assert all(len(line) <= 80 and line == line.rstrip() for line in result.out.splitlines())


def test_a_method_that_cannot_score_every_module_never_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    wide, tall = {"layers.0.q_proj": (8, 12, 2)}, {"layers.1.q_proj": (12, 8, 2)}
    source = make_adapter(tmp_path / "source", wide | tall)
    assert run(["scan", str(source), "--method", "released", "--format", "json"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["modules"][1]["indices"]["ssi"] is None
    assert shown.err == f"s3lora: {source}: the scan is incomplete: 1 of 2 modules have no index\n"
    assert run(["scan", str(make_adapter(tmp_path / "wide", wide)), "--method", "released"]) == 0


def test_nothing_but_zeros_leaves_no_gap(zeros: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = call(capsys, "scan", zeros).out
    assert "zero" in text
    assert "\n\n\n" not in text


def test_next_steps_name_the_adapter_that_was_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"model.layers.0.self_attn.q_proj": (8, 6, 2), "model.layers.1.self_attn.q_proj": (8, 6, 2)}
    for name in ("first", "second"):
        make_adapter(tmp_path / "both" / name, sizes)
    shown = call(capsys, "scan", tmp_path / "both", "--adapter", "first")
    assert shown.status == 0
    assert " ".join(shown.out.replace("\\\n", " ").split()).count("--adapter first") == shown.out.count("s3lora ") >= 4


def test_no_prompts_are_offered_for_models_of_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {f"transformer_blocks.{i}.attn.to_q": (8, 6, 2) for i in range(2)}
    config = {"base_model_name_or_path": "black-forest-labs/FLUX.1-dev"}
    shown = call(capsys, "scan", make_adapter(tmp_path / "a", sizes, config=config))
    assert [step[1] for step in next_steps(shown)] == ["scan", "check"]
