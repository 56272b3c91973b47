"""Mutated files: whatever the bytes are, the result is a scan that can be reported, or an S3LoRAError; nothing else."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import s3lora
from s3lora.report.documents import scan_csv, scan_document, to_json
from s3lora.report.text import scan_text, to_text
from tests.examples import examples
from tests.hostile import bad_files as bad

#: Seconds of this process that one tiny file may take.
MOST = 10.0
NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "255",
    "65536",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "1e3",
    "0.5",
)
WORDS = (
    b"null",
    b"[]",
    b"{}",
    b'"F64"',
    b'"BF16"',
    b'"F4"',
    b'"BOOL"',
    b'"I64"',
    b'"x"',
    b"true",
    b"[1,[2]]",
    b"\\ud800",
)


def attempt(path: Path) -> bool:
    """Scan the file and render the result in every form; return whether there was one."""
    start = time.process_time()
    sentence = None
    try:
        measured = s3lora.scan(path)
        plan = s3lora.select(measured)
    except s3lora.S3LoRAError as error:
        sentence = error.located()
    assert time.process_time() - start < MOST
    if sentence is not None:
        assert sentence.isprintable()
        return False
    document = scan_document(measured, plan)
    json.loads(to_json(document))
    scan_csv([document])
    assert all(len(line) <= 80 for line in to_text(scan_text(document, "s3lora prune x -o y")).splitlines())
    return True


def mutations(valid: bytes, count: int) -> Iterator[bytes]:
    """Yield `count` seeded mutations: of bytes anywhere, of the header's text, of its numbers and of the length."""
    draw = random.Random(20240817)
    length = int.from_bytes(valid[:8], "little")
    for i in range(count):
        raw = bytearray(valid)
        kind = i % 6
        if kind == 0:
            for _ in range(draw.randint(1, 8)):
                raw[draw.randrange(len(raw))] = draw.randrange(256)
        elif kind == 1:
            for _ in range(draw.randint(1, 4)):
                raw[draw.randrange(8, 8 + length)] = draw.choice(b'0123456789{}[]",:\\ FBuld-.\x00\xff')
        elif kind == 2:
            start = draw.randrange(len(raw))
            del raw[start : start + draw.randint(1, 64)]
        elif kind == 3:
            start = draw.randrange(len(raw))
            raw[start:start] = draw.randbytes(draw.randint(1, 64))
        elif kind == 4:
            raw[draw.randrange(8)] = draw.randrange(256)
        else:
            raw = bytearray(_other_token(valid, length, draw))
        yield bytes(raw)


def _other_token(valid: bytes, length: int, draw: random.Random) -> bytes:
    """Replace one number or word of the header by another, and make the length fit, so that the rest is reached."""
    text = valid[8 : 8 + length].decode()
    places = [i for i, character in enumerate(text) if character.isdigit() and not text[i - 1].isdigit()]
    start = draw.choice(places)
    end = start
    while text[end].isdigit():
        end += 1
    if draw.random() < 0.7:
        header = text[:start] + draw.choice(NUMBERS) + text[end:]
        return bad.stored(header.encode(), valid[8 + length :])
    words = text.encode()
    return bad.stored(words[:start] + draw.choice(WORDS) + words[end:], valid[8 + length :])


def test_mutated_files_are_scanned_or_refused(tmp_path: Path) -> None:
    valid = bad.valid_bytes()
    path = tmp_path / bad.WEIGHTS
    path.write_bytes(valid)
    assert attempt(path), "the file that is mutated must be valid"
    outcomes = []
    for raw in mutations(valid, 480):
        path.write_bytes(raw)
        outcomes.append(attempt(path))
    assert any(outcomes), "if nothing survives, only the first check was tried"
    assert not all(outcomes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "target_modules",
    "exclude_modules", "modules_to_save", "init_lora_weights", "base_model_name_or_path", "target_parameters", "bias",
    "lora_bias", "fan_in_fan_out", "layers_to_transform", "megatron_config", "lora_parameters", "scale", "num_layers",
)  # fmt: skip


@settings(max_examples=examples(150), derandomize=True)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
def test_any_configuration_is_scanned_or_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    folder = tmp_path / "adapter"
    if not folder.exists():
        bad.good(folder)
    (folder / bad.CONFIG).write_text(json.dumps(fields))
    attempt(folder)


@settings(max_examples=60, derandomize=True)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_any_configuration_is_pruned_or_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    """What scans may still be unfit for pruning; then nothing is written."""
    folder, out = tmp_path / "adapter", tmp_path / "out"
    if not folder.exists():
        bad.good(folder)
    (folder / bad.CONFIG).write_text(json.dumps({"peft_type": "LORA", **fields}))
    existed = out.exists()
    try:
        with s3lora.open_adapter(folder) as adapter:
            measured = s3lora.scan(adapter)
            s3lora.write_pruned(s3lora.prune(adapter, s3lora.select(measured)), measured, out, force=True)
    except s3lora.S3LoRAError:
        assert out.exists() == existed
