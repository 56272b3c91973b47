"""Regular expressions out of a configuration: matched as PEFT matches them, and never for hours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s3lora
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
]


@settings(deadline=None)
@given(keys=st.lists(st.sampled_from(KEYS), unique=True), path=st.sampled_from(PATHS))
def test_patterns_match_as_in_peft(keys: list[str], path: str) -> None:
    get_pattern_key = pytest.importorskip("peft.utils.other").get_pattern_key
    table = {key: place + 1 for place, key in enumerate(keys)}
    assert Pattern(table, "rank_pattern", "f").find(path) == table.get(get_pattern_key(table.keys(), path))


@pytest.mark.parametrize(
    "key",
    [
        "(a+)+b",
        "(a|aa)+b",
        "(a?){30}a{30}",
        "a?" * 30 + "a" * 30,
        ".*.*.*.*.*b",
        "(?>(a+)+b)",
        "((a+)+b)?+",
        r"(a+)\1b",
        "(?=(a+)+b)a",
        "a" * 1025,
    ],
)
def test_patterns_that_could_take_hours_are_refused_before_use(key: str) -> None:
    with pytest.raises(AdapterFileError, match="`alpha_pattern` has"):
        Pattern({key: 1}, "alpha_pattern", "f")


def test_many_slow_patterns_stop_in_time() -> None:
    path = "a." * 60 + "a" * 200 + "!"
    pattern = Pattern({f".*.*{i}q": 1 for i in range(100)}, "rank_pattern", "f")
    with pytest.raises(AdapterFileError, match="could take hours"):
        list(map(pattern.find, [path] * 100_000))


def test_a_long_table_of_names_is_quick() -> None:
    names = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(400) for p in "qkvo"]
    pattern = Pattern({name: place + 1 for place, name in enumerate(names)}, "rank_pattern", "f")
    assert [pattern.find(name) for name in names] == list(range(1, len(names) + 1))


def test_the_parser_of_expressions_is_not_imported_by_its_old_names() -> None:
    """Python 3.15 has neither sre_parse nor sre_constants."""
    if sys.version_info < (3, 11):
        pytest.skip("this Python has the old names only")
    code = "import sys; sys.modules.update(sre_parse=None, sre_constants=None, sre_compile=None)\n"
    code += "import s3lora.adapter.formats.patterns as p; assert p.Pattern({'a.*b': 2}, 'f', 'f').find('x.acb') == 2"
    path = os.pathsep.join([str(Path(s3lora.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=60)
