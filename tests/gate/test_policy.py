"""A policy file: what it may say, what goes before it, and the line of what is wrong with it."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from s3lora.cli.options import CHOOSING
from s3lora.cli.scan import scan_command
from s3lora.errors import UsageError
from s3lora.gate.policy import KEYS, MAX_POLICY, Policy, find_policy, read_policy
from tests.command import Result, call
from tests.gated import good


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, the current one, with an adapter."""
    good(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def policy(folder: Path, text: str, name: str = "s3lora.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def scanned(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[Any, Result]:
    """Return the document of a scan, and how it ended."""
    result = call(capsys, "scan", "a", "--format", "json", *options)
    assert result.out, result.err
    return json.loads(result.out), result


def test_every_key_is_an_option_and_the_other_way_round() -> None:
    others = {"seed", "max_cost", "fail_on", "allow", "baseline", "reference"}
    assert {key.replace("-", "_") for key in KEYS} == {*CHOOSING, *others}
    options = {option.name: option for option in scan_command.params if isinstance(option, click.Option)}
    for key, kind in KEYS.items():
        option = options[key.replace("-", "_")]
        expected = {"integer": "a whole number", "float": "a number", "boolean": "true or false"}
        wanted = next((name for word, name in expected.items() if option.type.name.startswith(word)), "string")
        assert wanted in kind, key


def test_rules_and_options_come_from_a_policy(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy(desk, 'fail-on = ["selected > 1"]\nindex = "weighted_ssi"\ntop = 2\nlayers = "1-3"\nseed = 5\n')
    content, result = scanned(capsys)
    assert (result.status, content["plan"]["index"], content["plan"]["rule"]) == (1, "weighted_ssi", "top 2")
    assert (content["plan"]["only"], content["configuration"]["seed"]) == ("layers 1-3", 5)
    assert result.err.splitlines() == [
        "s3lora: policy: s3lora.toml",
        "s3lora: a: finding: selected is 2, rule selected > 1",
    ]


def test_pyproject(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy(desk, '[project]\nname = "x"\n\n[tool.s3lora]\nfraction = 0.25\n', "pyproject.toml")
    content, result = scanned(capsys)
    assert (content["plan"]["rule"], result.err) == ("fraction 0.25", "s3lora: policy: pyproject.toml\n")


@pytest.mark.parametrize("text", ["", '[project]\nname = "x"\n', "[tool.other]\nx = 1\n", "this is [no TOML"])
def test_a_project_that_does_not_name_us_is_not_read(text: str, desk: Path, capsys: Any) -> None:
    policy(desk, text, "pyproject.toml")
    assert scanned(capsys)[1] == Result(0, scanned(capsys)[1].out, "")


def test_a_project_that_names_us_elsewhere(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy(desk, '[project]\nname = "s3lora"\n[tool.other]\ns3lora = 1\n', "pyproject.toml")
    assert scanned(capsys)[1].err == ""


def test_only_the_working_directory_counts(desk: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy(desk, "top = 1\n")
    policy(desk / "a", "top = 3\n")
    (desk / "b").mkdir()
    monkeypatch.chdir(desk / "b")
    result = call(capsys, "scan", "../a", "--format", "json")
    assert (json.loads(result.out)["plan"]["rule"], result.err) == ("top 10", "")


def test_no_policy(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy(desk, "no TOML at all\n")
    content, result = scanned(capsys, "--no-policy")
    assert (content["plan"]["rule"], result.status, result.err) == ("top 10", 0, "")
    result = call(capsys, "scan", "a", "--no-policy", "--policy", "x.toml")
    assert (result.status, result.err) == (2, "s3lora: --policy and --no-policy exclude each other\n")


def test_another_file(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy(desk, "top = 1\n")
    (desk / "ci").mkdir()
    policy(desk / "ci", "top = 2\n", "strict.toml")
    policy(desk / "ci", "[tool.s3lora]\ntop = 3\n", "pyproject.toml")
    assert scanned(capsys, "--policy", "ci/strict.toml")[0]["plan"]["rule"] == "top 2"
    content, result = scanned(capsys, "--policy", "ci/pyproject.toml")
    assert (content["plan"]["rule"], result.err) == ("top 3", "s3lora: policy: ci/pyproject.toml\n")


def test_help_needs_no_valid_policy(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy(desk, "no TOML at all\n")
    assert call(capsys, "scan", "--help").status == 0


@pytest.mark.parametrize(
    ("text", "options", "rule"),
    [
        ("top = 3", (), "top 3"),
        ("top = 3", ("--top", "1"), "top 1"),
        ("top = 3", ("--fraction", "0.5"), "fraction 0.5"),
        ('rule = "outlier"\nz = 2', (), "outlier 2"),
        ('rule = "outlier"', ("--z", "4"), "outlier 4"),
        ('rule = "outlier"\nz = 2', ("--z", "4"), "outlier 4"),
        ('rule = "outlier"\nz = 2', ("--top", "1"), "top 1"),
        ('rule = "null"\nquantile = 0.9\ndraws = 50', ("--rule", "gap"), "gap"),
        ('preset = "paper"', (), "top 10"),
        ('preset = "paper"\ntop = 2', (), "top 2"),
        ('preset = "paper"', ("--top", "1"), "top 1"),
        ("top = 3", ("--preset", "paper"), "top 10"),
        ("threshold = 1", ("--preset", "paper"), "top 10"),
        ("threshold = 0", (), "threshold 0"),
    ],
)
def test_the_command_line_goes_before(
    text: str, options: tuple[str, ...], rule: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy(desk, text)
    assert scanned(capsys, *options)[0]["plan"]["rule"] == rule


def test_a_preset_of_the_command_line_goes_before_its_parts(desk: Path, capsys: Any) -> None:
    policy(desk, 'method = "svd"\nindex = "magnitude"\nseed = 3\n')
    content = scanned(capsys)[0]
    assert (content["configuration"]["method"], content["plan"]["index"]) == ("svd", "magnitude")
    content = scanned(capsys, "--preset", "paper")[0]
    assert (content["configuration"]["method"], content["plan"]["index"]) == ("mas-svd", "ssi")
    assert content["configuration"]["seed"] == 3, "which a preset does not name"
    policy(desk, 'preset = "paper"\nmethod = "svd"\n')
    assert scanned(capsys)[0]["configuration"]["method"] == "svd", "what stands beside a preset goes before"


def test_rules_of_the_command_line_replace_those_of_the_policy(desk: Path, capsys: Any) -> None:
    policy(desk, 'fail-on = ["selected > 0"]\n')
    assert scanned(capsys)[1].status == 1
    assert scanned(capsys, "--fail-on", "zero-updates")[1].status == 0


def test_lists_and_switches(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy(desk, 'projection = ["q_proj", "k_proj"]\nkurtosis = true\n')
    content = scanned(capsys)[0]
    assert content["plan"]["only"] == "projection q_proj,k_proj"
    assert content["configuration"]["kurtosis"]
    policy(desk, 'projection = "v_proj"\nkurtosis = false\n')
    content = scanned(capsys)[0]
    assert (content["plan"]["only"], content["configuration"]["kurtosis"]) == ("projection v_proj", False)


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("top = 2\nkurtosis = true", (), ["--kurtosis", "--top", "2"]),
        ("top = 2\nkurtosis = false", (), ["--top", "2"]),
        ('rule = "outlier"\nz = 0.5', ("--top", "2"), ["--top", "2"]),
        ('fail-on = ["outliers > 99"]\nz = 0.5\ntop = 2', (), ["--top", "2"]),
        ('method = "spsvd"\nfit = "l1"\nsample = 8\ntop = 1', ("--method", "svd"), ["--method", "svd", "--top", "1"]),
        ('preset = "paper"\nonly = "q_proj"\ntop = 1', (), ["--preset", "paper", "--top", "1", "--only", "q_proj"]),
    ],
)
def test_the_next_step_spells_the_policy_out(
    text: str, options: tuple[str, ...], told: list[str], desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`prune` reads no policy, and must prune what the report has marked."""
    policy(desk, text)
    result = call(capsys, "scan", "a", *options)
    command = "".join(result.out.partition("\n      s3lora prune ")[1:])
    words = command.replace("\\\n", "").split()
    assert words == ["s3lora", "prune", "a", *told, "-o", "PRUNED"]
    assert call(capsys, *words[1:-1], desk / "out").status == 0


#: text of the file, line of the error, what it says
WRONG = [
    ("top = 3\ntopp = 3", 2, "no key 'topp' in a policy; did you mean top?"),
    ("fail_on = []", 1, "no key 'fail_on' in a policy; did you mean fail-on?"),
    ("zzzzzz = 1", 1, "no key 'zzzzzz' in a policy; choose one of fail-on, allow, baseline, "),
    ("\n\n[section]\ntop = 3", 3, "no key 'section' in a policy"),
    ('top = "3"', 1, "top must be a whole number, not '3'"),
    ("top = 3.5", 1, "top must be a whole number, not 3.5"),
    ("top = true", 1, "top must be a whole number, not True"),
    ("seed = 99999999999999999999", 1, "seed must be a whole number, not 99999999999999999999"),
    (f"seed = {'9' * 5000}", 1, ""),
    (f"z = {'9' * 400}", 1, "z must be a number"),
    ("kurtosis = 1", 1, "kurtosis must be true or false, not 1"),
    ("method = 3", 1, "method must be a string, not 3"),
    ('fail-on = "ssi > 1"', 1, "fail-on must be a list of strings, not 'ssi > 1'"),
    ('fail-on = ["ssi > 1", 2]', 1, "fail-on must be a list of strings"),
    ("only = ['a']", 1, "only must be a string, not ['a']"),
    ("projection = 1", 1, "projection must be a string or a list of strings, not 1"),
    ("projection = [1]", 1, "projection must be a string or a list of strings, not [1]"),
    ("# top\nfail-on = [\n  # sharp\n  'ssi > 0.9',\n  'sharp > 1',\n]\n", 5, "no rule to fail on: 'sharp > 1'"),
    ("fail-on = ['ssi > 1.2.3']", 1, "'1.2.3' is no number"),
    ("top = 1\n\nfraction = 0.5", 3, "top and fraction exclude each other; give one of them"),
    ("rule = 'gap'\nthreshold = 1", 2, "rule and threshold exclude each other"),
    ("top = -1", 1, "top: -1 is not in the range"),
    ("rank = 0", 1, "rank: 0 is not in the range"),
    ("fraction = 1.5", 1, "fraction: 1.5 is not in the range"),
    ("fraction = nan", 1, "fraction nan cannot be meant"),
    ("# most\nmax-cost = nan", 2, "max-cost: max_cost must be above 0, not nan"),
    ("threshold = inf", 1, "threshold: the threshold must be a finite number"),
    ("rule = 'outlier'\nz = 0", 2, "z: the z-score of the outlier rule must be above 0"),
    ("rule = 'null'\nquantile = 1.0", 2, "quantile: the null rule needs 0 < q < 1"),
    ("rule = 'null'\ndraws = 1", 2, "draws: the null rule needs"),
    ("method = 'magic'", 1, "method: 'magic' is not one of 'mas-svd'"),
    ("index = 'sharpness'", 1, "index: 'sharpness' is not one of"),
    ("preset = 'best'", 1, "preset: 'best' is not"),
    ("layers = '5-2'", 1, "layers"),
    ("layers = 'all'", 1, "layers all is no range; write for example 8-15, or 8"),
    ("only = '('", 1, "( is no regular expression"),
    ("seed = 1\nz = 3", 2, 'z does nothing without rule = "outlier"'),
    ("rule = 'gap'\nquantile = 0.9", 2, 'quantile does nothing without rule = "null"'),
    ("method = 'spsvd'\nsample = 4", 2, 'sample does nothing without fit = "l1"'),
    ("preset = 'paper'\nfit = 'l1'", 2, 'fit does nothing without method = "spsvd"'),
    ("top = 3\ntop = 4", 2, "is no valid TOML: "),
    ("top = 3\nrank = ", 2, "is no valid TOML: "),
    ("top = [\n1,\n2", 3, "is no valid TOML: "),
    ("x = 1\n\n[[[", 3, "is no valid TOML: "),
    ("x = " + "[" * 5000, 1, "is no valid TOML: "),
]


@pytest.mark.parametrize(("text", "line", "says"), WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("shared", [False, True])
def test_the_line_of_what_is_wrong(
    text: str, line: int, says: str, shared: bool, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shared:
        policy(desk, f"[project]\nname = 'top, fail-on'\n\n[tool.s3lora]\n{text}", "pyproject.toml")
        text = text.replace("[section]", "[tool.s3lora.section]")
        policy(desk, f"[project]\nname = 'top, fail-on'\n\n[tool.s3lora]\n{text}", "pyproject.toml")
    else:
        policy(desk, text)
    result = call(capsys, "scan", "a", "--format", "json")
    assert (result.status, result.out) == (2, "")
    name = "pyproject.toml" if shared else "s3lora.toml"
    assert result.err.startswith(f"s3lora: {name}:{line + 4 * shared}: "), result.err
    assert says in result.err
    assert result.err.count("\n") == 1
    assert result.err[:-1].isprintable()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("tool.s3lora.top = 'x'", 1),
        ("[tool]\ns3lora = {seed = 1, top = 'x'}", 2),
        ("[tool]\ns3lora.seed = 1\ns3lora.top = 'x'", 3),
        ("[tool.'s3lora']\n\"top\" = 'x'", 2),
        ("[other]\ntop = 1\n[tool.s3lora]\nonly = '''\ntop = 3\n'''\ntop = 'x'", 7),
        ("[other]\ntop = '''\n[tool.s3lora]\n'''\n[tool.s3lora]\n#top\ntop = [\n]\n", 7),
        ("[tool]\ns3lora = 3\n", 2),
        ("[[tool.s3lora]]\ntop = 1\n", 1),
        ("[tool.s3lora]\r\nseed = 1\r\ntop = 'x'\r\n", 3),
    ],
)
def test_the_line_however_it_is_written(text: str, line: int, tmp_path: Path) -> None:
    file = policy(tmp_path, text, "pyproject.toml")
    (tmp_path / "pyproject.toml").write_bytes(text.encode())
    with pytest.raises(UsageError) as raised:
        read_policy(file)
    assert str(raised.value).startswith(f"{file}:{line}: "), raised.value


def test_files_that_are_no_policy(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "folder.toml").mkdir()
    (desk / "latin.toml").write_bytes(b"top = 3\n# caf\xe9\n")
    (desk / "large.toml").write_bytes(b"#" * (MAX_POLICY + 1))
    (desk / "sub").mkdir()
    policy(desk / "sub", "[tool.other]\n", "pyproject.toml")
    for name, says in (
        ("nowhere.toml", "nowhere.toml: cannot be read (No such file or directory)"),
        ("folder.toml", "folder.toml: cannot be read (not a regular file)"),
        ("latin.toml", "latin.toml:2: is not UTF-8, as TOML must be"),
        ("large.toml", "large.toml: cannot be read (larger than 1,048,576 bytes)"),
        ("sub/pyproject.toml", "sub/pyproject.toml: has no [tool.s3lora]"),
        ("x\0.toml", "an argument holds a null character"),
    ):
        result = call(capsys, "scan", "a", "--policy", name)
        assert (result.status, result.out) == (2, ""), name
        assert says in result.err


@pytest.mark.parametrize("name", ["s3lora.toml", "pyproject.toml"])
@pytest.mark.parametrize("kind", ["link to nowhere", "link to itself", "folder", "pipe"])
def test_what_stands_in_the_place_of_a_policy_does_not_switch_the_gate_off(
    name: str, kind: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "folder":
        (desk / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(desk / name)
    else:
        (desk / name).symlink_to("nowhere" if kind == "link to nowhere" else name)
    result = call(capsys, "scan", "a", "-q")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"s3lora: {name}: cannot be read (")


def test_two_policies_are_one_too_many(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy(desk, "top = 1\n")
    policy(desk, "[tool.s3lora]\ntop = 2\n", "pyproject.toml")
    result = call(capsys, "scan", "a")
    assert result.status == 2
    assert result.err == (
        "s3lora: s3lora.toml and pyproject.toml both hold a policy; keep one of them, or name one with --policy\n"
    )
    assert scanned(capsys, "--policy", "s3lora.toml")[0]["plan"]["rule"] == "top 1"
    policy(desk, "[tool.other]\ns3lora = 1\n", "pyproject.toml")
    assert scanned(capsys)[0]["plan"]["rule"] == "top 1", "a project without a policy is no second one"


def test_an_empty_policy_is_one(tmp_path: Path) -> None:
    found = find_policy(policy(tmp_path, "").parent)
    assert found is not None
    assert found.values == {}
    (tmp_path / "s3lora.toml").unlink()
    assert find_policy(tmp_path) is None


def test_nothing_is_lost_beside_other_options(tmp_path: Path) -> None:
    values = {"top": 3, "method": "svd", "seed": 1}
    found = Policy(tmp_path, values, "", ())
    assert found.beside(()) == values
    assert found.beside(("output", "form", "paths")) == values
    assert found.beside(("rule",)) == {"method": "svd", "seed": 1}
    assert found.beside(("preset",)) == {"seed": 1}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the standard library has no TOML reader before 3.11")
def test_no_toml_reader_is_imported_without_a_policy(desk: Path) -> None:
    from tests.test_architecture import loaded_after

    run = "import os\nos.chdir(sys.argv[1])\nfrom s3lora.cli.main import run\nassert run(['scan', 'a']) == 0"
    assert "tomllib" not in loaded_after(run, desk)
    policy(desk, "top = 1\n")
    assert "tomllib" in loaded_after(run, desk)


def test_every_key_stands_in_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "gating.md").read_text(encoding="utf-8")
    table = page.partition("| key | value |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z-]+)`", table)) - {"true", "false"} == set(KEYS)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "s3lora.toml",
            '[tool.s3lora]\nfail-on = ["strict"]\n',
            "s3lora.toml:1: has [tool.s3lora]; only pyproject.toml has ",
        ),
        (
            "ci.toml",
            '\n[s3lora]\nfail-on = ["strict"]\n',
            "ci.toml:2: has [s3lora]; only pyproject.toml has such a table",
        ),
        ("pyproject.toml", '[s3lora]\nfail-on = ["strict"]\n', "in pyproject.toml the keys stand under [tool.s3lora]"),
        ("pyproject.toml", 'fail-on = ["strict"]\n', "has no [tool.s3lora]; in pyproject.toml the keys stand under"),
    ],
)
def test_keys_that_stand_as_in_the_other_file(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        read_policy(tmp_path / name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_nobody_would_read_is_an_error(tmp_path: Path) -> None:
    """A gate that is left out without a word would pass everything."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n\n[s3lora]\nfail-on = ["strict"]\n')
    with pytest.raises(UsageError, match=r"pyproject\.toml:4: has \[s3lora\] and no \[tool\.s3lora\]"):
        find_policy(tmp_path)
