"""Prompts of the adapter's task, with answers where there are some: from a file, or from the built-in suites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.data.choice import EVERY_ROW, Fields, RowChoice
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.draws import DataItem, parts
from s3lora.evaluate.data.items import FieldError
from s3lora.evaluate.data.rows import DataSource, read_item, read_rows
from s3lora.evaluate.maths.problems import built_in_problems
from s3lora.evaluate.planning.loader import NAMES, read_tasks
from s3lora.evaluate.planning.plan import read_plan
from s3lora.evaluate.planning.questions import built_in as built_in_questions
from s3lora.evaluate.planning.tasks import TaskSet
from s3lora.evaluate.prompts import read_prompts
from s3lora.evaluate.references import MAX_BYTES, SPLITS, ReferenceSet, built_in_references, read_references
from s3lora.evaluate.suites import TASKS
from s3lora.repair.data import TaskPrompts

#: Columns that, beside a question, only planning tasks have.
PLANNED = ("plan", "context", "aliases", "supporting_facts")

#: A prompt, the answer to it, and its identifier.
_Pair = tuple[Prompt, str, str]


def read_task(source: str | Path, choice: RowChoice = EVERY_ROW) -> TaskPrompts:
    """Read the prompts of a task from a file or data set, and the answers to them where the first row has one.

    Parameters:
        source: planning tasks, prompts with references, completions or responses, chats that end with an answer, or
            prompts alone, in any form that `read_tasks`, `read_references` or `read_prompts` reads. Plans and worked
            answers are taken before short ones; planning tasks without plans have no references.
        choice: which rows are meant, and which column holds the prompt.

    Raises DataFileError, which names the file and the line, where something is absent, too large or malformed.
    """
    if str(source).lower() in NAMES:
        return _planned(read_tasks(source, None, choice))
    rows = read_rows(DataSource(source, choice, None, MAX_BYTES, SPLITS))
    line, first = next(iter(rows), ("", ""))
    if isinstance(first, Mapping) and _is_planned(first, choice):
        return _planned(read_tasks(source, None, choice))
    if first and _is_answered(line, first, choice, rows.where):
        return _answered(read_references(source, choice))
    prompts = read_prompts(source, choice)
    ids = tuple(request.id for request in prompts.requests)
    return TaskPrompts(prompts.name, tuple(prompts.prompts), ids=ids, notes=prompts.notes)


def _is_planned(fields: Fields, choice: RowChoice) -> bool:
    """Tell a planning task: by what only those have, TriviaQA's answers, or ReWOO's plans as the output."""
    if choice.prompt_field is None and "question" not in fields:
        output = fields.get("output")
        return "instruction" in fields and isinstance(output, str) and bool(read_plan(output).steps)
    return any(fields.get(name) for name in PLANNED) or isinstance(fields.get("answer"), Mapping)


def _is_answered(line: str, row: object, choice: RowChoice, where: object) -> bool:
    try:
        item = read_item(line, row, choice)
        found = item.shape.answers(item.fields) if item.shape is not None and item.shape.answers else None
    except FieldError as error:
        raise DataFileError(f"{line} has {error}", file=where, fix=error.fix) from None
    return bool(item.asked.answer) or (found is not None and bool(found.references))


def _planned(tasks: TaskSet) -> TaskPrompts:
    plans = [task.plan for task in tasks.tasks if task.plan]
    notes = tasks.notes
    if plans and len(plans) < len(tasks):
        notes += (f"{tasks.name}: {len(plans)} of {len(tasks)} tasks have a plan, so that none of them is used",)
        plans = []
    ids = tuple(task.id for task in tasks.tasks)
    return TaskPrompts(tasks.name, tuple(task.prompt for task in tasks.tasks), tuple(plans), ids, notes=notes)


def _answered(data: ReferenceSet) -> TaskPrompts:
    return _of(data.name, [(e.prompt, e.worked or e.references[0], e.id) for e in data.examples], notes=data.notes)


def _of(name: str, pairs: Sequence[_Pair], *, built_in: bool = False, notes: tuple[str, ...] = ()) -> TaskPrompts:
    prompts, references, ids = zip(*pairs, strict=True) if pairs else ((), (), ())
    return TaskPrompts(name, prompts, references, ids, built_in, notes)


def _plans(count: int) -> list[_Pair]:
    return [(task.prompt, task.plan, "") for task in built_in_questions(count).tasks]


def _workings(count: int) -> list[_Pair]:
    return [(problem.prompt, problem.worked, "") for problem in built_in_problems(count).problems]


#: Built-in tasks that are generated, so many as are asked for.
GENERATED: dict[str, Callable[[int], list[_Pair]]] = {"planning": _plans, "maths": _workings}
#: Those two and summaries.
MIXED = "mixed"


def built_in_task(name: str, sizes: Sequence[int], seed: int) -> list[TaskPrompts]:
    """Return the three parts of a built-in task: `planning`, `maths`, or `mixed`.

    `mixed` has as many plans as word problems in each part, and that part's share of the 24 summaries, a third of it at
    most. Plans and word problems that `eval` asks by default are in the test part alone.
    """
    found: list[list[_Pair]] = [[], [], []]
    shares = [list(sizes) if one == name else [0, 0, 0] for one in GENERATED]
    if name == MIXED:
        found = [part[: size // 3] for part, size in zip(_summaries(sizes, seed), sizes, strict=True)]
        left = [size - len(part) for size, part in zip(sizes, found, strict=True)]
        shares = [[(n + 1) // 2 for n in left], [n // 2 for n in left]]
    for make, wanted in zip(GENERATED.values(), shares, strict=True):
        found = [[*old, *new] for old, new in zip(found, _generated(make, wanted, seed), strict=True)]
    title = f"built-in {name} task"
    return [_of(title, pairs, built_in=True).ordered() for pairs in found]


def _summaries(sizes: Sequence[int], seed: int) -> list[list[_Pair]]:
    pairs = [(example.prompt, example.references[0], example.id) for example in built_in_references().examples]
    cut = parts([DataItem(prompt.digest, own) for prompt, _, own in pairs], sizes, seed)
    return [[pairs[i] for i in part] for part in cut]


def _generated(make: Callable[[int], list[_Pair]], sizes: Sequence[int], seed: int) -> list[list[_Pair]]:
    """Generate three parts; the first items of a task are those that `eval` asks, and only the test part has them."""
    if not any(sizes):
        return [[], [], []]
    kept = max(TASKS, sizes[2])
    pairs = make(kept + sizes[0] + sizes[1])
    cut = parts([DataItem(prompt.digest) for prompt, _, _ in pairs[kept:]], sizes[:2], seed)
    return [*([pairs[kept + i] for i in part] for part in cut), pairs[: sizes[2]]]
