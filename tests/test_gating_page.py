"""What docs/gating.md shows for other programs: policies that can be meant, and files valid by their schemas."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from s3lora.gate.allow import allowed_names
from s3lora.gate.conditions import CONDITIONS, strict
from s3lora.gate.findings import Gate, gates_of
from tests.command import call
from tests.gated import good
from tests.vendored import check

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "gating.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", blocks("toml"), ids=lambda text: text.splitlines()[0].removeprefix("# "))
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
    rows = re.findall(r"^\| `([^`]+)` \| .* \| (S3L\d+) \|$", PAGE, re.MULTILINE)
    for rule, identity in rows:
        assert Gate.parse(rule).id == identity
    metrics = [Gate.parse(rule).metric for rule, _ in rows]
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


@pytest.mark.parametrize(("number", "schema"), [(0, "github-workflows"), (1, "gitlab-ci")])
def test_files_for_other_systems_are_valid(number: int, schema: str) -> None:
    check(blocks("yaml")[number], schema)


def test_the_workflow_gives_inputs_that_exist() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    steps = yaml.safe_load(blocks("yaml")[0])["jobs"]["scan"]["steps"]
    (ours,) = [step for step in steps if "s3lora@" in step["uses"]]
    assert set(ours["with"]) <= set(action["inputs"])
    # The rules are those of the policy.
    assert "fail-on" not in ours["with"]


def test_the_hook_that_is_configured_exists() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    (repo,) = yaml.safe_load(blocks("yaml")[2])["repos"]
    (used,) = repo["hooks"]
    assert used["id"] == hook["id"]
    assert all(gates_of([rule]) for rule in used["args"][1::2])
    assert set(used["args"][::2]) == {"--fail-on"}
