"""`card` and `bom`: what is written and what is not, into real folders; and `restore` as JSON."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import s3lora
from s3lora.adapter.digest import source_of
from s3lora.report.card_file import BEGIN, END
from s3lora.report.documents import to_json
from s3lora.report.schemas import schema
from tests.command import Result, call, process
from tests.hostile import bad_files as bad
from tests.hostile.test_bad_adapters import state
from tests.report import measured
from tests.report.rendered import Rendered
from tests.support import make_adapter, shared

LAYERS = {f"model.layers.{i}.self_attn.{name}": (16, 12, 4) for i in range(6) for name in ("q_proj", "v_proj")}
CARD = b"---\r\nlicense: mit\r\ntags: [ a,b ]\r\n---\r\n\r\n# My adapter\r\n\r\nNo end of the line"


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_adapter(tmp_path / "adapter", LAYERS)


def fine(result: Result) -> str:
    assert (result.status, result.err) == (0, "")
    return result.out


def fails(result: Result, says: str) -> None:
    assert (result.status, result.out) == (2, "")
    assert re.fullmatch(rf"s3lora: [^\n]*{says}[^\n]*\n", result.err), result.err


def test_a_card_is_made(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(adapter)
    assert fine(call(capsys, "card", "adapter")) == "wrote adapter/README.md: made\n"
    card = (adapter / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: peft\nbase_model: some/base-model\ntags:\n- lora\n---\n\n# adapter\n\n")
    assert str(adapter) not in card
    after = state(adapter)
    assert {name: after[name] for name in before} == before
    assert fine(call(capsys, "card", "adapter", "--check")) == ""


def test_what_is_written_into_the_card_meanwhile_stays(
    adapter: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3lora.cli import card

    def edited(*arguments: object) -> str:
        (adapter / "README.md").write_text("# Edited\n")
        return "a section"

    monkeypatch.setattr(card, "card_section", edited)
    fails(call(capsys, "card", "adapter"), "has changed meanwhile; run the command again")
    assert (adapter / "README.md").read_text() == "# Edited\n"


def test_a_second_run_writes_nothing(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine(call(capsys, "card", "adapter"))
    before = (adapter / "README.md").stat()
    assert fine(call(capsys, "card", "adapter")) == "adapter/README.md is up to date\n"
    after = (adapter / "README.md").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_card_keeps_what_it_says(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = adapter / "README.md"
    card.write_bytes(CARD)
    card.chmod(0o640)
    assert fine(call(capsys, "card", "adapter")) == "wrote adapter/README.md: section added\n"
    made = card.read_bytes()
    assert made.startswith(CARD)
    assert made.count(b"\n") == made.count(b"\r\n")
    card.write_bytes(made + b"after\nthe end")
    assert fine(call(capsys, "card", "adapter", "--index", "magnitude")).endswith(": section replaced\n")
    again = card.read_bytes()
    assert again.startswith(CARD)
    assert again.endswith(b"<!-- s3lora:end -->\r\nafter\nthe end")
    assert card.stat().st_mode & 0o777 == 0o640
    assert again.count(BEGIN.encode()) == 1


def test_check_and_print_write_nothing(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(adapter)
    result = call(capsys, "card", "adapter", "--check")
    assert result == Result(
        1, "", "s3lora: adapter/README.md: there is no card; write it with the same command without --check\n"
    )
    printed = fine(call(capsys, "card", "adapter", "--print"))
    assert state(adapter) == before
    fine(call(capsys, "card", "adapter"))
    assert (adapter / "README.md").read_text() == printed
    assert fine(call(capsys, "card", "adapter", "--print")) == printed
    result = call(capsys, "card", "adapter", "--check", "--method", "svd")
    assert (result.status, result.out) == (1, "")
    assert ": differs; write it" in result.err
    (adapter / "README.md").write_text("# mine\n")
    assert "has no section of s3lora; write it" in call(capsys, "card", "adapter", "--check").err
    fails(call(capsys, "card", "adapter", "--check", "--print"), "--check and --print exclude each other")


def test_the_command_in_the_card_checks_it(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--index", "weighted-ssi", "--method", "svd", "--rank", "3", "--kurtosis")
    fine(call(capsys, "card", "adapter", *options))
    (block,) = Rendered((adapter / "README.md").read_text()).texts["pre"]
    (told,) = [line for line in block.splitlines() if line.startswith("s3lora card")]
    assert told == f"s3lora card . {' '.join(options)} --check"
    os.chdir(adapter)
    assert fine(call(capsys, *told.split()[1:])) == ""


def test_the_card_is_the_same_under_another_folder(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine(call(capsys, "card", "adapter"))
    adapter.rename("elsewhere")
    assert fine(call(capsys, "card", "elsewhere", "--check")) == ""


def test_a_pruned_adapter(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine(call(capsys, "card", "adapter"))
    call(capsys, "prune", "adapter", "-o", "pruned", "--top", "3")
    assert call(capsys, "card", "pruned", "--check").status == 1, "its card is still that of the original"
    assert fine(call(capsys, "card", "pruned")) == "wrote pruned/README.md: section replaced\n"
    said = " ".join((adapter.parent / "pruned" / "README.md").read_text().split())
    record = s3lora.read_provenance("pruned")
    assert "of its 12 modules, 3 removed. Rule: top 3 by `ssi` (`mas-svd`)" in said
    assert record.source.sha256 is not None
    assert record.source.sha256 in said
    assert record.written[0].sha256 in said
    for module in record.modules:
        assert f"| {module.position} | `{module.path}` |" in said
    weights = adapter.parent / "pruned" / bad.WEIGHTS
    shutil.copyfile(adapter / bad.WEIGHTS, weights)
    before = state(weights.parent)
    for command in ("card", "bom"):
        fails(call(capsys, command, "pruned"), r"pruned/s3lora\.json: tells of other weights than those that lie here")
    assert state(weights.parent) == before


@pytest.fixture
def evaluated(adapter: Path) -> Path:
    """Write a made-up evaluation of the adapter."""
    with s3lora.open_adapter(adapter) as opened:
        source = source_of(opened)
    made = to_json(measured.evaluation())
    content = json.loads(made)
    for variant in content["variants"]:
        if variant["adapter"] is not None:
            variant["adapter"] = json.loads(to_json(source))
    (adapter.parent / "evaluation.json").write_text(json.dumps(content))
    return adapter.parent / "evaluation.json"


def test_a_measurement_is_attached(
    adapter: Path, evaluated: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fine(call(capsys, "card", "adapter", "--evaluation", "evaluation.json"))
    card = (adapter / "README.md").read_text()
    assert "| safety: asr ↓ | 0.02 [0.01, 0.07] | 1.00 [0.96, 1.00] | 100 |" in card
    assert "s3lora card . --evaluation EVALUATION.json --check" in card
    found = json.loads(fine(call(capsys, "bom", "adapter", "--evaluation", "evaluation.json")))
    assert found["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    make_adapter(tmp_path / "other", LAYERS, seed=1)
    for command in ("card", "bom"):
        fails(call(capsys, command, "other", "--evaluation", "evaluation.json"), "has no figures of this adapter")
        fails(call(capsys, command, "other", "--evaluation", "gone.json"), r"gone\.json: cannot be read")
        fails(call(capsys, command, "other", "--evaluation", f"other/{bad.CONFIG}"), "is no result of eval, sweep")
    assert not (tmp_path / "other" / "README.md").exists()


@pytest.mark.parametrize("card", [BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_broken_markers_change_nothing(card: str, adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (adapter / "README.md").write_text(card)
    before = state(adapter)
    for option in ((), ("--check",), ("--print",)):
        fails(call(capsys, "card", "adapter", *option), r"adapter/README\.md: has no single pair of markers \(")
    assert state(adapter) == before


def test_links(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = adapter / "README.md"
    (adapter / "card.md").write_text("# mine\n")
    (tmp_path / "blob").write_text("# of a cache\n")
    for target in ("card.md", "../blob", "gone.md", "README.md"):
        card.symlink_to(target)
        for output in ((), ("-o", "adapter/README.md")):
            fails(call(capsys, "card", "adapter", *output), r"README\.md: is a link, and its target would")
        assert card.is_symlink()
        card.unlink()
    assert (adapter / "card.md").read_text() == "# mine\n"
    assert (tmp_path / "blob").read_text() == "# of a cache\n"
    assert not (adapter / "gone.md").exists()


def test_cards_that_cannot_be(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (adapter / "README.md").mkdir()
    os.mkfifo("pipe")
    Path("latin.md").write_bytes(b"caf\xe9")
    before = state(adapter)
    fails(call(capsys, "card", "adapter"), r"README\.md: is a folder")
    for output, says in (
        ("pipe", r"pipe: cannot be read \(not a regular file\)"),
        ("latin.md", r"latin\.md: is not UTF-8 text"),
        ("nowhere/x.md", r"nowhere/x\.md: cannot be written \(no such folder\)"),
        ("", "--output has no name"),
        (f"adapter/{bad.CONFIG}", "card writes no \\.json file; it writes Markdown"),
        ("x" * 300, "File name too long"),
    ):
        fails(call(capsys, "card", "adapter", "-o", output), says)
    assert state(adapter) == before
    result = call(capsys, "card", "gone")
    assert (result.status, result.err) == (2, "s3lora: gone: no such file or folder\n")
    Path("empty").mkdir()
    assert call(capsys, "card", "empty").status == 3
    assert call(capsys, "bom", "empty").status == 3
    assert os.listdir("empty") == []


def test_a_weights_file_has_its_card_beside_it(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fine(call(capsys, "card", f"adapter/{bad.WEIGHTS}")) == "wrote adapter/README.md: made\n"
    assert f"s3lora card {bad.WEIGHTS} --check" in (adapter / "README.md").read_text()


def test_options_that_do_nothing_are_refused(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(call(capsys, "card", "adapter", "--sample", "9"), "--sample does nothing without --method spsvd")
    assert not (adapter / "README.md").exists()


def test_a_killed_run_leaves_the_card_whole(adapter: Path) -> None:
    (adapter / "README.md").write_text("# mine\n")
    before = state(adapter)
    kill = "import pathlib\npathlib.Path.replace = lambda *_: os.kill(os.getpid(), 15)"
    result = process("card", str(adapter), before=kill)
    assert result.status == 130
    assert state(adapter) == before


def test_bom_is_valid_and_the_same(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (adapter / "README.md").write_bytes(CARD)
    printed = fine(call(capsys, "bom", "adapter"))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(printed) is None
    assert json.loads(printed)["metadata"]["component"]["licenses"][0]["license"]["id"] == "MIT"
    assert str(adapter) not in printed
    assert fine(call(capsys, "bom", "adapter", "-o", "bom.json")) == ""
    assert Path("bom.json").read_text() == printed
    assert [fine(call(capsys, "bom", "adapter", "-o", "adapter/bom.json")) for _ in range(2)] == ["", ""]
    assert Path("adapter/bom.json").read_text() == printed, "without the bill itself"
    named = json.loads(fine(call(capsys, "bom", f"adapter/{bad.WEIGHTS}", "--name", "ann/mine")))
    assert named["metadata"]["component"]["name"] == "ann/mine"


def test_bom_of_a_pruned_adapter(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "prune", "adapter", "-o", "pruned", "--top", "3")
    printed = fine(call(capsys, "bom", "pruned"))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(printed) is None
    component = json.loads(printed)["metadata"]["component"]
    record = s3lora.read_provenance("pruned")
    assert component["hashes"][0]["content"] == record.written[0].sha256
    assert component["pedigree"]["ancestors"][0]["hashes"][0]["content"] == record.source.sha256
    assert "s3lora.json" in [part["name"] for part in component["components"]]


def test_restore_as_json(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "prune", "adapter", "-o", "pruned", "--top", "3")
    record = s3lora.read_provenance("pruned")
    first, *rest = [module.path for module in record.modules]
    command = ("restore", "pruned", "--from", "adapter", "--format", "json")
    part = json.loads(fine(call(capsys, *command, "-o", "pruned", "--force", "--module", first)))
    jsonschema.Draft202012Validator(json.loads(schema("restore"))).validate(part)
    assert (part["modules"], part["pruned"], part["source"]["sha256"]) == ([first], rest, record.source.sha256)
    whole = json.loads(fine(call(capsys, *command, "-o", "restored")))
    assert (whole["modules"], whole["pruned"]) == (rest, [])


@pytest.mark.thorough
def test_real_adapters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = 0
    for folder in sorted((shared() / "adapters").iterdir()):
        if not folder.is_dir():
            continue
        copy = tmp_path / folder.name
        shutil.copytree(folder, copy)
        weights = sorted(copy.glob("*.safetensors"))
        for path in weights if len(weights) > 1 else [copy]:
            result = call(capsys, "card", path)
            if result.status:
                assert not (copy / "README.md").exists()
                assert call(capsys, "bom", path).status == result.status
                continue
            assert call(capsys, "card", path, "--check").status == 0
            card = (copy / "README.md").read_text(encoding="utf-8")
            assert Rendered(card.partition("---\n\n")[2]).texts["h2"] == ["Spectral audit"]
            assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(fine(call(capsys, "bom", path))) is None
            done += 1
    assert done >= 9
