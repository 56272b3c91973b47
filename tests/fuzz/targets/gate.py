"""What decides whether a gate passes: policies, and what an earlier run found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from s3lora.gate.baseline import read_baseline
from s3lora.gate.policy import KEYS, find_policy, read_policy
from tests.fuzz.contract import command, emptied, untouched, work_folder
from tests.fuzz.draw import INTEGERS, NUMBERS, Draw
from tests.fuzz.measuring import put
from tests.fuzz.target import Target

RULES = (
    "ssi > 0.1", "outliers > 0", "ssi < 0", "nonfinite", "kurtosis >= 1e400", "strict", "unmeasured", "heads",
    "rank > 1", "dead-modules", "ssi > p99",
)  # fmt: skip
_WORDS = (
    *RULES,
    "heads: ours",
    "ssi",
    "svd",
    "top 3",
    "q_proj",
    "0-2",
    "(a+)+$",
    "head",
    "mean",
    "strict",
    "../x",
    "3",
    "1e9",
)


def _policy(draw: Draw) -> bytes:
    if draw.chance(3):
        return draw.rest()
    lines = ["[tool.s3lora]"] if draw.chance(3) else []
    for _ in range(draw.number(4)):
        key = draw.pick(tuple(KEYS)) if not draw.chance(10) else draw.text(8)
        lines.append(f"{key} = {_toml(key, draw)}")
    return "\n".join(lines).encode("utf-8", "replace")


def _toml(key: str, draw: Draw) -> str:
    kind = KEYS.get(key, "a string") if not draw.chance(8) else draw.pick(tuple(KEYS.values()))
    if "list" in kind and not draw.chance(4):
        return json.dumps([draw.pick(_WORDS) for _ in range(draw.number(2))])
    if "number" in kind:
        return str(draw.pick((*INTEGERS, *NUMBERS)))
    return draw.pick(("true", "false")) if "true" in kind else json.dumps(draw.pick((*_WORDS, draw.word())))


def _fuzz_policy(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    name = draw.pick(("s3lora.toml", "pyproject.toml"))
    file = folder / name
    file.write_bytes(_policy(draw))
    with untouched(folder):
        find_policy(folder)
        policy = read_policy(file)
    if {"reference", "preset"} & policy.values.keys():
        return  # a reference is a target of its own
    put(folder / "in")
    with untouched(folder):
        command("scan", folder / "in", "--policy", file, "--format", "json")


@cache
def _sarif() -> Any:
    """Return what a scan that found something wrote."""
    with work_folder() as folder:
        put(emptied(folder / "made") / "in")
        rules = ("--fail-on", "ssi > 0", "--fail-on", "outliers > 0")
        return json.loads(command("scan", folder / "made" / "in", "--no-policy", "--format", "sarif", *rules)[1])


def _fuzz_baseline(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    file = folder / "earlier.sarif"
    file.write_bytes(draw.rest() if draw.chance(3) else json.dumps(draw.edited(_sarif())).encode())
    with untouched(folder):
        read_baseline(str(file))
    put(folder / "in")
    form = draw.pick(("json", "sarif", "text"))
    with untouched(folder):
        command("scan", folder / "in", "--no-policy", "--baseline", file, "--fail-on", "ssi > 0", "--format", form)


def _policy_seeds() -> Sequence[bytes]:
    text = b'fail-on = ["ssi > 0.1"]\nonly = ".*q_proj"\ntop = 3\n'
    return (b"\0\2" + text, b"\1\2[tool.s3lora]\n" + text, bytes(30), b"\0\0\0\3\1\0\1\2\0\3\0\2\0\1\1" * 2)


def _baseline_seeds() -> Sequence[bytes]:
    return (b"\2" + json.dumps(_sarif()).encode(), b"", b"\0\3\0\1\0\2\0\1\3\1\2" * 3, b"\0\1\1\0\0\0\1\0\0\3\4")


TARGETS = (
    Target("policy", "s3lora.toml and pyproject.toml", _fuzz_policy, _policy_seeds,
           tuple(f"{key} = ".encode() for key in KEYS) + tuple(word.encode() for word in _WORDS), quick=100),
    Target("baseline", "SARIF of an earlier run", _fuzz_baseline, _baseline_seeds,
           (b'"runs":', b'"results":', b'"version":"2.1.0"', b'"properties":', b'"modules":', b'"locations":'),
           quick=60),
)  # fmt: skip
