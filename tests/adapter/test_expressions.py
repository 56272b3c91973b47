"""Expressions of others: each matches what it matches in `re`, and none takes long."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s3lora.adapter.expressions import MAX_DEPTH, MAX_LENGTH, MAX_STEPS, Expression, ExpressionError, Text
from tests.examples import examples

#: What PEFT, Unsloth, LLaMA-Factory and others write into `target_modules`.
REAL = [
    r".*\.(q_proj|v_proj)",
    r".*(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj$",
    r"^(?:base_model\.)?model\.layers\.\d+\..*",
    r"^(?!.*visual).*(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*",
    r"(?!.*visual).*(q_proj|k_proj)",
    r"^(?!.*patch_embed).*(?:attn\.qkv|attn\.proj)$",
    r"model\.layers\.(1[0-9]|2[0-7])\.self_attn\.[qv]_proj",
    r"(.*(?<!vision_)model\.)?layers\.[0-9]{1,2}\.mlp\.(?P<name>gate|up|down)_proj",
    r"(?i:MODEL)\.layers\.\d+?\.self_attn\..+?_proj",
    r"\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp)\.(?:(?:q_proj|k_proj|v_proj))",
    r"(?:.*?(?:vision|image|visual|patch|language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    r"(?:k_proj|v_proj|q_proj|out_proj|fc1|fc2|o_proj|up_proj|down_proj|gate_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp)\.(?:(?:k_proj|v_proj|q_proj|o_proj)))",
]
PATHS = [
    "model.layers.0.self_attn.q_proj",
    "base_model.model.layers.17.mlp.down_proj",
    "model.layers.17.self_attn.v_proj",
    "model.visual.blocks.3.attn.qkv",
    "visual.patch_embed.proj",
    "model.language_model.layers.21.self_attn.v_proj",
    "vision_model.layers.2.mlp.up_proj",
    "lm_head",
    "",
]
#: Some that Python's matcher would try for longer than anyone waits.
ENDLESS = [
    "(a+)+b",
    "(a|aa)+b",
    "(a?){30}a{180}b",
    "a?" * 30 + "a" * 300,
    ".*.*.*.*.*.*.*.*.*b",
    "(?=(a+)+b)a+",
    "((((a*)*)*)*)*b",
    "(((a{1,99}){1,99}){1,99}){1,99}b",
]


def _joined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(parts, min_size=1, max_size=3).map("".join),
        st.lists(parts, min_size=2, max_size=3).map(lambda choices: "(" + "|".join(choices) + ")"),
        st.tuples(st.sampled_from(["(", "(?:", "(?=", "(?!", "(?i:", "(?s:", "(?m:"]), parts).map(
            lambda p: f"{''.join(p)})"
        ),
        st.tuples(parts, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,2}", "{,1}", "{2,}", "{0}"])).map(
            lambda p: f"(?:{p[0]}){p[1]}"
        ),
        st.tuples(_ATOMS, st.sampled_from(["*", "+", "?", "+?", "{2}", "{1,3}", "{,2}", "{2,}?"])).map("".join),
    )


_ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "A",
        ".",
        r"\.",
        "[ab]",
        "[^a]",
        "[]a]",
        r"[\].]",
        r"\w",
        r"\W",
        r"\d",
        r"\s",
        r"\x61",
        "ab",
        "{",
        "-",
        r"\n",
    ]
)
_EDGES = st.sampled_from(["^", "$", r"\b", r"\B", r"\A", r"\Z", "(?<=a)", "(?<!a)", "(?<=a.)", "(?<!^)", ""])
PATTERNS = st.recursive(st.one_of(_ATOMS, _EDGES), _joined, max_leaves=8)


@settings(max_examples=examples(500))
@given(pattern=PATTERNS, texts=st.lists(st.text("abA.1\n ", max_size=7), min_size=1, max_size=5))
@example(pattern="(?:|a)*b", texts=["aab"])
def test_what_matches_is_what_matches_in_re(pattern: str, texts: list[str]) -> None:
    ours, theirs = Expression(pattern), re.compile(pattern)
    for text in texts:
        assert ours.fullmatch(text) == (theirs.fullmatch(text) is not None), text
        assert ours.search(text) == (theirs.search(text) is not None), text


@pytest.mark.parametrize("pattern", REAL)
def test_real_expressions_match_as_in_re(pattern: str) -> None:
    ours = Expression(pattern)
    assert [ours.fullmatch(path) for path in PATHS] == [re.fullmatch(pattern, path) is not None for path in PATHS]
    assert any(ours.fullmatch(path) for path in PATHS)


@pytest.mark.parametrize("pattern", ENDLESS)
def test_what_would_take_re_for_ever_is_answered_in_few_steps(pattern: str) -> None:
    text = Text("a" * 200)
    assert not Expression(pattern).ends(text, 1) >> 200
    assert text.steps < MAX_STEPS // 10
    assert Expression(pattern.replace("b", "a")).fullmatch("a" * 200) is (pattern != "a?" * 30 + "a" * 300)


@pytest.mark.parametrize("pattern", ["(.(?=.*(?=.*(?=.*b))))*c", "(?:a|aa){900}b", "(?:(?=a*b)|a)*"])
def test_what_takes_long_all_the_same_is_stopped(pattern: str) -> None:
    text = Text("a" * 100_000)
    with pytest.raises(ExpressionError, match="takes too long to match"):
        Expression(pattern).ends(text, text.everywhere)
    assert text.steps < 2 * MAX_STEPS


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (r"(a+)\1", "not supported"),
        (r"(?P<x>a)(?P=x)", "not supported"),
        (r"(a)?(?(1)b|c)", "not supported"),
        (r"a(?#no)", "not supported"),
        (r"(?x: a )", "not supported"),
        (r"(?i:[\u0100-\uffff])", "beyond ASCII"),
        ("[é]", "beyond ASCII"),
        ("(" * (MAX_DEPTH + 1) + ")" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} groups"),
        ("a" * (MAX_LENGTH + 1), f"has {MAX_LENGTH + 1} characters"),
        ("(", "is no regular expression"),
        ("a)|(b", "is no regular expression"),
        ("[b-a]", "is no regular expression"),
        ("a{99999999999}", "is no regular expression"),
        ("(?<=a*)b", "is no regular expression"),
        pytest.param("(?>a)", "not supported", marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="of 3.11")),
        pytest.param("a++", "not supported", marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="of 3.11")),
    ],
)
def test_what_cannot_be_bounded_is_refused_in_words(pattern: str, told: str) -> None:
    with pytest.raises(ExpressionError, match=told):
        Expression(pattern)


def test_the_flags_at_the_beginning_hold_for_all() -> None:
    assert Expression("(?i)q_PROJ|v_proj").fullmatch("V_Proj")
    assert Expression("(?s)a.b").fullmatch("a\nb")
