"""Untrusted names in Markdown come out as the text that they are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.errors import printable
from s3lora.report.markdown import code, table, text
from tests.examples import examples
from tests.report.rendered import Rendered
from tests.report.test_text import HOSTILE

MARKUP = (
    "a|b",
    "`x`",
    "a`` b",
    "<img src=x onerror=alert(1)>",
    "<!-- s3lora:end -->",
    "<!--",
    "-->",
    "[here](http://evil.example)",
    "![picture](http://evil.example/x.png)",
    "[x]: http://evil.example",
    "<http://evil.example>",
    "http://evil.example",
    "www.evil.example",
    "me@evil.example",
    "**bold** __bold__ _i_ *i* ~~gone~~",
    "# heading",
    "- item",
    "+ item",
    "1. item",
    "1) item",
    "> quote",
    "--- ",
    "===",
    "\\|",
    "&lt;b&gt; &#60;",
    "$x$ $$y$$",
    "</code></td></tr></table></details>",
    "```",
    "model.layers.3.self_attn.q_proj",
)

names = pytest.mark.parametrize("name", [*MARKUP, *HOSTILE])


def squeezed(words: str) -> str:
    return " ".join(words.split())


@names
def test_text_is_read_as_it_stands(name: str) -> None:
    for before, after in (("", ""), ("- ", ""), ("says ", " here")):
        found = Rendered(f"{before}{text(name)}{after}\n")
        assert set(found.tags) <= {"p", "ul", "li"}, found.tags
        read = "".join(found.texts.get("p", found.texts.get("li", [""])))
        assert squeezed(read) == squeezed(f"{before.strip('- ')} {printable(name, 400)} {after}")


@names
def test_code_is_read_as_it_stands(name: str) -> None:
    found = Rendered(f"before {code(name)} after\n")
    assert found.tags == ["p", "code"]
    assert squeezed(found.texts["code"][0]) == squeezed(printable(name, 400))


@names
def test_a_cell_stays_a_cell(name: str) -> None:
    found = Rendered("\n".join(table(["a", text(name), "c"], [["1", code(name), text(name)]], right=[1])) + "\n")
    assert [len(found.texts[tag]) for tag in ("table", "tr", "th", "td", "code")] == [1, 2, 3, 3, 1]
    assert {squeezed(found.texts["th"][1]), *map(squeezed, found.texts["td"][1:])} == {squeezed(printable(name, 400))}


@settings(max_examples=examples(150))
@given(st.text(st.characters(codec="utf-8") | st.sampled_from("`|<>[]()*_~\\&#$!-:/.@ "), max_size=40))
def test_whatever_the_name(name: str) -> None:
    found = Rendered(f"x {text(name)} {code(name)} x\n")
    assert found.tags == ["p", "code"]
    assert squeezed(found.texts["p"][0]) == squeezed(f"x {printable(name)} {printable(name)} x")
    assert "<!--" not in text(name) + code(name)


def test_ordinary_names_stay_readable() -> None:
    assert code("model.layers.3.self_attn.q_proj") == "`model.layers.3.self_attn.q_proj`"
    assert text("asr: no difference can be told (+0.02; n = 48).") == "asr: no difference can be told (+0.02; n = 48)."
    assert table(["a", "b"], [["1", "2"]], right=[1]) == ["| a | b |", "| --- | ---: |", "| 1 | 2 |"]
