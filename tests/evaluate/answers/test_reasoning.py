from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.evaluate.answers.reasoning import (
    HARMONY,
    MARK,
    Said,
    mark_tokens,
    opens_reasoning,
    read_answer,
    split_reasoning,
)
from s3lora.evaluate.chat import Generation
from tests.examples import examples

THOUGHT = "They want harm; I could say: Sure, here it is."
ANSWER = "I can't help with that."
PAIRS = (
    ("<think>", "</think>"),
    ("<THINK>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
)

RAW = f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>"


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_reasoning_is_taken_out(opening: str, closing: str) -> None:
    whole = Said(ANSWER, reasoned=True)
    assert split_reasoning(f"{opening}\n{THOUGHT}\n{closing}\n\n{ANSWER}") == whole
    assert split_reasoning(f"\n {opening}{THOUGHT}{closing}{ANSWER}") == whole
    assert split_reasoning(f"{THOUGHT}{closing}{ANSWER}") == whole  # the prompt opened it
    assert split_reasoning(f"{THOUGHT}{closing}{ANSWER}", opened=True) == whole
    assert split_reasoning(f"{opening}{THOUGHT}") == Said("", True, True)
    assert split_reasoning(f"{opening}{closing}\n\n{ANSWER}") == whole
    assert opens_reasoning(f"<|user|>Hello<|assistant|>{opening}\n")
    assert not opens_reasoning(f"<|user|>Hello<|assistant|>{opening}\n\n{closing}\n\n")
    assert not opens_reasoning(f"<|user|>What does {opening} do?<|assistant|>")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Nested, repeated, unclosed, mentioned.
        ("<think>a<think>b</think>c</think>Yes", Said("Yes", True)),
        ("<think>a<think>b</think>c", Said("c", True)),
        ("<think>a</think>\n<think>b</think>\nYes", Said("Yes", True)),
        ("<think>a</think><think>b", Said("", True, True)),
        ("<think>I may write <think> here</think>Yes", Said("Yes", True)),
        ("Wait.\n<think>a</think>\nYes", Said("Wait.\n\nYes", True)),
        ("Wait.<think>a</think>Yes", Said("Wait. Yes", True)),
        ("Sure, I think.\n<think>\nHow do I", Said("Sure, I think.\n", True, True)),
        ("An element such as <think> is not HTML.", Said("An element such as <think> is not HTML.")),
        ("a</think>b</think>Yes", Said("Yes", True)),
        # Code is what the answer talks about, but not where reasoning is open.
        ("Close it by `</think>`.", Said("Close it by `</think>`.")),
        ("```xml\n<think>\nx\n</think>\n```\nYes", Said("```xml\n<think>\nx\n</think>\n```\nYes")),
        ("~~~\n</think>\n~~~", Said("~~~\n</think>\n~~~")),
        ("```xml\n<think>\ncut", Said("```xml\n<think>\ncut")),
        ("<think>```py\nx = 1</think>Yes ```y```", Said("Yes ```y```", True)),
        ("```py\nx = 1\n</think>\nYes", Said("Yes", True)),
        ("<think>`</think>` ends it</think>Yes", Said("Yes", True)),
        # What some models put around the answer.
        ("<think>a</think>\n<answer> Yes </answer>", Said("Yes", True)),
        ("<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>Yes", Said("Yes", True)),
        ("<answer>Yes</answer>", Said("<answer>Yes</answer>")),
        # Harmony, with its tokens and without them.
        (RAW, Said(ANSWER, True)),
        (RAW.replace("<|return|>", ""), Said(ANSWER, True)),
        (f"<|start|>assistant{RAW}", Said(ANSWER, True)),
        (RAW[: RAW.index("<|end|>")], Said("", True, True)),
        (RAW[: RAW.index("final")], Said("", True, True)),
        (f"{THOUGHT}{RAW[RAW.index('<|end|>') :]}", Said(ANSWER, True)),
        ("<|channel|>final<|message|>Yes", Said("Yes", True)),
        ("<|channel|>commentary to=a.b <|constrain|>json<|message|>{}<|call|>", Said("", True, True)),
        (f"analysis{THOUGHT}assistantfinal{ANSWER}", Said(ANSWER, True)),
        ("analysisWe need to refuse", Said("", True, True)),
        ("analysisResult = 3", Said("analysisResult = 3")),
        ("Analysis of the data", Said("Analysis of the data")),
        ("", Said("")),
    ],
)  # fmt: skip
def test_what_is_said(text: str, expected: Said) -> None:
    assert split_reasoning(text) == expected


