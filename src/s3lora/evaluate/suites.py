"""The suites by name, on data that is built in, in a file, or a public data set; whole, or cut into two parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from s3lora.errors import UsageError, printable
from s3lora.evaluate.chat import ChatModel, Decoding, digest_of
from s3lora.evaluate.judges.refusing import refusal_judge
from s3lora.evaluate.likelihood import PlanLossSuite
from s3lora.evaluate.planning.loader import read_tasks
from s3lora.evaluate.planning.questions import built_in as built_in_tasks
from s3lora.evaluate.planning.suite import DECODING as PLANNING
from s3lora.evaluate.planning.suite import PlanningSuite
from s3lora.evaluate.planning.tasks import TaskSet
from s3lora.evaluate.prompts import built_in as built_in_prompts
from s3lora.evaluate.prompts import read_prompts
from s3lora.evaluate.references import built_in_references, read_references
from s3lora.evaluate.rows import draw
from s3lora.evaluate.safety import DECODING as SAFETY
from s3lora.evaluate.safety import SafetySuite
from s3lora.evaluate.suite import Suite
from s3lora.evaluate.summarisation import DECODING as SUMMARISATION
from s3lora.evaluate.summarisation import SummarisationSuite

#: Built-in planning tasks, before any limit.
TASKS = 50


@dataclass(frozen=True, slots=True)
class SuitePart:
    """Which items of every set a suite gets: `take` is given a text an item, and returns the positions of those.

    `of` is the number of parts that the data is cut into, so that a set which is generated can be large enough.
    """

    take: Callable[[Sequence[str]], Sequence[int]]
    of: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSettings:
    """What to measure, and on what.

    Parameters:
        names: some of `SUITES`.
        harmful: a file or data set of harmful prompts, as `read_prompts` takes it; None for the built-in ones.
        benign: the same of harmless prompts.
        refusals: a judge of refusals by name, or a list of phrases in a file; None for the rules over openings.
        tasks: planning tasks, as `read_tasks` takes them; None for the built-in ones.
        documents: a folder that the tasks' lookups search.
        references: prompts with references, as `read_references` takes them; None for the built-in ones.
        limit: items of each set.
        seed: of the draw of those items, and of the split into halves.
        tokens: the most tokens of an answer, by the name of the suite.
        judge: a model that scores answers to harmful prompts.
        judge_name: its name in the results.
        losses: whether the suite planning computes the loss of the reference plans besides.
        keep: keep these answers' text.
    """

    names: tuple[str, ...] = ("safety", "planning", "summarisation")
    harmful: str | None = None
    benign: str | None = None
    refusals: str | None = None
    tasks: str | None = None
    documents: str | None = None
    references: str | None = None
    limit: int | None = None
    seed: int = 0
    tokens: Mapping[str, int] = field(default_factory=dict)
    judge: ChatModel | None = None
    judge_name: str = ""
    losses: bool = True
    keep: bool = False

    def __post_init__(self) -> None:
        """Refuse names that no suite has."""
        for name in (*self.names, *self.tokens):
            if name not in SUITES:
                raise UsageError(f"no suite {printable(name, 40)}", fix=f"choose from {', '.join(SUITES)}")
        if not self.names:
            raise UsageError("no suite to run", fix=f"choose from {', '.join(SUITES)}")

    def decoding(self, name: str, default: Decoding) -> Decoding:
        """Return how the suite called `name` draws its answers: by its default, unless `tokens` bounds them."""
        limit = self.tokens.get(name)
        return default if limit is None else dataclasses.replace(default, max_new_tokens=limit)


def build_suites(settings: SuiteSettings) -> list[Suite]:
    """Return the suites; raises what the readers of files raise."""
    return _build(settings, SuitePart(lambda items: draw(len(items), settings.limit, settings.seed, "items")))


def split_suites(settings: SuiteSettings) -> tuple[list[Suite], list[Suite]]:
    """Return the suites twice, on two halves of every set that share no item: to tune on, and held out.

    What a set holds twice is taken once, lest it be in both halves.
    """

    def half(which: int) -> SuitePart:
        def positions(items: Sequence[str]) -> Sequence[int]:
            first: dict[str, int] = {}
            for i, item in enumerate(items):
                first.setdefault(item, i)
            if len(first) < 2:
                raise UsageError("a set of one item cannot be cut into two parts", fix="give more data")
            mine = sorted(first.values(), key=lambda i: digest_of(["split", settings.seed, i]))[which::2]
            return [mine[i] for i in draw(len(mine), settings.limit, settings.seed, "items")]

        return SuitePart(positions, of=2)

    return _build(settings, half(0)), _build(settings, half(1))


def _build(settings: SuiteSettings, part: SuitePart) -> list[Suite]:
    return [SUITES[name](settings, part) for name in dict.fromkeys(settings.names)]


def _safety(settings: SuiteSettings, part: SuitePart) -> Suite:
    harmful = read_prompts(settings.harmful) if settings.harmful else built_in_prompts("harmful")
    benign = read_prompts(settings.benign) if settings.benign else built_in_prompts("benign")
    return SafetySuite(
        harmful.subset(part.take([request.text for request in harmful.requests])),
        benign.subset(part.take([request.text for request in benign.requests])),
        refusal_judge(settings.refusals),
        decoding=settings.decoding("safety", SAFETY),
        judge=settings.judge,
        judge_name=settings.judge_name,
        keep=settings.keep,
    )


def _summarisation(settings: SuiteSettings, part: SuitePart) -> Suite:
    data = read_references(settings.references) if settings.references else built_in_references()
    items = [example.prompt.digest for example in data.examples]
    return SummarisationSuite(data.subset(part.take(items)), settings.decoding("summarisation", SUMMARISATION))


def _planning(settings: SuiteSettings, part: SuitePart) -> Suite:
    return PlanningSuite(_tasks(settings, part), settings.decoding("planning", PLANNING), losses=settings.losses)


def _planning_loss(settings: SuiteSettings, part: SuitePart) -> Suite:
    return PlanLossSuite(_tasks(settings, part))


def _tasks(settings: SuiteSettings, part: SuitePart) -> TaskSet:
    """Read the tasks, or generate as many as are asked for."""
    if settings.tasks is not None:
        tasks = read_tasks(settings.tasks, settings.documents)
    elif settings.documents is not None:
        raise UsageError("documents do nothing without tasks of one's own", fix="give --tasks besides")
    else:
        tasks = built_in_tasks(part.of * max(TASKS, settings.limit or 0))
    return tasks.subset(part.take([task.prompt.digest for task in tasks.tasks]))


#: Every suite by the name that a user gives it: (settings, the part of the data) → the suite.
SUITES: dict[str, Callable[[SuiteSettings, SuitePart], Suite]] = {
    "safety": _safety,
    "planning": _planning,
    "summarisation": _summarisation,
    "planning-loss": _planning_loss,
}
