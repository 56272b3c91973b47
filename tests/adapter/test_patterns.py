"""Regular expressions out of a configuration: matched as PEFT matches them, and never for hours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import s3lora
from s3lora.adapter.formats import patterns
from s3lora.adapter.formats.patterns import Pattern
from s3lora.errors import AdapterFileError

PATHS = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.10.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.1.self_attn.qkv_proj",
    "layers.1.mlp.gate_proj",
    "transformer.h.11.attn.c_attn",
    "transformer.h.1.mlp_c_fc",
    "score",
    "layers.1.q_proj\n",
    "layers.\n1.q_proj",
    "\n",
]
KEYS = [
    "q_proj",
    "self_attn.q_proj",
    "layers.1.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "attn.q_proj",
    "proj",
    "mlp.c_fc",  # the dot is any character
    "model.layers...self_attn.q_proj",
    "c_attn.",
    "score",
    "",
    r"layers\.1\..*",
    r".*\.(q|v)_proj",
    r"model\.layers\.\d+\.self_attn\.q(kv)?_proj",
    r"^model\.layers\.1\.self_attn\.q_proj",
    r"h.1[01].attn.c_attn",
    r"(layers|h)\.\d+\..+\..*",
    r"[^.]*_proj",
    r"score|q_proj",
    r"layers\.1\.self_attn\.q_proj",
    r"mlp\.c_fc",
    r"(?!.*mlp).*_proj",
    r"(a+)+.*proj",
]


@given(keys=st.lists(st.sampled_from(KEYS), unique=True), path=st.sampled_from(PATHS))
def test_patterns_match_as_in_peft(keys: list[str], path: str) -> None:
    get_pattern_key = pytest.importorskip("peft.utils.other").get_pattern_key
    table = {key: place + 1 for place, key in enumerate(keys)}
    assert Pattern(table, "rank_pattern", "f").find(path) == table.get(get_pattern_key(table.keys(), path))


@pytest.mark.parametrize("key", [r"(a+)\1b", "(a)?(?(1)b|c)", "a" * 1025, "(" * 60 + "a" + ")" * 60, "a)|(b", "*"])
def test_what_cannot_be_matched_in_bounded_time_is_refused_before_use(key: str) -> None:
    with pytest.raises(AdapterFileError, match="`alpha_pattern` has"):
        Pattern({key: 1}, "alpha_pattern", "f")


@pytest.mark.parametrize(
    "key", ["(a+)+b", "(a|aa)+b", "(a?){30}a{30}b", "a?" * 30 + "a" * 300, ".*.*.*.*.*b", "(?=(a+)+b)a"]
)
def test_patterns_that_would_take_peft_hours_are_answered(key: str) -> None:
    pattern = Pattern({key: 1, "a" * 200: 2}, "alpha_pattern", "f")
    assert pattern.find("layers.0." + "a" * 200) == 2


def test_many_slow_patterns_stop_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MAX_STEPS", patterns.MAX_STEPS // 100)
    path = "a." * 60 + "a" * 200 + "!"
    pattern = Pattern({f".*.*{i}q": 1 for i in range(100)}, "rank_pattern", "f")
    with pytest.raises(AdapterFileError, match="`rank_pattern` takes too long to match; write fewer keys"):
        list(map(pattern.find, [path] * 1000))


def test_many_names_of_unlike_form_stop_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MAX_STEPS", patterns.MAX_STEPS // 100)
    path = "x" * 1000
    names = {"x" * at + "." + "x" * (999 - at): 1 for at in range(1000)}
    pattern = Pattern(names, "rank_pattern", "f")
    with pytest.raises(AdapterFileError, match="takes too long to match"):
        list(map(pattern.find, [path] * 1000))


def test_more_expressions_than_can_be_read_in_time_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MAX_CHARACTERS", 1000)
    assert Pattern({f"[{i:03}].*": 1 for i in range(125)}, "rank_pattern", "f")
    with pytest.raises(AdapterFileError, match="`rank_pattern` takes too long to match"):
        Pattern({f"[{i:03}].*": 1 for i in range(150)}, "rank_pattern", "f")


def test_a_long_table_of_names_is_quick() -> None:
    names = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(400) for p in "qkvo"]
    pattern = Pattern({name: place + 1 for place, name in enumerate(names)}, "rank_pattern", "f")
    assert [pattern.find(name) for name in names] == list(range(1, len(names) + 1))


def test_of_two_ways_to_write_one_name_the_first_counts() -> None:
    assert Pattern({r"a\-b": 1, "a-b": 2, ".-b": 3}, "rank_pattern", "f").find("x.a-b") == 1
    assert Pattern({".-b": 3, "a-b": 2}, "rank_pattern", "f").find("x.a-b") == 3
    assert Pattern({r".*\.c": 4, r"a\.b": 1}, "rank_pattern", "f").find("a.b") == 1
    assert Pattern({"[a]-b": 4, "a-b": 1}, "rank_pattern", "f").find("a-b") == 4


def test_no_private_module_of_python_is_imported() -> None:
    source = (Path(s3lora.__file__).parent / "adapter").rglob("*.py")
    assert not [path for path in source if re.search(r"sre_|_parser|_constants", path.read_text(encoding="utf-8"))]
