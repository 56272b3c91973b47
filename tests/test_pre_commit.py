"""The pre-commit hook, run by pre-commit itself in a repository with adapters."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.command import SOURCE, Result
from tests.gated import damaged, good
from tests.hostile import bad_files as bad
from tests.watched import PATIENCE

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
WEIGHTS = "adapter_model.safetensors"

pytestmark = pytest.mark.skipif(
    find_spec("pre_commit") is None or shutil.which("git") is None, reason="pre-commit or git is not installed"
)


def variables(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PRE_COMMIT"))}
    who = {f"GIT_{role}_{part}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    git = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return {**kept, **who, **git, "PRE_COMMIT_HOME": str(home / "cache"), "PYTHONPATH": str(SOURCE), "NO_COLOR": "1"}


def call(folder: Path, *command: object) -> Result:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder, env=variables(folder.parent), capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def git(folder: Path, *arguments: object) -> str:
    result = call(folder, "git", *arguments)
    assert result.status == 0, result.err
    return result.out.strip()


def pre_commit(folder: Path, *arguments: object) -> Result:
    return call(folder, sys.executable, "-m", "pre_commit", *arguments)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository whose hook runs the program under test; only how it is installed is not that of the hook."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    configure(folder)
    return folder


def configure(folder: Path, *args: str) -> None:
    program, *words = HOOK["entry"].split()
    assert program == "s3lora"
    entry = " ".join([f'"{sys.executable}" -m s3lora', *words])
    hook: dict[str, Any] = {**HOOK, "language": "system", "entry": entry, "args": list(args)}
    write(folder, {"repo": "local", "hooks": [hook]})


def write(folder: Path, repo: dict[str, Any]) -> None:
    (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [repo]}))
    git(folder, "add", ".pre-commit-config.yaml")


def test_the_manifest_is_valid() -> None:
    result = pre_commit(ROOT, "validate-manifest", ROOT / ".pre-commit-hooks.yaml")
    assert result.status == 0, result.out


def test_the_configuration_in_the_documentation_is_valid(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "gate-a-repository.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```yaml\n(repos:.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "config.yaml").write_text(shown)
    result = pre_commit(ROOT, "validate-config", tmp_path / "config.yaml")
    assert result.status == 0, result.out
    (hook,) = yaml.safe_load(shown)["repos"][0]["hooks"]
    assert hook["id"] == HOOK["id"]


@pytest.mark.parametrize(
    ("path", "scanned"),
    [
        ("adapter_model.safetensors", True),
        ("a/b/adapter_model.safetensors", True),
        ("a/adapter_model.bin", True),
        ("a/adapter_model.safetensors.index.json", True),
        ("mlx/adapters.safetensors", True),
        ("pytorch_lora_weights.safetensors", True),
        ("model.safetensors", False),
        ("a/xadapter_model.safetensors", False),
        ("a/adapter_model.safetensors.bak", False),
        ("a/adapter_config.json", False),
        ("adapter_modelXbin", False),
    ],
)
def test_which_files_it_looks_at(path: str, scanned: bool) -> None:
    assert bool(re.search(HOOK["files"], path)) is scanned


def test_a_commit_of_several_adapters(repository: Path) -> None:
    good(repository / "a")
    good(repository / "b c", seed=1)
    damaged(repository / "not staged", "model.layers.0.self_attn.q_proj")
    git(repository, "add", "a", "b c")
    result = pre_commit(repository, "run", "--verbose")
    assert result.status == 0, result.out
    assert "sharpest modules" not in result.out, "the report is for those who ask for it"
    configure(repository, "--fail-on", "selected > 3")
    result = pre_commit(repository, "run")
    assert result.status == 1
    assert result.out.count("finding: ") == 2, "and nothing of what is not staged"
    assert "exit code: 1" in result.out
    for name in ("a", "b c"):
        assert f"s3lora: {name}/{WEIGHTS}: finding: selected is 4, rule selected > 3" in result.out


def test_it_takes_the_policy_of_the_repository(repository: Path) -> None:
    good(repository / "a")
    (repository / "s3lora.toml").write_text('fail-on = ["selected > 3"]\n')
    git(repository, "add", "a")
    result = pre_commit(repository, "run")
    assert result.status == 1
    assert "s3lora: policy: s3lora.toml" in result.out


def test_a_pointer_or_a_damaged_adapter_stops_a_commit(repository: Path) -> None:
    bad.weights(bad.POINTER)(repository / "a")
    damaged(repository / "b", "model.layers.0.self_attn.q_proj")
    git(repository, "add", "a", "b")
    git_hook = pre_commit(repository, "install")
    assert git_hook.status == 0, git_hook.out
    result = call(repository, "git", "commit", "-m", "adapters")
    assert result.status != 0
    assert "exit code: 2" in result.err
    assert "is a Git LFS pointer" in result.err
    assert "holds NaN or infinity" in result.err


def test_other_files_start_nothing(repository: Path) -> None:
    (repository / "model.safetensors").write_bytes(b"no adapter")
    git(repository, "add", "model.safetensors")
    result = pre_commit(repository, "run")
    assert result.status == 0
    assert "(no files to check)Skipped" in result.out


@pytest.mark.slow
def test_it_installs_itself(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "repository"
    shutil.copytree(SOURCE, source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".pre-commit-hooks.yaml"):
        shutil.copy(ROOT / name, source / name)
    git(source, "init", "-q")
    git(source, "add", ".")
    git(source, "commit", "-qm", "source")
    folder.mkdir()
    git(folder, "init", "-q")
    good(folder / "a")
    write(folder, {"repo": str(source), "rev": git(source, "rev-parse", "HEAD"), "hooks": [
        {"id": HOOK["id"], "args": ["--fail-on", "selected > 3"]},
    ]})  # fmt: skip
    git(folder, "add", "a")
    result = pre_commit(folder, "run")
    assert result.status == 1
    assert f"s3lora: a/{WEIGHTS}: finding: selected is 4, rule selected > 3" in result.out
