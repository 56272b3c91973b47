"""The GitHub Action, by running what it runs: its steps, in the shell and the environment that GitHub gives them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gated import LAYERS, good
from tests.hostile import bad_files as bad
from tests.support import write_safetensors
from tests.vendored import check
from tests.watched import PATIENCE

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["id"]: step for step in ACTION["runs"]["steps"]}
EXPRESSION = re.compile(r"\$\{\{ ([a-z._-]+) \}\}")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="GitHub runs the steps in bash")


@dataclass(frozen=True)
class Ran:
    status: int
    log: str
    outputs: dict[str, str]
    summary: str = ""

    @property
    def obeyed(self) -> list[str]:
        """Return the commands that a runner would have obeyed, other than those that stop and resume it."""
        token, found = None, []
        for line in self.log.splitlines():
            command = line.strip()
            if token is not None:
                token = None if command == f"::{token}::" else token
            elif command.startswith("::stop-commands::"):
                token = command.removeprefix("::stop-commands::")
            elif re.match(r"::[a-z-]+.*::", command) or "##[" in command:
                found.append(command)
        assert token is None, "the runner stays deaf for the rest of the job"
        return found


def run_step(name: str, folder: Path, python: str = sys.executable, **inputs: str) -> Ran:
    """Run a step with these inputs, underscores for hyphens, in the folder as its workspace."""
    given = {key: value.get("default", "") for key, value in ACTION["inputs"].items()}
    given |= {key.replace("_", "-"): value for key, value in inputs.items()}
    known = {f"inputs.{key}": value for key, value in given.items()}
    known |= {"github.action_path": str(ROOT), "steps.install.outputs.python": python}
    step, temp = STEPS[name], folder.parent / f"{folder.name}-runner"
    temp.mkdir(exist_ok=True)
    written, summary, script = temp / "output", temp / "summary", temp / "script.sh"
    written.write_text("")
    summary.write_text("")
    script.write_text(step["run"])
    variables = {key: EXPRESSION.sub(lambda found: known[found[1]], value) for key, value in step["env"].items()}
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "OMP_NUM_THREADS") if key in os.environ}
    pip = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
        cwd=folder / EXPRESSION.sub(lambda found: known[found[1]], step.get("working-directory", ".")),
        env={
            **kept,
            **pip,
            **variables,
            "RUNNER_TEMP": str(temp),
            "GITHUB_ACTION": name,
            "GITHUB_WORKSPACE": str(folder),
            "GITHUB_OUTPUT": str(written),
            "GITHUB_STEP_SUMMARY": str(summary),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        check=False,
    )
    lines = [line.partition("=") for line in written.read_text().splitlines()]
    outputs = {name: value for name, _, value in lines}
    return Ran(done.returncode, done.stdout.decode(errors="replace"), outputs, summary.read_text())


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    good(folder / "adapters" / "a")
    good(folder / "adapters" / "b c", seed=1)
    return folder


def test_no_input_is_part_of_a_script() -> None:
    for step in STEPS.values():
        assert "${{" not in step["run"]
        assert step["shell"] == "bash"
    wired = {found for step in STEPS.values() for value in step["env"].values() for found in EXPRESSION.findall(value)}
    wired |= set(EXPRESSION.findall(STEPS["scan"]["working-directory"]))
    assert {f"inputs.{name}" for name in ACTION["inputs"]} < wired, "every input is used"


def test_it_is_valid_by_the_schema_of_actions() -> None:
    check((ROOT / "action.yml").read_text(encoding="utf-8"), "github-actions")


def test_inputs_and_outputs_are_documented() -> None:
    page = (ROOT / "docs" / "gating.md").read_text(encoding="utf-8")
    table = page.partition("| input | meaning |")[2].partition("\n\n")
    assert re.findall(r"^\| `([a-z-]+)` \|", table[0], re.MULTILINE) == list(ACTION["inputs"])
    assert all(f"`{name}`" in table[2].partition("\n\n")[0] for name in ACTION["outputs"])


def test_no_rule_holds(desk: Path) -> None:
    ran = run_step("scan", desk, paths="adapters/a", fail_on="ssi > 1")
    assert (ran.status, ran.outputs) == (0, {"status": "0"})
    assert "would prune 4 of 8 modules" in " ".join(ran.log.split())


def test_a_rule_holds(desk: Path) -> None:
    ran = run_step("scan", desk, paths="adapters/*", fail_on="ssi > 1\nselected > 3", format="sarif", output="o.sarif")
    assert (ran.status, ran.outputs) == (1, {"status": "1", "output": "o.sarif"})
    assert "s3lora: adapters/b c: finding: selected is 4, rule selected > 3" in ran.log
    results = json.loads((desk / "o.sarif").read_text())["runs"][0]["results"]
    uris = [one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in results]
    assert uris == ["adapters/a/adapter_model.safetensors", "adapters/b%20c/adapter_model.safetensors"]


def test_errors_and_nothing_to_audit(desk: Path) -> None:
    ran = run_step("scan", desk, paths="adapters/a\nnowhere")
    assert (ran.status, ran.outputs) == (2, {"status": "2"})
    assert "s3lora: nowhere: no such file or folder" in ran.log
    bad.empty_folder(desk / "empty")
    ran = run_step("scan", desk, paths="empty", format="junit", output="o.xml")
    assert (ran.status, ran.outputs) == (3, {"status": "3", "output": "o.xml"})
    ran = run_step("scan", desk, paths=" \n\n")
    assert (ran.status, ran.outputs) == (2, {"status": "2"})
    assert "the input paths is empty" in ran.log


def test_policy_baseline_arguments_and_folder(desk: Path) -> None:
    (desk / "s3lora.toml").write_text('fail-on = ["selected > 0"]\n')
    (desk / "ci.toml").write_text('fail-on = ["selected > 1"]\ntop = 2\n')
    assert run_step("scan", desk, paths="adapters/a", format="sarif", output="known.sarif").status == 1
    assert run_step("scan", desk, paths="adapters/a", policy="none").status == 0
    assert "rule selected > 1" in run_step("scan", desk, paths="adapters/a", policy="ci.toml").log
    assert run_step("scan", desk, paths="adapters/a", baseline="known.sarif").status == 0
    ran = run_step(
        "scan", desk, paths="adapters/a", args="--method=svd\n--only\nq_proj\n", format="json", output="o.json"
    )
    assert ran.status == 1
    content = json.loads((desk / "o.json").read_text())
    assert (content["configuration"]["method"], content["plan"]["only"]) == ("svd", "path ~ q_proj")
    assert run_step("scan", desk, paths="a", working_directory="adapters").status == 0, "which has no policy"


def test_paths_are_files_before_they_are_patterns(desk: Path) -> None:
    good(desk / "x[1]")
    good(desk / "x1")
    ran = run_step("scan", desk, paths="x[1]\n  adapters/b c\n", format="json", output="o.json")
    names = [one["source"]["name"] for one in json.loads((desk / "o.json").read_text())]
    assert (ran.status, names) == (0, ["x[1]", "b c"])


def test_findings_are_annotations_and_the_summary_of_the_job(desk: Path) -> None:
    """What GitHub shows besides the log: a note at each file, and a table on the page of the run."""
    ran = run_step("scan", desk, paths="adapters/*\nnowhere", fail_on="ssi > 0.9\nselected > 3", allow="heads")
    assert ran.status == 2
    found = [(f"adapters/{name}/adapter_model.safetensors", name) for name in ("a", "b c")]
    said = "selected is 4 of 8 modules, rule selected > 3. They are model.layers."
    first, *others = ran.obeyed
    assert first == "::error file=nowhere,line=1,title=s3lora S3L900::nowhere: no such file or folder"
    assert [one.partition(said)[0] for one in others] == [
        f"::warning file={file},line=1,title=s3lora S3L002::{name}: " for file, name in found
    ]
    head, told, rows = ran.summary.strip().split("\n\n")
    assert (head, told) == ("### s3lora scan", "Something could not be scanned.")
    assert rows.splitlines()[2] == "| error | S3L900 | `nowhere` | nowhere: no such file or folder |"
    assert [one.partition(" selected is 4")[0] for one in rows.splitlines()[3:]] == [
        f"| warning | S3L002 | `{file}` | {name}:" for file, name in found
    ]


def test_what_kept_the_scan_from_a_result_is_told_where_people_look(desk: Path) -> None:
    ran = run_step("scan", desk, paths="adapters/a", fail_on="ssi > high")
    assert ran.status == 2
    [note] = ran.obeyed
    assert note.startswith("::error title=s3lora::s3lora: no rule to fail on: 'ssi > high'")
    head, told, why = ran.summary.strip().split("\n\n")
    assert (head, told) == ("### s3lora scan", "Something could not be scanned.")
    assert "no rule to fail on: 'ssi &gt; high'" in why


def test_a_file_that_was_there_before_is_no_output(desk: Path) -> None:
    """A pull request may bring one by this name, and the next step would upload it."""
    (desk / "res.sarif").write_text("the sender's")
    failed = run_step("scan", desk, paths="adapters/a", fail_on="nonsense", format="sarif", output="res.sarif")
    assert failed.outputs == {"status": "2"}
    assert (desk / "res.sarif").read_text() == "the sender's"
    done = run_step("scan", desk, paths="adapters/a", fail_on="ssi > 1", format="sarif", output="res.sarif")
    assert done.outputs == {"status": "0", "output": "res.sarif"}
    assert json.loads((desk / "res.sarif").read_text())["version"] == "2.1.0"


@pytest.mark.parametrize(("rule", "status"), [("ssi > 1", 0), ("ssi > 0", 1)])
def test_a_result_that_was_written_elsewhere_is_no_failure(rule: str, status: int, desk: Path) -> None:
    ran = run_step("scan", desk, paths="adapters/a", fail_on=rule, args="--sarif=own.sarif")
    assert (ran.status, ran.obeyed) == (status, [])
    assert ran.summary == f"### s3lora scan\n\n{'A rule holds' if status else 'No rule holds'}.\n"


def test_annotations_name_files_from_the_root(desk: Path) -> None:
    ran = run_step("scan", desk, paths="a", working_directory="adapters", fail_on="selected")
    assert [one.partition(",")[0] for one in ran.obeyed] == ["::warning file=adapters/a/adapter_model.safetensors"]


def test_a_scan_without_findings_says_so(desk: Path) -> None:
    ran = run_step("scan", desk, paths="adapters/a", fail_on="ssi > 1")
    assert (ran.obeyed, ran.summary) == ([], "### s3lora scan\n\nNo rule holds.\n")
    assert "not be scanned.\n" in run_step("scan", desk, paths="adapters/a", fail_on="nonsense").summary


HOSTILE = [
    "; touch x",
    "$(touch x)",
    "`touch x`",
    "'; touch x; '",
    '"; touch x; "',
    "a\n; touch x",
    "&& touch x",
    "| touch x",
    "${IFS}touch${IFS}x",
    "--help",
    "-h",
    "$HOME",
    "*",
    "\\",
    "%s%n",
]


@pytest.fixture
def recorder(desk: Path) -> Path:
    """Return a program in the place of Python that keeps the arguments of the scan, and scans nothing."""
    program = desk.parent / "recorder"
    keep = f"printf '%s\\0' \"$@\" > {desk.parent}/seen"
    program.write_text(f'#!/bin/bash\nif [ "$2" = -c ]; then echo token; elif [ "$3" = s3lora ]; then {keep}; fi\n')
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    "text",
    [
        text
        if text in ("$(touch x)", "a\n; touch x", "*", "--help")
        else pytest.param(text, marks=pytest.mark.thorough)
        for text in HOSTILE
    ],
)
def test_hostile_inputs_are_single_arguments(text: str, desk: Path, recorder: Path) -> None:
    """Each reaches the scan as it is, a line an argument; nothing in it is run, split or expanded."""
    lines = [line.strip() for line in text.splitlines()]
    before = sorted(desk.iterdir())
    for name, option in (("fail_on", "--fail-on={}"), ("policy", "--policy={}"), ("baseline", "--baseline={}"),
                         ("format", "--format={}"), ("args", "{}"), ("paths", "{}")):  # fmt: skip
        ran = run_step("scan", desk, str(recorder), **({"paths": "adapters/a"} | {name: text}))
        assert (ran.status, ran.outputs, sorted(desk.iterdir())) == (0, {"status": "0"}, before), ran.log
        seen = (desk.parent / "seen").read_bytes().decode().split("\0")[:-1]
        assert seen[:4] == ["-I", "-m", "s3lora", "scan"]
        given = lines if name in ("fail_on", "args", "paths") else [text]
        if name == "paths" and text == "*":
            given = [path.name for path in before]
        given = [option.format(part) for part in given]
        before_paths, paths = seen[4 : seen.index("--", 4)], seen[seen.index("--", 4) + 1 :]
        assert before_paths.pop(1) == f"--sarif={desk.parent}/workspace-runner/s3lora-scan.sarif"
        if name == "paths":
            assert (before_paths, paths) == (["--format=text"], given)
        elif name == "format":
            assert (before_paths, paths) == (given, ["adapters/a"])
        else:
            assert (before_paths, paths) == (["--format=text", *given], ["adapters/a"])


def test_hostile_inputs_end_in_a_sentence(desk: Path) -> None:
    before = sorted(desk.iterdir())
    text = "$(touch x); `touch x` ' \" \\ *"
    for name in ("paths", "fail_on", "policy"):
        ran = run_step("scan", desk, **({"paths": "adapters/a"} | {name: text}))
        assert (ran.status, ran.outputs, len(ran.obeyed)) == (2, {"status": "2"}, 1)
        assert "s3lora: " in ran.log
    assert sorted(desk.iterdir()) == before


@pytest.mark.parametrize("text", ["o\nstatus=0", "o\noutput=/etc/passwd", "\n"])
def test_an_output_of_two_lines_is_refused(text: str, desk: Path) -> None:
    ran = run_step("scan", desk, paths="adapters/a", output=text)
    assert (ran.status, ran.outputs) == (2, {"status": "2"})


def test_a_hostile_output_is_a_name(desk: Path) -> None:
    ran = run_step("scan", desk, paths="adapters/a", output="; touch x", format="json")
    assert (ran.status, ran.outputs) == (0, {"status": "0", "output": "; touch x"})
    assert not (desk / "x").exists()
    assert (desk / "; touch x").is_file()


def test_names_in_adapters_command_no_runner(desk: Path) -> None:
    """GitHub takes a line of the log that begins with `::name::`, after spaces, for a command, and `##[` anywhere."""
    tensors = {}
    for path in (*list(LAYERS)[:3], "::add-mask::secret", "x.##[error]y"):
        tensors[f"base_model.model.{path}.lora_A.weight"] = np.ones((1, 6), np.float32)
        tensors[f"base_model.model.{path}.lora_B.weight"] = np.ones((5, 1), np.float32)
    write_safetensors(good(desk / "evil") / "adapter_model.safetensors", tensors)
    ran = run_step("scan", desk, paths="evil", fail_on="magnitude > 0")
    assert ran.status == 1
    assert "::add-mask::secret" in ran.log
    assert r"#\#[error]" in ran.log
    ours = r"::(error|warning) file=evil/adapter_model\.safetensors,line=1,title=s3lora S3L0\d\d::evil: "
    assert len(ran.obeyed) == 2
    assert all(re.match(ours, told) for told in ran.obeyed)
    assert "##[" not in ran.log
    tokens = {re.findall(r"::stop-commands::(\S+)", run_step("scan", desk, paths="evil").log)[0] for _ in range(2)}
    assert len(tokens) == 2, "nobody can know it beforehand"


def test_no_module_is_imported_from_the_workspace(desk: Path) -> None:
    for name in ("s3lora", "numpy", "secrets", "click", "tomllib"):
        (desk / f"{name}.py").write_text("open('imported', 'w')\nraise SystemExit(0)\n")
    ran = run_step("scan", desk, paths="adapters/a", fail_on="selected")
    assert ran.status == 1
    assert not (desk / "imported").exists()


@pytest.mark.slow
def test_it_installs_itself(desk: Path) -> None:
    ran = run_step("install", desk)
    assert ran.status == 0, ran.log
    python = ran.outputs["python"]
    assert Path(python).is_relative_to(desk.parent)
    scanned = run_step("scan", desk, python=python, paths="adapters/a", fail_on="selected")
    assert scanned.status == 1
