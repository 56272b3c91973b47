"""What docs/gating.md shows for other programs: policies that can be meant, and files valid by their schemas."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from s3lora.gate.allow import allowed_names
from s3lora.gate.conditions import CONDITIONS, strict
from s3lora.gate.findings import Gate
from tests.command import call
from tests.gated import good
from tests.vendored import check

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "gating.md").read_text(encoding="utf-8")
#: The page to begin with, which has what is to be copied.
FIRST = (ROOT / "docs" / "gate-a-repository.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", [*blocks("toml", FIRST), *blocks("toml")])
def test_policies_can_be_meant(text: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = text.splitlines()[0].removeprefix("# ")
    monkeypatch.chdir(tmp_path)
    good(tmp_path / "a")
    (tmp_path / name).write_text(text)
    if "baseline" in text:
        call(capsys, "scan", "a", "--no-policy", "--fail-on", "selected", "--format", "sarif", "-o", "accepted.sarif")
    result = call(capsys, "scan", "a", "--layers", "0-1")
    assert result.status in (0, 1), result.err
    assert result.err.startswith(f"s3lora: policy: {name}\n")


def test_the_message_that_is_shown(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = blocks("text")
    head, _, rest = shown.strip().partition("…")
    assert rest == ""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("\n" * 5 + "[tool.s3lora]\nfail-on = ['sharp > 1']\n")
    assert call(capsys, "scan", "a").err.startswith(head)


def test_the_rules_in_the_table() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| .* \| ([^|]*) \| (S3L\d+) \|$", PAGE, re.MULTILINE)
    for rule, asked, identity in rows:
        gate = Gate.parse(rule)
        assert gate.id == identity
        condition = CONDITIONS.get(gate.metric)
        by = ["`strict`"] * (condition is not None and condition.strict)
        assert asked.strip() == ", ".join(by + ["always"] * (condition is not None and condition.standing))
    metrics = [Gate.parse(rule).metric for rule, *_ in rows]
    assert set(metrics) == {"ssi", "rank", "ssi_percentile", "loader:vllm=0.33.0", *CONDITIONS}, (
        "every condition is in the table"
    )
    assert len(set(metrics)) == len(metrics)
    assert set(metrics[metrics.index("nonfinite") :]) == set(strict()), "the end of the table is what strict stands for"


def names_in(section: str) -> set[str]:
    text = PAGE.partition(f"### {section}\n")[2].partition("\n#")[0]
    return set(re.findall(r"`([a-z-]+)`", text))


def test_what_stands_and_what_is_allowed() -> None:
    standing = {name for name, condition in CONDITIONS.items() if condition.standing}
    assert names_in("What is asked with every rule") == standing
    assert names_in("What is allowed") - {"nonfinite"} == set(allowed_names())


def test_files_for_other_systems_are_valid() -> None:
    github, gitlab = blocks("yaml")
    check(gitlab, "gitlab-ci")
    for text in (github, blocks("yaml", FIRST)[0]):
        check(text, "github-workflows")


@pytest.mark.parametrize("text", [blocks("yaml", FIRST)[0], blocks("yaml")[0]])
def test_the_workflow_gives_inputs_that_exist(text: str) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    steps = yaml.safe_load(text)["jobs"]["scan"]["steps"]
    (ours,) = [step for step in steps if "s3lora@" in step.get("uses", "")]
    assert set(ours["with"]) <= set(action["inputs"])
    # The rules are those of the policy.
    assert "fail-on" not in ours["with"]


def test_the_hook_that_is_configured_exists() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    (repo,) = yaml.safe_load(blocks("yaml", FIRST)[1])["repos"]
    assert repo["hooks"] == [{"id": hook["id"]}]


@pytest.mark.parametrize("baseline", [False, True])
def test_the_rules_of_a_pull_request_are_those_of_its_target(baseline: bool, tmp_path: Path) -> None:
    (script,) = [
        one["run"] for one in yaml.safe_load(blocks("yaml", FIRST)[0])["jobs"]["scan"]["steps"] if "run" in one
    ]
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")

    def run(*words: str, at: Path, **variables: str) -> None:
        subprocess.run(words, cwd=at, env={**os.environ, **variables}, check=True, capture_output=True)

    target, sender = tmp_path / "target", tmp_path / "sender"
    target.mkdir()
    run(*git, "init", "-q", "-b", "main", at=target)
    (target / "s3lora.toml").write_text('fail-on = ["strict"]\n')
    if baseline:
        (target / "accepted.sarif").write_text("what was accepted")
    run(*git, "add", "-A", at=target)
    run(*git, "commit", "-qm", "rules", at=target)
    run(*git, "clone", "-q", str(target), str(sender), at=tmp_path)
    for name in ("s3lora.toml", "accepted.sarif"):
        (sender / name).write_text("fail-on = []\n")
    run(*git, "add", "-A", at=sender)
    run(*git, "commit", "-qm", "none", at=sender)
    run("bash", "-euo", "pipefail", "-c", script, at=sender, GITHUB_BASE_REF="main", RUNNER_TEMP=str(tmp_path))
    assert (tmp_path / "s3lora.toml").read_text() == 'fail-on = ["strict"]\n'
    assert (tmp_path / "accepted.sarif").exists() == baseline
    assert not baseline or (tmp_path / "accepted.sarif").read_text() == "what was accepted"
