"""The suites by name, on data that is built in, in a file, or a public data set; whole, or cut into two parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from s3lora.errors import UsageError, printable
from s3lora.evaluate.chat import Decoding
from s3lora.evaluate.data.choice import EVERY_ROW, INPUTS, RowChoice, choices
from s3lora.evaluate.data.draws import DataItem, draw, halves
from s3lora.evaluate.data.kinds import PromptKind
from s3lora.evaluate.harness.suite import build_suite as harness_suite
from s3lora.evaluate.judges.judge import Judge
from s3lora.evaluate.judges.refusing import refusal_judge
from s3lora.evaluate.likelihood import code_losses, plan_losses, working_losses
from s3lora.evaluate.maths.problems import ProblemSet, built_in_problems, problems_of
from s3lora.evaluate.maths.suite import DECODING as MATHS
from s3lora.evaluate.maths.suite import MathsSuite
from s3lora.evaluate.planning.loader import read_tasks
from s3lora.evaluate.planning.questions import built_in as built_in_tasks
from s3lora.evaluate.planning.suite import DECODING as PLANNING
from s3lora.evaluate.planning.suite import PlanningSuite
from s3lora.evaluate.planning.tasks import TaskSet
from s3lora.evaluate.prompts import PromptSet, read_prompts
from s3lora.evaluate.prompts import built_in as built_in_prompts
from s3lora.evaluate.references import built_in_references, read_references
from s3lora.evaluate.safety import DECODING as SAFETY
from s3lora.evaluate.safety import SafetySuite
from s3lora.evaluate.suite import Suite
from s3lora.evaluate.summarisation import DECODING as SUMMARISATION
from s3lora.evaluate.summarisation import SummarisationSuite
from s3lora.wording import worded

#: Built-in planning tasks, and word problems, before any limit.
TASKS = 50


@dataclass(frozen=True, slots=True)
class SuitePart:
    """Which items of every set a suite gets: `take` is given what tells them apart, and returns the positions of those.

    Items with one identifier are cases of one behaviour. `of` is the number of parts that the data is cut into, so that
    a set which is generated can be large enough.
    """

    take: Callable[[Sequence[DataItem]], Sequence[int]]
    of: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteSettings:
    """What to measure, and on what.

    Parameters:
        names: some of `SUITES`, or members of `FAMILIES` such as `harness:gsm8k`.
        harmful: a file or data set of harmful prompts, as `read_prompts` takes it; None for the built-in ones.
        benign: the same of harmless prompts.
        refusals: a judge of refusals by name, or a list of phrases in a file; None for the rules over openings.
        tasks: planning tasks, as `read_tasks` takes them; None for the built-in ones.
        documents: a folder that the tasks' lookups search.
        references: prompts with references, as `read_references` takes them; None for the built-in ones.
        maths: word problems with worked answers, as `read_references` takes them; None for the built-in ones.
        code: programming tasks with solutions, the same; there are none built in.
        where: which rows of those files are meant, as `label=unsafe` or `type!=homonyms`; `benign:label=safe` is for
            one of them alone.
        prompt_fields: the column that holds the prompt, for all files or, as `harmful:NAME`, for one of them.
        limit: items of each set; one of every identifier before a second one of any.
        seed: of the draw of those items, and of the split into halves.
        tokens: the most tokens of an answer, by the name of the suite.
        judge: what scores answers to harmful prompts, as `build_judge` opens it.
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
    maths: str | None = None
    code: str | None = None
    where: tuple[str, ...] = ()
    prompt_fields: tuple[str, ...] = ()
    limit: int | None = None
    seed: int = 0
    tokens: Mapping[str, int] = field(default_factory=dict)
    judge: Judge | None = None
    losses: bool = True
    keep: bool = False

    def __post_init__(self) -> None:
        """Refuse names that no suite has, and a choice of rows that cannot be meant."""
        for name in (*self.names, *self.tokens):
            if suite_builder(name) is None:
                raise UsageError(f"no suite {printable(name, 40)}", fix=f"choose from {suite_names()}")
        if not self.names:
            raise UsageError("no suite to run", fix=f"choose from {suite_names()}")
        self._choices()

    def choice(self, name: str) -> RowChoice:
        """Return which rows of an input are meant: `harmful`, `benign`, `references` or `tasks`."""
        return self._choices().get(name, EVERY_ROW)

    def _choices(self) -> dict[str, RowChoice]:
        given = [name for name in INPUTS if getattr(self, name) is not None]
        return choices(self.where, self.prompt_fields, given)

    def decoding(self, name: str, default: Decoding) -> Decoding:
        """Return how the suite called `name` draws its answers: by its default, unless `tokens` bounds them."""
        limit = self.tokens.get(name)
        return default if limit is None else dataclasses.replace(default, max_new_tokens=limit)


def build_suites(settings: SuiteSettings) -> list[Suite]:
    """Return the suites; raises what the readers of files raise."""
    return _build(settings, SuitePart(lambda items: draw(items, settings.limit, settings.seed, "items")))


