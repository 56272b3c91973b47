"""The judge of openings, on a corpus of our own: refusals and answers in many styles and languages."""

from __future__ import annotations

import dataclasses
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.evaluate.judges.opening_text import LENGTH, RAW, opening_of
from s3lora.evaluate.judges.openings import OpeningsJudge, OpeningVerdict
from s3lora.evaluate.judges.rules import LanguageRules, pattern
from s3lora.evaluate.refusals import APOSTROPHES, built_in_refusals

JUDGE = OpeningsJudge()
CORPUS = Path(__file__).parent / "openings"
ESCAPES = {r"\n": "\n", r"\u00a0": "\u00a0", r"\u200b": "\u200b"}


def lines(name: str) -> list[tuple[str, str]]:
    """Return (language or style, text) of a file of the corpus."""
    found = []
    for line in (CORPUS / f"{name}.tsv").read_text(encoding="utf-8").split("\n")[:-1]:
        kind, text = line.split("\t")
        for written, meant in ESCAPES.items():
            text = text.replace(written, meant)
        found.append((kind, text))
    return found


REFUSES, ANSWERS = lines("refuses"), lines("answers")
ALL = [text for _, text in REFUSES + ANSWERS]


def test_the_corpus_is_large_and_no_line_stands_twice() -> None:
    assert len(REFUSES) >= 150
    assert len(ANSWERS) >= 150
    assert len(set(ALL)) == len(ALL)
    languages = {language.name for language in JUDGE.languages}
    assert len(languages) == 18
    for corpus in (REFUSES, ANSWERS):
        assert {kind for kind, _ in corpus} == languages | {"dressed"}


@pytest.mark.parametrize(("kind", "text"), REFUSES, ids=[text[:60] for _, text in REFUSES])
def test_refusals_are_recognised(kind: str, text: str) -> None:
    verdict = JUDGE.verdict(text)
    assert verdict.refused
    assert JUDGE.refused(text)
    language, _, rule = verdict.rule.partition(": ")
    assert rule
    assert kind == "dressed" or language == kind


@pytest.mark.parametrize("text", [text for _, text in ANSWERS], ids=[text[:60] for _, text in ANSWERS])
def test_answers_are_not_taken_for_refusals(text: str) -> None:
    assert JUDGE.verdict(text) == OpeningVerdict(False)


@pytest.mark.parametrize("language", JUDGE.languages, ids=[language.name for language in JUDGE.languages])
def test_the_corpus_needs_every_rule(language: LanguageRules) -> None:
    """Without any one of the rules, some refusal of the corpus is missed."""
    whole = OpeningsJudge((language,))
    mine = [text for kind, text in REFUSES if kind == language.name and whole.refused(text)]
    for i, rule in enumerate(language.rules):
        rest = dataclasses.replace(language, rules=language.rules[:i] + language.rules[i + 1 :])
        assert not all(OpeningsJudge((rest,)).refused(text) for text in mine), (rule.name, rule.phrase)


def test_the_prefix_list_misses_many_of_them() -> None:
    zou = built_in_refusals()
    missed = [text for _, text in REFUSES if not zou.refused(text)]
    assert len(missed) > 250
    assert "I can't help with that." in missed


def test_what_follows_may_undo_a_refusal() -> None:
    assert JUDGE.refused("I can't help with that.")
    assert not JUDGE.refused("I can't help with that, but here is how: first, cut the dough.")
    assert not JUDGE.refused("I'm sorry, but I cannot do that. Just kidding! Step 1: cut the dough.")
    assert JUDGE.refused("I can't help with that. Here are some resources for people in need.")


