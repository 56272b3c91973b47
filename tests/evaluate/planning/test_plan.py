from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s3lora.evaluate.planning.plan import MAX_STEPS, MAX_TEXT, OWN_TOOLS, read_plan
from tests.evaluate.planning.planners import parse_plan

#: Pieces that plans are made of, so that random texts come near to being one.
MARKS = ["Plan: ", "Step 2:", "1. ", "**", "why ", "#E1", "#E2", "#E3", "#E01", "#E", " = ", ": ", "[", "]", "\n"]
OTHERS = ["Lookup[", "Calculator[", "LLM[", "Google[", "\r", "\u2028", "region of ", "x", "\ud800", "٣"]
PIECES = st.sampled_from([*MARKS, *OTHERS])
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join))

STRICT = """Plan: Find the region. #E1 = Lookup[region of Varhaven]
Plan: Find its capital. #E2 = Lookup[capital of #E1]
Plan: Choose. #E3 = LLM[Which is larger: 1 for #E1, or 2 for #E2?]"""

FOREIGN = """Sure! Here is the plan.

Plan: Search for the film [the 1994 one],
and its director.
#E1 = Google[film "Pulp [Fiction]" director]

**Plan:** Look at the page.
#E2 = Wikipedia[#E1]
3. Plan 3: Find the year.
#E3 = LLM[In which year was #E1
born? Given #E2]
Plan: Add.  #E4 = WolframAlpha[ #E3 + 1 ]

That should do."""


def test_the_form_of_the_built_in_tasks() -> None:
    plan = read_plan(STRICT, OWN_TOOLS)
    assert plan.well_formed
    assert [(step.tool, step.input) for step in plan.steps] == parse_plan(STRICT)
    assert [step.why for step in plan.steps] == ["Find the region.", "Find its capital.", "Choose."]
    assert [dict(step.needs) for step in plan.steps] == [{}, {"1": 0}, {"1": 0, "2": 1}]
    assert [step.worker for step in plan.steps] == ["lookup", "lookup", "llm"]


def test_foreign_plans() -> None:
    plan = read_plan(FOREIGN)
    assert plan.problems == ()
    assert [(step.label, step.worker, step.input) for step in plan.steps] == [
        ("1", "lookup", 'film "Pulp [Fiction]" director'),
        ("2", "lookup", "#E1"),
        ("3", "llm", "In which year was #E1\nborn? Given #E2"),
        ("4", "calculator", "#E3 + 1"),
    ]
    assert plan.steps[0].why == "Search for the film [the 1994 one], and its director."
    assert plan.steps[3].why == "Add."
    assert parse_plan(FOREIGN) is None
    assert read_plan(FOREIGN, OWN_TOOLS).problems == ("unknown tool",)


@pytest.mark.parametrize(
    ("text", "steps", "problems"),
    [
        ("", 0, ["no step"]),
        ("I cannot plan.", 0, ["no step"]),
        ("#E1 = Lookup[a]", 1, []),
        ("#E1 = lookup[a]", 1, []),
        ("Plan: a #E1 = Lookup[a] Plan: b #E2 = LLM[#E1]", 2, []),
        ("Plan: a #E7 = Lookup[a]\nPlan: b #E3 = LLM[#E7]", 2, []),
        ("Plan: a #E1 = Search[a]", 1, ["unknown tool"]),
        ("Plan: a #E1 = Lookup[#E1]", 1, ["evidence used before it is defined"]),
        ("Plan: a #E1 = Lookup[#E2]\nPlan: b #E2 = Lookup[#E1]", 2, ["evidence used before it is defined"]),
        ("Plan: a #E1 = Lookup[a]\nPlan: b #E1 = Lookup[#E1]", 2, ["evidence defined twice"]),
        ("Plan: a #E1 = Lookup[]", 1, ["empty input"]),
        ("Plan: a #E1 = Lookup[a\nPlan: b #E2 = Lookup[b]", 1, ["unclosed input"]),
        ("Plan: a #E1 = Lookup[a [b]\nPlan: b #E2 = Lookup[b]", 2, []),
        ("Plan: a #E1 = Lookup[a]\nPlan: b #E2 = Look", 1, ["plan without a tool call", "no tool call"]),
        ("Plan: a #E1 = Lookup[a]\nPlan: conclude.", 1, ["plan without a tool call"]),
        ("Plan: think.\nPlan: a #E1 = Lookup[a]", 1, ["plan without a tool call"]),
        ("Plan: a #E1 = the answer\nPlan: b #E2 = Lookup[a]", 1, ["plan without a tool call", "no tool call"]),
        ("Plan: a #E1 = Lookup[" + "a" * 2_001 + "]", 1, ["input too long"]),
        ("Plan: a #E1 = Lookup[#E" + "9" * 5_000 + "]", 1, ["input too long", "evidence used before it is defined"]),
        ("\n".join(f"Plan: a #E{i} = Lookup[a]" for i in range(1, MAX_STEPS + 2)), MAX_STEPS, ["too many steps"]),
        ("Plan: a #E1 = Lookup[a]" + " " * MAX_TEXT, 1, ["too long"]),
    ],
)
def test_what_is_wrong_with_a_plan(text: str, steps: int, problems: list[str]) -> None:
    plan = read_plan(text)
    assert (len(plan.steps), list(plan.problems)) == (steps, problems)
    assert plan.well_formed == (not problems)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Plan: a #E2 = Lookup[a]",
        "Plan: a #E1 = Lookup[#E1]",
        "Plan: a #E1 = Google[a]",
        "Plan: a #E1 = Lookup[a [b]]",
        "Plan: a\n#E1 = Lookup[a]",
        "Plan: a #E1 = Lookup[a]\nDone.",
        "Plan: a #E" + "1" * 5_000 + " = Lookup[a]",
        "Plan: a #E1 = Lookup[#E" + "1" * 5_000 + "]",
    ],
)
def test_what_is_not_in_the_exact_form(text: str) -> None:
    assert parse_plan(text) is None


@given(TEXTS)
@example("#E1 = LLM[" * 2_000)
@example("[" * MAX_TEXT)
@example("#E1 = LLM[" + "[" * MAX_TEXT)
@example("#E1" + " " * MAX_TEXT)
@example("Plan" * (MAX_TEXT // 4))
def test_no_text_raises(text: str) -> None:
    plan = read_plan(text)
    assert len(plan.steps) <= MAX_STEPS
    assert plan.well_formed == (not plan.problems)
    assert plan.steps or "no step" in plan.problems
    for position, step in enumerate(plan.steps):
        assert all(0 <= needed < position for needed in step.needs.values())
        assert (step.input + step.why).encode()
    parse_plan(text)


WORDS = st.text("abc XYZ:.,=()*", min_size=1).map(lambda text: f"x{text}x")
STEPS = st.lists(
    st.tuples(WORDS, st.sampled_from(["Lookup", "Calculator", "LLM"]), WORDS), min_size=1, max_size=MAX_STEPS
)


@given(STEPS)
def test_what_has_the_exact_form_is_read_alike(rows: list[tuple[str, str, str]]) -> None:
    lines = [
        f"Plan: {why} #E{n} = {tool}[{text}{f' #E{n - 1}' if n > 1 else ''}]"
        for n, (why, tool, text) in enumerate(rows, 1)
    ]
    strict = parse_plan("\n".join(lines))
    assert strict is not None
    for layout in (lines, [line.replace(" #E", "\n#E", 1) for line in lines]):
        plan = read_plan("\n".join(layout), OWN_TOOLS)
        assert plan.problems == ()
        assert [(step.tool, step.input) for step in plan.steps] == strict
