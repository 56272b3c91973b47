"""Every bad adapter, through the command line: one sentence, the right status, nothing written, nothing changed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from tests.command import call
from tests.hostile import bad_files as bad
from tests.hostile.bad_files import A, B, entry, named, pair, stored, tensors, weights, with_entries

FITS = entry("F32", [2, 6], 0, 48), entry("F32", [8, 2], 48, 112)
DEEP = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

#: name → (builder, exit status, what the sentence must say). The file it must name is in the expression.
CASES = {
    # not the file at all
    "lfs-pointer": (weights(bad.POINTER), 2, r"adapter_model\.safetensors: is a Git LFS pointer.*git lfs pull"),
    "lfs-pointer-config": (bad.config(bad.POINTER), 2, r"adapter_config\.json: is a Git LFS pointer"),
    "lfs-pointer-bin": (weights(bad.POINTER, "adapter_model.bin"), 2, r"adapter_model\.bin: is a Git LFS pointer"),
    "web-page": (weights(b"<!DOCTYPE html>\n<html><body>404</body></html>"), 2, r"safetensors: is a web page"),
    "web-page-config": (bad.config(b"\n <html><head></head></html>"), 2, r"adapter_config\.json: is a web page"),
    "empty-file": (weights(b""), 2, r"safetensors: .*0 bytes"),
    "empty-bin": (weights(b"", "adapter_model.bin"), 2, r"adapter_model\.bin: "),
    "text": (weights(b"hello, this is no tensor file at all\n"), 2, r"safetensors: claims a header"),
    "missing": (bad.missing, 2, r"adapter: no such file or folder"),
    "empty-folder": (bad.empty_folder, 3, r"adapter: holds no adapter weights"),
    "no-weights": (bad.without_weights, 3, r"adapter: holds no adapter weights"),
    "two-files": (bad.two_files, 2, r"adapter: holds 2 weights files.*name one"),
    "whole-model": (bad.whole_model, 3, r"model\.safetensors: none of its 3 tensors is a LoRA factor"),
    "empty-header": (weights(stored({})), 3, r"safetensors: (none of its 0 tensors|holds no LoRA module)"),
    # cut off, or too long
    "cut-in-length": (weights(lambda raw: raw[:7]), 2, r"safetensors: .*7 bytes"),
    "cut-after-length": (weights(lambda raw: raw[:8]), 2, r"safetensors: is truncated"),
    "cut-in-header": (weights(lambda raw: raw[:100]), 2, r"safetensors: is truncated"),
    "cut-in-data": (weights(lambda raw: raw[:-1]), 2, r"safetensors: is truncated"),
    "cut-half": (weights(lambda raw: raw[: len(raw) // 2]), 2, r"safetensors: is truncated"),
    "trailing": (weights(lambda raw: raw + b"\0" * 9), 2, r"safetensors: has 9 bytes after its last tensor"),
    "huge-length": (weights(stored({}, length=2**63)), 2, r"safetensors: claims a header of 9,223,372"),
    "largest-length": (weights(stored({}, length=2**64 - 1)), 2, r"safetensors: claims a header of 18,446,744"),
    "length-beyond-file": (weights(stored({}, length=1_000_000)), 2, r"safetensors: is truncated.*1,000,000"),
    # headers
    "header-no-json": (weights(stored(b"{'a': 1}")), 2, r"safetensors: its header is not valid"),
    "header-no-object": (weights(stored(b"[]")), 2, r"safetensors: its header is not valid"),
    "header-no-utf8": (weights(stored(b'{"\xff\xfe": 1}')), 2, r"safetensors: its header is not valid"),
    "header-surrogate": (weights(stored(b'{"\\ud800": {}}')), 2, r"safetensors: its header is not valid"),
    "header-deep": (weights(stored(DEEP)), 2, r"safetensors: its header is not valid"),
    "header-nul": (weights(stored(b"\0" * 64)), 2, r"safetensors: its header is not valid"),
    "key-twice": (
        weights(stored(f'{{"{A}": {json.dumps(FITS[0])}, "{A}": {json.dumps(FITS[0])}}}'.encode(), bytes(48))),
        2,
        r"q_proj\.lora_A\.weight: names this twice",
    ),
    "unknown-dtype": (with_entries(entry("F33", [2, 6], 0, 48), FITS[1], 112), 2, r"lora_A\.weight: has dtype F33"),
    "dtype-escape": (with_entries(entry("\x1b[31m", [2, 6], 0, 48), FITS[1], 112), 2, r"lora_A\.weight: has dtype"),
    "dtype-number": (weights(stored({A: {"dtype": 1, "shape": [1], "data_offsets": [0, 4]}})), 2, r"header is not"),
    "no-offsets": (weights(stored({A: {"dtype": "F32", "shape": [1]}})), 2, r"header is not valid"),
    "shape-and-bytes": (with_entries(entry("F32", [2, 7], 0, 48), FITS[1], 112), 2, r"lora_A\.weight.*needs 56 bytes"),
    "negative-shape": (with_entries(entry("F32", [-2, -6], 0, 48), FITS[1], 112), 2, r"lora_A.*impossible shape"),
    "huge-shape": (with_entries(entry("F32", [2**62, 2**62], 0, 48), FITS[1], 112), 2, r"lora_A.*impossible shape"),
    "overflowing-shape": (
        with_entries(entry("F32", [2**64, 1], 0, 48), FITS[1], 112),
        2,
        r"impossible shape|not valid",
    ),
    "zero-times-huge": (with_entries(entry("F32", [0, 2**63 - 1], 0, 0), FITS[1], 112), 2, r"impossible shape|offset"),
    "many-dimensions": (with_entries(entry("F32", [1] * 50 + [12], 0, 48), FITS[1], 112), 2, r"impossible shape"),
    "float-shape": (with_entries(entry("F32", [2.5, 6], 0, 48), FITS[1], 112), 2, r"header is not valid"),
    "offsets-backwards": (with_entries(entry("F32", [2, 6], 48, 0), FITS[1], 112), 2, r"lora_A.*data_offsets"),
    "offsets-negative": (with_entries(entry("F32", [2, 6], -48, 0), FITS[1], 112), 2, r"lora_A.*data_offsets"),
    "offsets-huge": (
        with_entries(FITS[0], entry("F32", [8, 2], 2**62, 2**62 + 64), 112),
        2,
        r"lora_B\.weight: tensor leaves a hole",
    ),
    "overlap": (with_entries(FITS[0], entry("F32", [8, 2], 40, 104), 112), 2, r"lora_B\.weight: tensor overlaps"),
    "hole": (with_entries(FITS[0], entry("F32", [8, 2], 64, 128), 128), 2, r"lora_B\.weight: tensor leaves a hole"),
    "hole-at-start": (with_entries(entry("F32", [2, 6], 8, 56), entry("F32", [8, 2], 56, 120), 120), 2, r"hole"),
    # names
    "name-parent": (named("../../etc/passwd"), 2, r"safetensors '\.\./\.\./etc/passwd': .*no model can have"),
    "name-parent-inside": (named("model/../../x.lora_A.weight"), 2, r"no model can have"),
    "name-backslash": (named("..\\..\\x"), 2, r"no model can have"),
    "name-absolute": (named("/etc/passwd"), 2, r"no model can have"),
    "name-escape": (named("\x1b]0;owned\x07\x1b[2J"), 2, r"no model can have"),
    "name-newline": (named("a\ns3lora: all is well"), 2, r"no model can have"),
    "name-nul": (named("a\0b"), 2, r"no model can have"),
    "name-bidi": (named("a\u202eb"), 2, r"no model can have"),
    "name-long": (named("a" * 100_000), 2, r"no model can have"),
    "name-empty": (named(""), 2, r"no model can have"),
    # modules
    "a-without-b": (tensors({A: pair(8, 6, 2)[A]}), 2, r"q_proj: has lora_A but no lora_B"),
    "b-without-a": (tensors({B: pair(8, 6, 2)[B]}), 2, r"q_proj: has lora_B but no lora_A"),
    "inner-sizes": (tensors(pair(8, 6, 2, b_rank=3)), 2, r"q_proj: the factors do not fit"),
    "one-dimension": (tensors({A: pair(8, 6, 2)[A].reshape(-1), B: pair(8, 6, 2)[B]}), 2, r"lora_A\.weight \(12\)"),
    "three-dimensions": (tensors({A: pair(8, 6, 2)[A].reshape(1, 2, 6), B: pair(8, 6, 2)[B]}), 2, r"3 dimensions"),
    "integers": (tensors({n: t.astype("int8") for n, t in pair(8, 6, 2).items()}), 2, r"lora_A.*of dtype int8"),
    "empty-factor": (tensors({A: pair(8, 6, 2)[A][:0], B: pair(8, 6, 2)[B][:, :0]}), 2, r"q_proj .*factor is empty"),
    # configurations
    "config-no-json": (bad.config(b"{"), 2, r"adapter_config\.json: is not valid JSON"),
    "config-empty": (bad.config(b""), 2, r"adapter_config\.json: is not valid JSON"),
    "config-list": (bad.config(b"[1, 2]"), 2, r"adapter_config\.json: must hold a JSON object"),
    "config-no-utf8": (bad.config(b'{"r": "\xff"}'), 2, r"adapter_config\.json: is not valid JSON"),
    "config-deep": (bad.config(DEEP), 2, r"adapter_config\.json: is not valid JSON"),
    "config-huge": (bad.config(b'{"a": "' + b"x" * 5_000_000 + b'"}'), 2, r"adapter_config\.json: .*larger than"),
    "r-word": (bad.config({"r": "eight"}), 2, r"`r` is the text 'eight', not a positive number"),
    "r-list": (bad.config({"r": [8]}), 2, r"`r` is"),
    "r-true": (bad.config({"r": True}), 2, r"`r` is True"),
    "r-negative": (bad.config({"r": -8}), 2, r"`r` is -8"),
    "alpha-zero": (bad.config({"lora_alpha": 0}), 2, r"`lora_alpha` is 0, not a positive number"),
    "alpha-negative": (bad.config({"lora_alpha": -16}), 2, r"`lora_alpha` is -16"),
    "alpha-nan": (bad.config({"lora_alpha": float("nan")}), 2, r"adapter_config\.json: is not valid JSON"),
    "alpha-huge": (bad.config(b'{"peft_type": "LORA", "lora_alpha": 1e400}'), 2, r"adapter_config\.json|`lora_alpha`"),
    "alpha-escape": (bad.config({"lora_alpha": "\x1b[31m8"}), 2, r"`lora_alpha` is"),
    "rank-pattern-list": (bad.config({"rank_pattern": ["q_proj", 8]}), 2, r"`rank_pattern` must be an object"),
    "alpha-pattern-word": (bad.config({"alpha_pattern": {"q_proj": "x"}}), 2, r"`alpha_pattern` gives x for q_proj"),
    "pattern-refers": (bad.config({"rank_pattern": {r"(a+)+\1": 4}}), 2, r"`rank_pattern` has a pattern that has \\1"),
    "pattern-no-regex": (
        bad.config({"alpha_pattern": {"(": 4}}),
        2,
        r"`alpha_pattern` has a pattern that is no regular",
    ),
    "peft-type-other": (
        bad.config({"peft_type": "IA3"}),
        2,
        r"is an adapter of the kind IA3 \(it holds .*\), which s3lora does not read",
    ),
    "peft-type-list": (bad.config({"peft_type": ["LORA"]}), 2, r"which s3lora does not read"),
    # shards
    "shard-parent": (bad.sharded({A: "../one.safetensors"}), 2, r"index\.json: names a shard outside the folder"),
    "shard-absolute": (bad.sharded({A: "/etc/passwd"}), 2, r"index\.json: names a shard outside the folder"),
    "shard-dots": (bad.sharded({A: ".."}), 2, r"index\.json: names a shard outside the folder"),
    "shard-escape": (bad.sharded({A: "\x1b[2J.safetensors"}), 2, r"index\.json: names a shard outside the folder"),
    "shard-missing": (bad.sharded(drop=True), 2, r"two\.safetensors: cannot be opened"),
    "shard-lacks-tensor": (bad.sharded({"nowhere": "one.safetensors"}), 2, r"index\.json nowhere: lists 1 tensor"),
    "shard-index-list": (
        bad.weights(b'{"weight_map": ["a"]}', f"{bad.WEIGHTS}.index.json"),
        2,
        r"index\.json: has no `weight_map`",
    ),
    # what is no file
    "folder-as-file": (bad.instead(Path.mkdir), 2, r"adapter_model\.safetensors: is not a regular file"),
    "folder-as-config": (bad.instead(Path.mkdir, bad.CONFIG), 2, r"adapter_config\.json: .*not a regular file"),
    "pipe": (bad.instead(os.mkfifo), 2, r"adapter_model\.safetensors: is not a regular file"),
    "pipe-as-config": (bad.instead(os.mkfifo, bad.CONFIG), 2, r"adapter_config\.json: .*not a regular file"),
    "dev-zero": (bad.instead(lambda path: path.symlink_to("/dev/zero")), 2, r"is not a regular file"),
    "dev-zero-config": (bad.instead(lambda path: path.symlink_to("/dev/zero"), bad.CONFIG), 2, r"not a regular file"),
    "link-loop": (
        bad.instead(lambda path: path.symlink_to(path.name)),
        2,
        r"adapter_model\.safetensors: cannot be opened",
    ),
    "link-to-nothing": (
        bad.instead(lambda path: path.symlink_to("gone")),
        2,
        r"adapter_model\.safetensors: cannot be opened",
    ),
    # pickles
    "pickle-zip": (bad.pickled(zipped=True), 2, r"adapter_model\.bin: "),
    "pickle-bare": (bad.pickled(zipped=False), 2, r"adapter_model\.bin: "),
    "zip-of-nothing": (weights(b"PK\x05\x06" + bytes(18), "adapter_model.bin"), 2, r"adapter_model\.bin: "),
}

#: safetensors dtype → (bytes an element, bits of NaN, bits of infinity or None).
NOT_FINITE = {
    "F64": (8, 0x7FF8 << 48, 0x7FF0 << 48),
    "F32": (4, 0x7FC0 << 16, 0xFF80 << 16),
    "F16": (2, 0x7E00, 0xFC00),
    "BF16": (2, 0x7FC0, 0x7F80),
    "F8_E4M3": (1, 0x7F, None),
    "F8_E5M2": (1, 0x7E, 0x7C),
    "F8_E4M3FNUZ": (1, 0x80, None),
    "F8_E5M2FNUZ": (1, 0x80, None),
    "F8_E8M0": (1, 0xFF, None),
}


def state(folder: Path) -> dict[str, str]:
    """Return what lies under `folder`: a digest of each file, or what else it is."""
    found = {}
    for path in sorted(folder.rglob("*")):
        regular = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest() if regular else "other"
    return found


def refused(folder: Path, adapter: Path, status: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that no command does anything with `adapter` but say why not, in one sentence."""
    before = state(folder)
    out = folder / "out"
    commands = (
        ("scan", adapter),
        ("scan", adapter, "--format", "json", "--output", out),
        ("prune", adapter, "-o", out),
        ("compare", adapter, adapter),
    )
    for command in commands:
        result = call(capsys, *command)
        assert result.status == status, (command, result)
        assert result.out == "", command
        line = result.err.removesuffix("\n")
        assert line.startswith("s3lora: "), command
        assert line.isprintable(), "a line of text alone: no second line, no escape sequence"
        assert re.search(says, line), command
        assert str(adapter) in line, "where several adapters are given, this must tell which it is"
        assert state(folder) == before, f"{command[0]} changed files"


