"""The recipe for a rule: one class and one entry, and every command, policy and page knows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import Result
from tests.recipes.recipe import Copy, follow
from tests.support import make_adapter

PATHS = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(4) for p in "qv"]
RULE = ("--rule", "every", "--step", "3")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return follow("A rule", tmp_path_factory.mktemp("copy"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "a", dict.fromkeys(PATHS, (16, 12, 4)))


def done(result: Result) -> str:
    assert (result.status, result.err) == (0, "")
    return result.out


def expected(copy: Copy, path: Path, step: int) -> list[str]:
    (result,) = copy.run(("scan", path, "--fraction", "1", "--format", "json"))
    return [one["path"] for one in json.loads(done(result))["plan"]["chosen"]][::step]


def test_scan_and_prune(copy: Copy, path: Path, tmp_path: Path) -> None:
    wanted = expected(copy, path, 3)
    text, data, table, page, plain = map(done, copy.run(
        *(("scan", path, *RULE, "--format", form) for form in ("text", "json", "csv", "html")),
        ("scan", path, "--rule", "every", "--format", "json"),
    ))  # fmt: skip
    assert "every 3 by ssi" in text
    assert [one["path"] for one in json.loads(data)["plan"]["chosen"]] == wanted
    assert json.loads(data)["plan"]["rule"] == "every 3"
    assert json.loads(plain)["plan"]["rule"] == "every 2"
    assert table
    assert "as scanned: every 3</option>" in page
    assert '<option value="every"' not in page, "the page cannot apply it"
    assert "--rule every --step 3" in page

    forms = ("text", "json", "csv", "html")
    results = copy.run(*(("prune", path, "-o", tmp_path / form, *RULE, "--format", form) for form in forms))
    for form, result in zip(forms, results, strict=True):
        assert result.status == 0, result.err
        record = json.loads((tmp_path / form / "s3lora.json").read_text())
        assert record["plan"]["rule"] == "every 3"
        assert {one["path"] for one in record["plan"]["chosen"]} == set(wanted)
    carded, listed, restored = copy.run(
        ("card", tmp_path / "json"),
        ("bom", tmp_path / "json"),
        ("restore", tmp_path / "json", "--from", path, "-o", tmp_path / "back"),
    )
    assert carded.status == 0, carded.err
    assert "every 3" in (tmp_path / "json" / "README.md").read_text()
    assert "every 3" in done(listed)
    assert restored.status == 0, restored.err


def test_policies(copy: Copy, path: Path, tmp_path: Path) -> None:
    policy = tmp_path / "s3lora.toml"

    def obey(text: str, *more: str) -> Result:
        policy.write_text(text)
        return copy.run(("scan", path, "--policy", policy, "--format", "json", *more))[0]

    kept = obey('rule = "every"\nstep = 3\n')
    assert json.loads(kept.out)["plan"]["rule"] == "every 3"
    assert json.loads(obey('rule = "every"\nstep = 3\n', "--top", "1").out)["plan"]["rule"] == "top 1"
    for text, line, problem in (
        ('rule = "every"\nstep = 0\n', 2, "every 0 cannot be meant"),
        ('rule = "every"\nstep = "3"\n', 2, "step must be a whole number"),
        ("\nstep = 3\n", 2, 'step does nothing without rule = "every"'),
        ('rule = "every"\ntop = 3\n', None, "exclude each other"),
    ):
        result = obey(text)
        assert (result.status, result.out) == (2, "")
        assert problem in result.err
        assert line is None or f"s3lora.toml:{line}:" in result.err


def test_what_cannot_be_meant(copy: Copy, path: Path) -> None:
    cases = {
        ("--step", "3"): "--step does nothing without --rule every",
        ("--rule", "every", "--step", "0"): "every 0 cannot be meant",
        ("--rule", "every", "--top", "1"): "exclude each other",
    }
    results = copy.run(*(("scan", path, *arguments) for arguments in cases))
    for result, problem in zip(results, cases.values(), strict=True):
        assert (result.status, result.out) == (2, "")
        assert problem in result.err


def test_every_command_that_chooses_offers_it(copy: Copy) -> None:
    commands = ("scan", "prune", "eval")
    for command, result in zip(commands, copy.run(*((command, "--help") for command in commands)), strict=True):
        text = " ".join(done(result).split())
        assert "Step of --rule every. [default: 2]" in text, command
        assert "|every]" in text, command
