"""Plans: read from whatever a model wrote, with the reasons why one is not well formed.

The form is that of ReWOO planners, `Plan: <why> #E1 = Tool[input]`, on one line or several; inputs may hold brackets
and name earlier results (`#E1`). Well formed means: there is a step, every `Plan:` leads to a tool call, every tool is
known, every input is closed and bounded, and evidence is defined once, before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Worker = Literal["lookup", "calculator", "llm"]
PlanProblem = Literal[
    "no step",
    "plan without a tool call",
    "no tool call",
    "unknown tool",
    "unclosed input",
    "empty input",
    "input too long",
    "too many steps",
    "too long",
    "evidence defined twice",
    "evidence used before it is defined",
]

#: The tools of the built-in tasks.
OWN_TOOLS: dict[str, Worker] = {"lookup": "lookup", "calculator": "calculator", "llm": "llm"}
#: Names of tools in ReWOO's worker registry (github.com/billxbf/ReWOO, nodes/Worker.py), by what stands for them here.
REWOO_TOOLS: dict[str, Worker] = {
    **OWN_TOOLS,
    "google": "lookup",
    "wikipedia": "lookup",
    "searchsotu": "lookup",
    "wolframalpha": "calculator",
}

#: Characters of a text and of an input, and steps, that are read.
MAX_TEXT = 20_000
MAX_INPUT = 2_000
MAX_STEPS = 20

CALL = re.compile(r"#E([0-9]{1,3})[ \t*`]*[=:][ \t*`]*([A-Za-z][A-Za-z0-9_]{0,39})[ \t]*\[")
ASSIGNMENT = re.compile(r"#E[0-9]*[ \t]*=")
#: Where a step begins; `Step 1:` and `**Plan:**` are meant as well.
MARK = re.compile(r"^[^\w\n]{0,8}(?:[0-9]{1,3}[.)][ \t]*)?[*_]{0,2}(?:Plan|Step)\b[^:\n]{0,12}:", re.M | re.I)
REFERENCE = re.compile(r"#E([0-9]+)")


@dataclass(frozen=True, slots=True)
class Step:
    """One tool call: `worker` is None where the tool is unknown.

    `needs` maps what the input names, `"1"` for `#E1`, to the position of the earlier step that defines it.
    """

    label: str
    tool: str
    worker: Worker | None
    input: str
    why: str = ""
    needs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """The steps that could be read, in order, and each reason once why the plan is not well formed."""

    steps: tuple[Step, ...]
    problems: tuple[PlanProblem, ...]

    @property
    def well_formed(self) -> bool:
        """Tell whether nothing is wrong with the plan's form; whether it answers the question is another matter."""
        return not self.problems


def read_plan(text: str, tools: Mapping[str, Worker] = REWOO_TOOLS) -> ToolPlan:
    """Read a plan; whatever the text, this raises nothing. `tools` has lower-case names.

    Prose around the steps is passed over. A step with a problem is kept where its call can be read at all.
    """
    problems: dict[PlanProblem, None] = {"too long": None} if len(text) > MAX_TEXT else {}
    # Half characters, which a server may send, could not be written or sent again.
    text = "\n".join(text[:MAX_TEXT].splitlines()).encode("utf-8", "replace").decode()
    calls = list(CALL.finditer(text))
    steps: list[Step] = []
    positions: dict[str, int] = {}
    before = 0
    for call, stop in zip(calls, [*(call.start() for call in calls), len(text)][1:], strict=True):
        if len(steps) == MAX_STEPS:
            problems["too many steps"] = None
            break
        why = _between(text[before : call.start()], problems, marks=1)
        end = _closing(text, call.end(), stop)
        before = call.end() if end is None else end + 1
        if end is None:
            problems["unclosed input"] = None
            continue
        step = _step(call, text[call.end() : end], why, tools, positions, problems)
        positions[step.label] = len(steps)
        steps.append(step)
    else:
        _between(text[before:], problems, marks=0)
    if not steps:
        problems["no step"] = None
    return ToolPlan(tuple(steps), tuple(problems))


def _step(
    call: re.Match[str],
    text: str,
    why: str,
    tools: Mapping[str, Worker],
    positions: Mapping[str, int],
    problems: dict[PlanProblem, None],
) -> Step:
    label, worker = label_of(call[1]), tools.get(call[2].lower())
    text = text.strip()
    named = dict.fromkeys(map(label_of, REFERENCE.findall(text[:MAX_INPUT])))
    found: dict[PlanProblem, bool] = {
        "unknown tool": worker is None,
        "empty input": not text,
        "input too long": len(text) > MAX_INPUT,
        "evidence defined twice": label in positions,
        "evidence used before it is defined": not all(name in positions for name in named),
    }
    problems.update((problem, None) for problem, there in found.items() if there)
    needs = {name: positions[name] for name in named if name in positions}
    return Step(label, call[2], worker, text[:MAX_INPUT], why, needs)


def _between(text: str, problems: dict[PlanProblem, None], *, marks: int) -> str:
    """Look at the text before a step, which may have one mark, or after the last; return what the step is for."""
    found = list(MARK.finditer(text))
    if len(found) > marks:
        problems["plan without a tool call"] = None
    if ASSIGNMENT.search(text):
        problems["no tool call"] = None
    why = text[found[-1].end() :] if found else text.rpartition("Plan:")[2]
    return " ".join(why.split()).strip("*` ")[:MAX_INPUT]


def _closing(text: str, start: int, stop: int) -> int | None:
    """Return where the bracket opened before `start` is closed, or else the last bracket on its line."""
    depth = 1
    for i in range(start, stop):
        depth += (text[i] == "[") - (text[i] == "]")
        if not depth:
            return i
    line = text.find("\n", start, stop)
    last = text.rfind("]", start, stop if line < 0 else line)
    return None if last < 0 else last


def label_of(number: str) -> str:
    """Return the number of evidence as it is compared: a model may write thousands of digits, which int() refuses."""
    return number.lstrip("0") or "0"