PIECES = st.lists(
    st.sampled_from(
        [*(mark for pair in PAIRS for mark in pair), *HARMONY, "<answer>", "</answer>", "analysis", "assistantfinal",
         "final", "assistant", "`", "```\n", "~~~\n", "\n", " ", "<th", "ink>", "</", "We need to", "Yes."]
    ), max_size=12,
).map("".join)  # fmt: skip


@settings(max_examples=examples(400))
@given(st.one_of(st.text(), PIECES), st.booleans())
def test_taking_it_out_twice_changes_nothing(text: str, opened: bool) -> None:
    once = split_reasoning(text, opened)
    assert split_reasoning(once.text).text == once.text
    assert len(once.text) <= len(text)


@given(st.text())
def test_a_text_without_marks_is_left_as_it_is(text: str) -> None:
    if not MARK.search(text) and "<|" not in text and "analysis" not in text:
        assert split_reasoning(text) == Said(text)
        assert split_reasoning(text, opened=True) == Said("", True, True)


@given(st.text(alphabet="abc \n`<>/", max_size=20), st.sampled_from(PAIRS))
def test_whatever_is_thought_is_not_judged(thought: str, pair: tuple[str, str]) -> None:
    assert split_reasoning(f"{pair[0]}{thought}{pair[1]}{ANSWER}").text == ANSWER


@pytest.mark.parametrize(
    "piece", ["<think></think>", "<think>", "`<think>`", "```x\n<think>", "</think>", "a<think>", "<|channel|>", "<|"]
)
def test_the_work_grows_with_the_length_and_no_faster(piece: str) -> None:
    """A quadratic rule would take minutes."""
    begun = time.process_time()
    split_reasoning(piece * 100_000)
    assert time.process_time() - begun < 20


def test_what_nobody_knows() -> None:
    assert read_answer("Yes", 1, False) == Generation("Yes", 1, False)
    assert read_answer(f"<think>a</think>{ANSWER}", 9, True) == Generation(ANSWER, 9, True, True)
    assert read_answer("<think>a", 9, False) == Generation("", 9, False, True, "reasoning")
    assert read_answer("<think>a", 9, True).unknown == "reasoning"  # it ended without a word
    assert read_answer("a", 9, False, opened=True).unknown == "reasoning"
    assert read_answer("<think>a</think>\n", 9, False).unknown == "nothing"
    assert read_answer(" ", 9, False).unknown == "nothing"
    assert read_answer("", 1, True) == Generation("", 1, True)  # it chose to say nothing
    assert read_answer("", 9, False, apart=True).unknown == "reasoning"
    assert read_answer("", 9, True, apart=True).unknown == "reasoning"
    assert read_answer("Yes", 9, True, apart=True) == Generation("Yes", 9, True, True)
    assert read_answer("[x]Yes", 2, True, plain="Yes") == Generation("Yes", 2, True)


def test_special_tokens_that_are_marks() -> None:
    assert mark_tokens({"<think>": 1, "</think>": 2, "<|im_end|>": 3, "[THINK]": 4}) == {1, 2, 4}
    assert mark_tokens({"<|end|>": 1, "<|start|>": 2}) == set()  # those of another format
    assert mark_tokens({"<|end|>": 1, "<|channel|>": 2, "<|endoftext|>": 3}) == {1, 2}
