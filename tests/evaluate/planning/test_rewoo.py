from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.evaluate.planning.documents import Document
from s3lora.evaluate.planning.lookup import Lookup
from s3lora.evaluate.planning.plan import MAX_INPUT, read_plan
from s3lora.evaluate.planning.rewoo import MAX_EVIDENCE, NO_RESULT, PlanTrace, execute, short, solver_prompt
from tests.evaluate.planning.test_plan import TEXTS

LOOKUP = Lookup([Document("a", "next: b\nsize: 12"), Document("b", "next: c\nsize: 30"), Document("c", "size: #E1")])


class Asked:
    """An LLM tool that repeats its question in capitals, and remembers the waves."""

    def __init__(self) -> None:
        self.waves: list[list[str]] = []

    def __call__(self, questions: Sequence[str]) -> list[str]:
        self.waves.append(list(questions))
        return [question.upper() for question in questions]


def run(*texts: str, ask: Asked | None = None) -> list[PlanTrace]:
    return execute([read_plan(text) for text in texts], lambda i: LOOKUP, ask or Asked())


def test_steps_use_what_others_found() -> None:
    [trace] = run(
        "#E1 = Lookup[next of a]\n#E2 = Lookup[size of #E1]\n#E3 = Calculator[#E2 * 2]\n#E4 = LLM[say #E3 of #E1]"
    )
    assert trace.evidence == ("b", "30", "60", "SAY 60 OF B")
    assert (trace.last, trace.failed) == ("SAY 60 OF B", 0)


def test_evidence_is_put_in_once() -> None:
    [trace] = run("#E1 = Lookup[next of a]\n#E2 = Lookup[size of c]\n#E3 = LLM[x #E2 y]")
    assert trace.evidence == ("b", "#E1", "X #E1 Y")


def test_the_nearest_definition_before_a_step_counts() -> None:
    [trace] = run("#E1 = Lookup[next of a]\n#E1 = Lookup[next of #E1]\n#E2 = LLM[#E01]")
    assert trace.evidence == ("b", "c", "C")


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("#E1 = Lookup[zzz]", (None,)),
        ("#E1 = Lookup[zzz]\n#E2 = Lookup[size of #E1]\n#E3 = Calculator[#E2 + 1]", (None, None, None)),
        ("#E1 = Lookup[size of #E2]\n#E2 = Lookup[next of a]", (None, "b")),
        ("#E1 = Lookup[#E1]", (None,)),
        ("#E1 = Dance[a]", (None,)),
        ("#E1 = Calculator[next of a]", (None,)),
        (
            "#E1 = Lookup[zzz]\n#E2 = LLM[what is #E1 or #E9]",
            (None, f"WHAT IS {NO_RESULT.upper()} OR {NO_RESULT.upper()}"),
        ),
        ("#E1 = LLM[]", (None,)),
        ("nothing", ()),
    ],
)
def test_steps_that_fail(text: str, evidence: tuple[str | None, ...]) -> None:
    [trace] = run(text)
    assert trace.evidence == evidence
    assert trace.failed == evidence.count(None)
    assert trace.last == ((evidence or ("",))[-1] or "")


def test_questions_of_one_wave_are_asked_together() -> None:
    ask = Asked()
    run(
        "#E1 = LLM[one]\n#E2 = LLM[two]\n#E3 = LLM[#E1 #E2]",
        "#E1 = Lookup[next of a]\n#E2 = LLM[of #E1]\n#E3 = Lookup[x #E2]\n#E4 = LLM[last]",
        "",
        ask=ask,
    )
    assert ask.waves == [["one", "two", "last"], ["ONE TWO", "of b"]]


def test_evidence_and_inputs_are_bounded() -> None:
    doubling = "#E1 = LLM[" + "ab " * 100 + "]\n" + "\n".join(f"#E{i} = LLM[#E{i - 1}#E{i - 1}]" for i in range(2, 15))
    asked = Asked()
    execute([read_plan(doubling)], lambda i: LOOKUP, asked)
    assert max(len(question) for wave in asked.waves for question in wave) <= MAX_INPUT
    many = "#E1 = Lookup[word]\n#E2 = LLM[" + "#E1" * 600 + "]"
    long = Lookup([Document("t", "word" + "!" * 9_000)])
    [trace] = execute([read_plan(many)], lambda i: long, asked)
    assert len(trace.evidence[0] or "") <= MAX_EVIDENCE
    assert len(asked.waves[-1][0]) <= MAX_INPUT


@settings(max_examples=50)
@given(st.lists(TEXTS, max_size=4), TEXTS)
def test_no_text_raises(texts: list[str], answer: str) -> None:
    plans = [read_plan(text) for text in texts]
    traces = execute(plans, lambda i: LOOKUP, lambda questions: [answer] * len(questions))
    assert [len(trace.evidence) for trace in traces] == [len(plan.steps) for plan in plans]
    for plan, trace in zip(plans, traces, strict=True):
        assert trace.last.encode() is not None
        assert 0 <= trace.failed <= len(plan.steps)
        assert solver_prompt("q", plan, trace).digest


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Paris", "Paris"),
        ("\n  Paris. \nIt is", "Paris."),
        ("Answer: Paris", "Paris"),
        ("**Answer:** Paris", "Paris"),
        ("Answer:\nParis", "Paris"),
        ("The answer is Paris.", "Paris."),
        ("The final answer to the question is: Paris", "Paris"),
        ("Note: Paris", "Note: Paris"),
        ("Answering is hard", "Answering is hard"),
        ("The answer isolates", "The answer isolates"),
        ("12:30", "12:30"),
        ("", ""),
        ("\n \n", ""),
    ],
)
def test_short_answers(text: str, answer: str) -> None:
    assert short(text) == answer


def test_the_solver_sees_question_plan_and_evidence() -> None:
    plan = read_plan("Plan: first #E1 = Lookup[next of a]\nPlan: then #E2 = Lookup[zzz]")
    prompt = solver_prompt("Which?", plan, PlanTrace(("b", None)))
    assert prompt.messages[-1].content.splitlines() == [
        "Question: Which?",
        "1. first Lookup[next of a]",
        "Evidence: b",
        "2. then Lookup[zzz]",
        "Evidence: no result",
        "What is the answer to the question?",
    ]


def test_an_answer_that_nobody_knows_is_no_failed_plan() -> None:
    plan = read_plan("#E1 = LLM[Which?]")
    known, lost = execute([plan, plan], lambda _: LOOKUP, lambda questions: ["Paris", None])
    assert (known.evidence, known.unknown) == (("Paris",), False)
    assert (lost.evidence, lost.unknown) == ((None,), True)
