"""From files, or what is built in, to the three parts of a repair's data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from s3lora.arguments import checked
from s3lora.errors import UsageError, printable
from s3lora.evaluate.data.choice import EVERY_ROW, RowChoice, choices
from s3lora.evaluate.data.draws import clusters, draw, emptiest, parts
from s3lora.evaluate.data.kinds import PromptKind
from s3lora.evaluate.prompts import PromptSet, built_in, read_prompts
from s3lora.repair.data import RepairData, RepairPart, TaskPrompts
from s3lora.repair.task_data import GENERATED, MIXED, built_in_task, read_task
from s3lora.statistics import FEWEST
from s3lora.wording import option as option_of
from s3lora.wording import worded

#: Prompts of each kind to learn from, to tune on and to test on.
LEARN, TUNE, TEST = 32, 50, 100
#: The inputs that are read as rows, as an option names one before a colon.
REPAIR_INPUTS = ("harmful", "harmless", "task", "fresh", "second-task")
OWN_TASK = "the task prompts are built in: prompts of what the adapter was trained for, as --task, make a better repair"

Prompts = TypeVar("Prompts", PromptSet, TaskPrompts)


@checked
def repair_data(
    *,
    harmful: str | Path | None = None,
    harmless: str | Path | None = None,
    task: str | Path | None = None,
    fresh: str | Path | None = None,
    second_task: str | Path | None = None,
    where: Sequence[str] = (),
    prompt_fields: Sequence[str] = (),
    learn: int = LEARN,
    tune: int = TUNE,
    test: int = TEST,
    seed: int = 0,
) -> RepairData:
    """Return what a repair learns from, tunes on and is tested on.

    Parameters:
        harmful: a file or data set of harmful prompts, as `s3lora eval` takes it; None for the built-in ones.
        harmless: the same of harmless prompts, best of some that sound harmful.
        task: prompts of what the adapter was trained for, with answers where there are some: prompts with references,
            completions or responses, chats, planning tasks, or prompts alone; `planning` or `maths` for built-in ones
            of one kind, None for a mixture of all.
        fresh: harmful prompts of another source, which nothing is learned from.
        second_task: prompts of another task, in the forms of `task`; None for no such question.
        where: which rows of those files are meant, as `label=unsafe`; `harmless:label=safe` is for one of them alone.
        prompt_fields: the column that holds the prompt, for all files or, as `harmful:NAME`, for one of them.
        learn: prompts of each kind to learn from; of a smaller file each part gets its share, and a note says so.
        tune: prompts of each kind to choose settings and strength on.
        test: prompts of each kind for the verdict; the most of `fresh` and `second_task` too.
        seed: of the draw. Parts do not depend on the order of a file.

    No prompt and no identifier is in two parts of a kind. Prompts that `s3lora eval` asks where no file is given are
    in no part but the test part; of the built-in summaries that is not true.

    Raises UsageError for too few prompts, and for a prompt that is among the harmful and the harmless ones;
    DataFileError for what cannot be read.

    >>> data = repair_data(learn=32, tune=50, test=100)
    >>> len(data.learning.harmful), len(data.tuning.harmful), len(data.test.harmful)
    (32, 50, 100)
    """
    sizes = (learn, tune, test)
    if min(sizes) < 1:
        raise UsageError(f"parts of {learn}, {tune} and {test} prompts leave one empty", fix="give at least 1 for each")
    sources = dict(zip(REPAIR_INPUTS, (harmful, harmless, task, fresh, second_task), strict=True))
    given = [name for name, source in sources.items() if source is not None and not _is_built_in(name, source)]
    chosen = choices(where, prompt_fields, given, REPAIR_INPUTS)
    bad = _read("harmful", harmful, chosen.get("harmful", EVERY_ROW))
    good = _read("benign", harmless, chosen.get("harmless", EVERY_ROW))
    _check_apart(bad, good)
    bads, bad_notes = _checked(_cut_kind("harmful", bad, sizes, seed), sizes, "harmful")
    goods, good_notes = _checked(_cut_kind("benign", good, sizes, seed), sizes, "harmless")
    texts = {_plain(request.text) for request in (*bad.requests, *good.requests)}
    own, task_notes = _task(task, chosen.get("task", EVERY_ROW), texts, sizes, seed)
    notes = [*bad_notes, *good_notes, *task_notes]
    other = second = None
    if fresh is not None:
        seen = {_plain(request.text) for part in (*bads, *goods) for request in part.requests}
        other, left = _fresh(fresh, chosen["fresh"], seen, test, seed)
        notes += left
    if second_task is not None:
        asked = {prompt.digest for part in own for prompt in part.prompts}
        second, left = _second(second_task, chosen.get("second-task", EVERY_ROW), asked, test, seed)
        notes += left
    learning, tuning, testing = (RepairPart(*three) for three in zip(bads, goods, own, strict=True))
    return RepairData(learning, tuning, testing, other, second, tuple(notes))


def _is_built_in(name: str, source: str | Path) -> bool:
    return name.endswith("task") and str(source) in (*GENERATED, MIXED) and not Path(source).exists()


def _plain(text: str) -> str:
    """Return a text as it is compared with prompts of another kind or source."""
    return " ".join(text.casefold().split())


def _read(kind: PromptKind, source: str | Path | None, choice: RowChoice) -> PromptSet:
    if source is not None:
        return read_prompts(source, choice, kind).ordered()
    asked = built_in(kind)
    return replace(asked, requests=(*asked.requests, *built_in(kind, "repair").requests))


def _check_apart(harmful: PromptSet, harmless: PromptSet) -> None:
    texts = {_plain(request.text) for request in harmful.requests}
    both = [request.text for request in harmless.requests if _plain(request.text) in texts]
    if both:
        raise UsageError(
            f"{len(both)} prompts of {printable(harmless.name, 80)} are both harmless and, in "
            f"{printable(harmful.name, 80)}, harmful; the first is: {printable(both[0], 80)}",
            fix=worded("take them out of one of the two, or choose rows with {where}"),
        )


def _cut(data: Prompts, sizes: Sequence[int], seed: int) -> list[Prompts]:
    """Cut a set that is in the order of its digests."""
    items = data.items
    drawn = [
        [part[i] for i in draw([items[i] for i in part], n, seed, "prompts")] if n else []
        for part, n in zip(parts(items, sizes, seed), sizes, strict=True)
    ]
    return [data.subset(part) for part in drawn]


def _cut_kind(kind: PromptKind, data: PromptSet, sizes: Sequence[int], seed: int) -> list[PromptSet]:
    """Cut prompts of one kind; of the built-in ones, those that `eval` asks are in the test part."""
    if not data.built_in:
        return _cut(data, sizes, seed)
    asked, others = built_in(kind).ordered().take(sizes[2], seed), built_in(kind, "repair").ordered()
    learning, tuning, more = _cut(others, (*sizes[:2], sizes[2] - len(asked)), seed)
    return [learning, tuning, replace(asked, requests=(*asked.requests, *more.requests)).ordered()]


def _checked(cut: Sequence[Prompts], sizes: Sequence[int], kind: str) -> tuple[Sequence[Prompts], list[str]]:
    """Return the parts, and what there is to say of their sizes; raise UsageError for too few to tell anything."""
    independent = [len(clusters(part.items)) for part in cut]
    found, name = [len(part) for part in cut], cut[0].name
    learn, tune, test = found
    of = f" of {sum(independent)} identifiers" if sum(independent) < sum(found) else ""
    made = f"{sum(found)} different {kind} prompts{of} make {learn} to learn from, {tune} to tune on, {test} to test on"
    if any(n < least for n, least in zip(independent, _least(sizes), strict=True)):
        raise UsageError(
            f"{printable(name, 200)}: {made}, too few to tell anything",
            fix=worded(
                "give at least {n} for {option}, or none to use those that are built in",
                n=_needed(sizes),
                option=option_of(kind),
            ),
        )
    fewer = any(n < size for n, size in zip(found, sizes, strict=True))
    return cut, [f"{name}: {made}, instead of {sizes[0]}, {sizes[1]} and {sizes[2]}"] * fewer


def _least(sizes: Iterable[int]) -> list[int]:
    return [min(FEWEST, size) for size in sizes]


def _needed(sizes: Sequence[int]) -> int:
    """Return how many prompts fill each part enough, where no two belong together."""
    found: list[list[int]] = [[] for _ in sizes]
    while any(len(part) < least for part, least in zip(found, _least(sizes), strict=True)):
        emptiest(found, sizes).append(0)
    return sum(map(len, found))


def _task(
    source: str | Path | None, choice: RowChoice, taken: set[str], sizes: Sequence[int], seed: int
) -> tuple[Sequence[TaskPrompts], list[str]]:
    if source is None or _is_built_in("task", source):
        return built_in_task(str(source or MIXED), sizes, seed), [OWN_TASK] * (source is None)
    data = read_task(source, choice).ordered()
    left = [i for i, prompt in enumerate(data.prompts) if _plain(prompt.messages[-1].content) not in taken]
    notes = _left_out(data.name, len(data) - len(left), "are among the harmful or harmless ones")
    cut, more = _checked(_cut(data.subset(left), sizes, seed), sizes, "task")
    return cut, [*notes, *more]


def _fresh(source: str | Path, choice: RowChoice, seen: set[str], most: int, seed: int) -> tuple[PromptSet, list[str]]:
    data = read_prompts(source, choice, "harmful").ordered()
    left = [i for i, request in enumerate(data.requests) if _plain(request.text) not in seen]
    notes = _left_out(data.name, len(data) - len(left), "are in a part of the repair's data")
    return _some(data, left, "fresh").take(most, seed), notes


def _second(
    source: str | Path, choice: RowChoice, asked: set[str], most: int, seed: int
) -> tuple[TaskPrompts, list[str]]:
    if _is_built_in("second-task", source):
        data = built_in_task(str(source), (0, 0, most), seed)[2]
    else:
        data = read_task(source, choice).ordered()
    left = [i for i, prompt in enumerate(data.prompts) if prompt.digest not in asked]
    notes = _left_out(data.name, len(data) - len(left), "are in a part of the repair's task")
    data = _some(data, left, "second-task")
    return data.subset(draw(data.items, most, seed, "prompts")), notes


def _some(data: Prompts, left: Sequence[int], option: str) -> Prompts:
    if not left:
        problem = worded("{option} holds no prompt that the repair's own data do not hold", option=option_of(option))
        raise UsageError(problem, file=data.name, fix="give prompts of another source")
    return data.subset(left)


def _left_out(name: str, n: int, why: str) -> list[str]:
    return [f"{name}: {n} prompts {why} and are left out"] * bool(n)