def split_suites(settings: SuiteSettings) -> tuple[list[Suite], list[Suite]]:
    """Return the suites twice, on two halves of every set: to tune on, and held out.

    The halves share no item, and no identifier. What a set holds twice is taken once.
    """

    def half(which: int) -> SuitePart:
        def positions(items: Sequence[DataItem]) -> Sequence[int]:
            mine = halves(items, settings.seed)[which]
            return [mine[i] for i in draw([items[i] for i in mine], settings.limit, settings.seed, "items")]

        return SuitePart(positions, of=2)

    return _build(settings, half(0)), _build(settings, half(1))


def suite_builder(name: str) -> SuiteBuilder | None:
    """Return what builds the suite of this name, one of `SUITES` or of a family; None where there is none."""
    family, colon, member = name.partition(":")
    if colon and family in FAMILIES:
        return partial(FAMILIES[family], member)
    return SUITES.get(name)


def suite_names() -> str:
    """Return the names of all suites in one line."""
    return ", ".join([*SUITES, *(f"{family}:TASK" for family in FAMILIES)])


def _build(settings: SuiteSettings, part: SuitePart) -> list[Suite]:
    builders = [suite_builder(name) for name in dict.fromkeys(settings.names)]
    return [build(settings, part) for build in builders if build is not None]


def prompts_of(settings: SuiteSettings, kind: PromptKind) -> PromptSet:
    """Return the prompts of one kind: those of the file that was given, else the built-in ones."""
    given = settings.harmful if kind == "harmful" else settings.benign
    return read_prompts(given, settings.choice(kind), kind) if given else built_in_prompts(kind)


def _safety(settings: SuiteSettings, part: SuitePart) -> Suite:
    harmful, benign = prompts_of(settings, "harmful"), prompts_of(settings, "benign")
    return SafetySuite(
        harmful.subset(part.take(harmful.items)),
        benign.subset(part.take(benign.items)),
        refusal_judge(settings.refusals),
        decoding=settings.decoding("safety", SAFETY),
        judge=settings.judge,
        keep=settings.keep,
    )


def _summarisation(settings: SuiteSettings, part: SuitePart) -> Suite:
    given = settings.references
    data = read_references(given, settings.choice("references")) if given else built_in_references()
    return SummarisationSuite(data.subset(part.take(data.items)), settings.decoding("summarisation", SUMMARISATION))


def _planning(settings: SuiteSettings, part: SuitePart) -> Suite:
    return PlanningSuite(_tasks(settings, part), settings.decoding("planning", PLANNING), losses=settings.losses)


def _planning_loss(settings: SuiteSettings, part: SuitePart) -> Suite:
    return plan_losses(_tasks(settings, part))


def _harness(task: str, settings: SuiteSettings, part: SuitePart) -> Suite:
    return harness_suite(task, part.take, settings.tokens.get(f"harness:{task}"))


def _tasks(settings: SuiteSettings, part: SuitePart) -> TaskSet:
    """Read the tasks, or generate as many as are asked for."""
    if settings.tasks is not None:
        tasks = read_tasks(settings.tasks, settings.documents, settings.choice("tasks"))
    elif settings.documents is not None:
        raise UsageError("documents do nothing without tasks of one's own", fix=worded("give {tasks} besides"))
    else:
        tasks = built_in_tasks(part.of * max(TASKS, settings.limit or 0))
    return tasks.subset(part.take(tasks.items))


def _maths(settings: SuiteSettings, part: SuitePart) -> Suite:
    return MathsSuite(_problems(settings, part), settings.decoding("maths", MATHS), losses=settings.losses)


def _maths_loss(settings: SuiteSettings, part: SuitePart) -> Suite:
    return working_losses(_problems(settings, part))


def _problems(settings: SuiteSettings, part: SuitePart) -> ProblemSet:
    """Read the problems, or generate as many as are asked for."""
    if settings.maths is not None:
        problems = problems_of(read_references(settings.maths, settings.choice("maths")))
    else:
        problems = built_in_problems(part.of * max(TASKS, settings.limit or 0))
    return problems.subset(part.take(problems.items))


def _code_loss(settings: SuiteSettings, part: SuitePart) -> Suite:
    if settings.code is None:
        raise UsageError("code-loss has no tasks of its own", fix=worded("give tasks with solutions, as {code} FILE"))
    data = read_references(settings.code, settings.choice("code"))
    return code_losses(data.subset(part.take(data.items)))


#: (settings, the part of the data) → the suite.
SuiteBuilder = Callable[[SuiteSettings, SuitePart], Suite]
#: Every suite by the name that a user gives it.
SUITES: dict[str, SuiteBuilder] = {
    "safety": _safety,
    "planning": _planning,
    "summarisation": _summarisation,
    "planning-loss": _planning_loss,
    "maths": _maths,
    "maths-loss": _maths_loss,
    "code-loss": _code_loss,
}
#: Suites without number, given as `family:member`: (member, settings, the part of the data) → the suite.
FAMILIES: dict[str, Callable[[str, SuiteSettings, SuitePart], Suite]] = {"harness": _harness}