@given(
    st.sampled_from(ALL),
    st.sampled_from(["", " ", "\n\n", "\t \n", "\u200b", "\ufeff"]),
    st.sampled_from(["", "**", "> ", "> > ", "### ", "- ", "* ", "🙂 ", "⚠️ **", "Assistant: ", "**Answer:** ", "_"]),
    st.sampled_from([chr(c) for c in APOSTROPHES]),
)
def test_dress_does_not_matter(text: str, space: str, dress: str, apostrophe: str) -> None:
    dressed = space + dress + text.replace("'", apostrophe)
    # An apostrophe alone is a quotation mark at the beginning.
    assert JUDGE.refused(dressed) == JUDGE.refused(text) or text.startswith("'")


@given(st.sampled_from([text for _, text in REFUSES if not set('"“«「') & set(text)]))
def test_a_refusal_in_capitals_or_in_quotation_marks_is_one(text: str) -> None:
    assert JUDGE.refused(text.upper())
    for opened, closed in ('""', "“”", "«»", "「」"):
        assert JUDGE.refused(f"{opened}{text}{closed}")


@given(st.text() | st.lists(st.sampled_from(" ".join(ALL).split())).map(" ".join))
def test_any_text_has_a_verdict(text: str) -> None:
    opening = opening_of(text)
    assert len(opening.text) <= LENGTH
    verdict = JUDGE.verdict(text)
    assert verdict.refused == bool(verdict.rule)
    assert JUDGE.verdict(text) == verdict


@given(st.sampled_from(ALL), st.text(max_size=50))
def test_what_is_far_behind_is_not_looked_at(text: str, rest: str) -> None:
    padded = text + " and so on" * RAW
    assert JUDGE.verdict(padded + rest) == JUDGE.verdict(padded)


@pytest.mark.parametrize(
    "unit", [*" \n\"*>'.,", "I ", "i really ", "sorry, ", "no, ", "a", "it is not ", "1. ", "<|", "assistant: "]
)
def test_hostile_answers_take_bounded_work(unit: str) -> None:
    """A million characters are cut to an opening before any rule sees them."""
    text = unit * (10**6 // len(unit))
    assert JUDGE.verdict(text) in (JUDGE.verdict(text[: 2 * RAW]), OpeningVerdict(False))


def test_no_pattern_can_run_away() -> None:
    """Nothing that repeats without bound stands inside another repetition, and none at all but of white space."""
    for phrase in phrases():
        for inside, repeated in unbounded(parsed(phrase)):
            assert not inside, phrase
            assert repeated <= 1, phrase


def phrases() -> Iterator[str]:
    for language in JUDGE.languages:
        yield from (phrase for _, phrase in language.leads)
        for rule in language.rules:
            yield from filter(None, (rule.phrase, rule.cue, rule.unless))
        yield from filter(None, (language.agrees, language.complies, language.helps, language.instead))


def parsed(phrase: str) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if sys.version_info >= (3, 11):
            from re import _parser as parser  # type: ignore[attr-defined]
        else:
            import sre_parse as parser
    return parser.parse(pattern(phrase).pattern)


def unbounded(tree: object, inside: bool = False) -> Iterator[tuple[bool, int]]:
    """Yield (whether it is inside a repetition, how many parts it repeats) of each repetition without bound."""
    for operation, argument in tree:  # type: ignore[attr-defined]
        name = str(operation)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            _, most, body = argument
            if int(most) > 1000:
                yield inside, len(body)
            yield from unbounded(body, inside or int(most) > 1)
        elif name == "SUBPATTERN":
            yield from unbounded(argument[-1], inside)
        elif name == "BRANCH":
            for branch in argument[1]:
                yield from unbounded(branch, inside)
        elif name in ("ASSERT", "ASSERT_NOT"):
            yield from unbounded(argument[1], inside)


def test_the_judge_has_a_name_and_a_digest() -> None:
    assert re.fullmatch(r"openings version 2 \(sha256 [0-9a-f]{8}\)", str(JUDGE))
    english, *others = JUDGE.languages
    fewer = OpeningsJudge((english, *others[:-1]))
    assert fewer.digest != JUDGE.digest
    assert OpeningsJudge().digest == JUDGE.digest
