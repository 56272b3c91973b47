"""The data sets that are known by their columns, as their authors publish them.

A row has the shape of which it has all columns; of several, the one with the most of them, then the first. A row of no
published shape is read by the names in `TEXT_FIELDS`. The table in docs/evaluation.md is made from here by
`python docs/make_data.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3lora.evaluate.data.choice import Fields
from s3lora.evaluate.data.kinds import KINDS, KindColumn
from s3lora.evaluate.data.shape import (
    ANY,
    TEXT_FIELDS,
    DataShape,
    after,
    after_hashes,
    columns_like,
    completed,
    in_context,
    right_letter,
    solution,
    with_choices,
    with_input,
)

SHAPES: list[DataShape] = [
    DataShape("AdvBench", ("goal", "target"), ("goal",), use="`--harmful`", paper="2307.15043"),
    DataShape(
        "JailbreakBench",
        ("goal", "behavior", "category"),
        ("prompt", "goal"),
        category=("category",),
        id=("behavior", "index"),
        use="`--harmful` or `--benign`: it has a file of each; an artifact's `prompt` comes before its `goal`",
        paper="2404.01318",
    ),
    DataShape(
        "HarmBench",
        ("behavior", "behaviorid"),
        ("behavior",),
        category=("semanticcategory", "functionalcategory"),
        id=("behaviorid",),
        ask=in_context,
        use="`--harmful`; `contextstring` is put before the behaviour; for the 200 standard ones, "
        "`functionalcategory=standard`",
        paper="2402.04249",
    ),
    DataShape(
        "HarmBench test cases",
        ("test_case", "behavior_id"),
        ("test_case",),
        id=("behavior_id",),
        use="`--harmful`; JSON by behaviour",
        paper="2402.04249",
    ),
    DataShape(
        "StrongREJECT",
        ("forbidden_prompt",),
        ("forbidden_prompt",),
        category=("category",),
        use="`--harmful`; `source!=AdvBench` leaves out what is in AdvBench too",
        paper="2402.10260",
    ),
    DataShape(
        "XSTest",
        ("prompt", "type", "label"),
        ("prompt",),
        category=("type",),
        id=("id",),
        kind=KindColumn("label", "unsafe", "safe"),
        use="`--benign` takes the safe ones, `--harmful` the unsafe ones",
        paper="2308.01263",
    ),
    DataShape(
        "XSTest, first version",
        ("prompt", "type", "focus"),
        ("prompt",),
        category=("type",),
        id=("id", "id_v2", "id_v1"),
        kind=KindColumn("type", "contrast_.*", "(?!contrast_).*"),
        use="the same: the unsafe ones are those whose `type` begins with `contrast_`",
        paper="2308.01263",
    ),
    DataShape(
        "BeaverTails",
        ("prompt", "response", "is_safe"),
        ("prompt",),
        category=("category",),
        id=(),
        kind=KindColumn("is_safe", "false", ""),
        once=True,
        use="`--harmful`: prompts that got an unsafe answer, each of them once",
        paper="2307.04657",
    ),
    DataShape(
        "SORRY-Bench",
        ("question_id", "turns", "prompt_style"),
        ("turns",),
        category=("category",),
        id=("question_id",),
        use="`--harmful`; `prompt_style=base` leaves out the twenty ways in which each is put besides",
        paper="2406.14598",
    ),
    DataShape(
        "MT-Bench",
        ("question_id", "category", "turns"),
        ("turns",),
        category=("category",),
        id=("question_id",),
        use="`--benign`; the first turn is asked",
        paper="2306.05685",
    ),
    DataShape(
        "Alpaca",
        ("instruction", "output"),
        ("instruction",),
        ask=with_input,
        answers=columns_like("output"),
        answer_columns="`output`",
        use="`--references`; the `input` is put under the instruction",
    ),
    DataShape(
        "prompts with completions",
        ("prompt", "completion"),
        ("prompt",),
        answers=completed,
        answer_columns="`completion`, a text or messages",
        use="the same; the form of TRL",
    ),
    DataShape(
        "prompts with responses",
        ("prompt", "response"),
        ("prompt",),
        answers=columns_like("response"),
        answer_columns="`response`",
        use="the same",
    ),
    DataShape(
        "OR-Bench",
        ("prompt", "category"),
        ("prompt",),
        category=("category",),
        answers=columns_like("references?"),
        use="`--benign`; its toxic prompts, a file of their own, `--harmful`",
        paper="2405.20947",
    ),
    DataShape(
        "Do-Not-Answer",
        ("risk_area", "question"),
        ("question",),
        category=("risk_area",),
        id=("id",),
        use="`--harmful`",
        paper="2308.13387",
    ),
    DataShape(
        "SALAD-Bench",
        ("qid", "question"),
        ("question",),
        category=("3-category",),
        id=("qid",),
        use="`--harmful`",
        paper="2402.05044",
    ),
    DataShape(
        "SALAD-Bench, attacks",
        ("augq", "baseq"),
        ("augq",),
        category=("3-category",),
        id=("qid", "aid"),
        use="`--harmful`; `--prompt-field baseq` asks without the attack",
        paper="2402.05044",
    ),
    DataShape(
        "GSM8K",
        ("question", "answer"),
        ("question",),
        answers=after_hashes,
        answer_columns="the number after `####` in `answer`; all of it is the worked answer",
        use="`--maths`, `--references` or `--tasks`; any other questions with answers too",
        paper="2110.14168",
    ),
    DataShape(
        "MMLU",
        ("question", "choices", "answer"),
        ("question",),
        category=("subject",),
        ask=with_choices,
        answers=right_letter,
        answer_columns="`answer`, an index from 0 or a letter; the letter, or the text of that choice",
        use="`--references` or `--tasks`; the choices are put under the question",
        paper="2009.03300",
    ),
    DataShape(
        "HumanEval",
        ("task_id", "prompt", "canonical_solution"),
        ("prompt",),
        id=("task_id",),
        answers=solution,
        answer_columns="`canonical_solution`",
        use="`--code`, or `--references`; no code is run",
        paper="2107.03374",
    ),
    DataShape(
        "DialogSum, SAMSum",
        ("dialogue",),
        ("dialogue",),
        unless=("prompt",),
        id=("id", "fname"),
        ask=after("Summarise this dialogue in one or two sentences."),
        answers=columns_like(r"summary\d*"),
        answer_columns="`summary`, `summary1`, …",
        use="`--references`; the request is put before the dialogue",
        paper="2105.06762",
    ),
    DataShape(
        "XSum",
        ("document", "summary"),
        ("document",),
        unless=("prompt",),
        id=("id",),
        ask=after("Summarise this text in one sentence."),
        answers=columns_like(r"summary\d*"),
        answer_columns="`summary`",
        use="`--references`; the same",
        paper="1808.08745",
    ),
    DataShape(
        "CNN/DailyMail",
        ("article", "highlights"),
        ("article",),
        unless=("prompt",),
        id=("id",),
        ask=after("Summarise this article in three or four sentences."),
        answers=columns_like(r"highlights\d*"),
        answer_columns="`highlights`",
        use="`--references`; the same",
        paper="1704.04368",
    ),
    DataShape(
        "prompts with references",
        ("prompt", "reference"),
        ("prompt",),
        answers=columns_like("references?"),
        answer_columns="`reference` or `references`",
        use="`--references`; your own",
    ),
]


def known_columns() -> frozenset[str]:
    """Return all columns that may hold a prompt, in lower case."""
    return frozenset((*TEXT_FIELDS, *(name for shape in SHAPES for name in shape.prompt)))


def shape_of(fields: Fields) -> DataShape:
    """Return the shape of a row.

    >>> shape_of({"category": "", "source": "", "forbidden_prompt": ""}).title
    'StrongREJECT'
    """
    having = [
        shape
        for shape in SHAPES
        if all(column in fields for column in shape.columns) and not any(column in fields for column in shape.unless)
    ]
    return max(having, key=lambda shape: len(shape.columns), default=ANY)


def kind_column(row: Mapping[str, Any]) -> KindColumn | None:
    """Return the column of a row that tells harmful prompts from harmless ones, None where there is none."""
    own = shape_of(row).kind
    return own if own is not None else next((kind for kind in KINDS if kind.column in row), None)