@pytest.mark.parametrize("name", CASES)
def test_a_bad_adapter_is_refused_in_one_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, status, says = CASES[name]
    monkeypatch.chdir(tmp_path)  # where a pickle that runs would leave its marker
    refused(tmp_path, build(tmp_path / "adapter"), status, says, capsys)
    assert not list(tmp_path.rglob(bad.MARKER))


@pytest.mark.parametrize("where", ["A", "B"])
@pytest.mark.parametrize(
    ("code", "size", "bits"),
    [(code, size, bits) for code, (size, *both) in NOT_FINITE.items() for bits in both if bits is not None],
)
def test_numbers_that_are_not_finite_are_named(
    code: str, size: int, bits: int, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = bad.special(code, size, bits, where)(tmp_path / "adapter")
    says = rf"q_proj \(6 × 6\): holds NaN or infinity in .*lora_{where}\.weight"
    refused(tmp_path, adapter, 2, says, capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", [bad.WEIGHTS, bad.CONFIG])
def test_an_unreadable_file_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = bad.good(tmp_path / "adapter")
    (adapter / name).chmod(0)
    result = call(capsys, "scan", adapter)
    assert result.status == 2
    assert f"{name}: cannot be opened (Permission denied)" in result.err


@pytest.mark.parametrize("path", ["", "no/such/adapter", "x" * 5000, "\x1b[31mred\x1b[0m", "a\nb", "loop"])
def test_paths_that_lead_nowhere(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    result = call(capsys, "scan", path)
    assert result.status == 2
    assert result.err.startswith("s3lora: ")
    assert result.err.removesuffix("\n").isprintable()


def test_the_marker_test_would_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hostile pickle does what it is said to do when something unpickles it."""
    import pickle

    monkeypatch.chdir(tmp_path)
    adapter = bad.pickled(zipped=False)(tmp_path / "adapter")
    pickle.loads((adapter / "adapter_model.bin").read_bytes())
    assert (tmp_path / bad.MARKER).exists()


def test_one_bad_adapter_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken, fine = bad.weights(bad.POINTER)(tmp_path / "broken"), bad.good(tmp_path / "fine")
    result = call(capsys, "scan", broken, fine, "--format", "json")
    assert result.status == 2
    assert [document["source"]["name"] for document in json.loads(result.out)] == ["fine"]
    assert result.err.count("\n") == 1
