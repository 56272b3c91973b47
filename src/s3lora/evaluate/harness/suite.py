"""The suite of one task of lm-evaluation-harness, or of a group of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from s3lora.errors import UsageError
from s3lora.evaluate.chat import ChatModel, digest_of
from s3lora.evaluate.data.draws import DataItem
from s3lora.evaluate.harness.items import BuiltTasks, build, documents, plain_digest
from s3lora.evaluate.harness.package import harness
from s3lora.evaluate.harness.tasks import load_tasks
from s3lora.evaluate.results import Data, Measure, MeasureColumn, SuiteInfo, SuiteOutcome
from s3lora.evaluate.store import AnswerStore
from s3lora.measure.scan import Progress
from s3lora.wording import worded


@dataclass(frozen=True)
class HarnessSuite:
    """Items of one task, or of a group's tasks together, answered and scored by lm-evaluation-harness."""

    built: BuiltTasks

    @property
    def name(self) -> str:
        """Return the name, as it is given to `--suite`; of a file, the name of the task in it."""
        return f"harness:{self.built.name}"

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Return the measures of all tasks; the first stands for usefulness."""
        found: dict[str, Measure] = {}
        for metrics in self.built.metrics.values():
            for metric in metrics:
                mine = metric.measure
                known = found.setdefault(mine.name, mine)
                if known.kind != mine.kind:
                    found[mine.name] = replace(known, kind="mean")
                if known.better != mine.better:
                    found[mine.name] = replace(found[mine.name], better="neither")
        first, *rest = found.values()
        return (replace(first, role="utility"), *rest)

    @property
    def info(self) -> SuiteInfo:
        """Return measures, data and scorer, for the report."""
        items = self.built.items
        digest = digest_of([item.digest for item in items])
        data = Data(self.built.name, len(items), digest, note=self._about())
        judge = f"lm-evaluation-harness {harness().version}, by the task's own rules"
        return SuiteInfo(self.name, self.measures, (data,), judge, tuple(self._notes()))

    def run(self, model: ChatModel, store: AnswerStore | None, progress: Progress | None = None) -> SuiteOutcome:
        """Let the model answer everything (what the store has is not asked again) and score it."""
        from s3lora.evaluate.harness.running import scores
        from s3lora.evaluate.local import LocalModel

        if not isinstance(model, LocalModel):
            raise UsageError(
                f"{self.name} cannot be measured: lm-evaluation-harness is given the model in this process",
                fix=worded("give {base} instead of {endpoint}"),
            )
        found = scores(model, self.built, store, progress)
        items = self.built.items
        long = sum("too_long" in one for one in found)
        if long == len(items):
            raise UsageError(
                f"{self.name}: no item fits into the context of {model.name}, with room for its answer",
                fix=worded("give {tokens}, if the task lets the model write more than you need"),
            )
        clusters = tuple(item.task.task_name for item in items) if len(self.built.metrics) > 1 else None
        columns = {}
        for measure in self.measures:
            pairs = [one.get(measure.name, (None, 0.0)) for one in found]
            values = tuple(value for value, _ in pairs)
            weights = tuple(weight for _, weight in pairs)
            plain = all(weight == 1 for value, weight in pairs if value is not None)
            columns[measure.name] = MeasureColumn(values, None if plain else weights, clusters=clusters)
        records = tuple(
            {"task": item.task.task_name, "id": item.number, "item": item.digest}
            | {name: value[0] for name, value in one.items() if isinstance(value, list)}
            for item, one in zip(items, found, strict=True)
        )
        of_first = self._of_first()
        here = sum(
            "too_long" in one and item.task.task_name in of_first for item, one in zip(items, found, strict=True)
        )
        return SuiteOutcome(columns, {"too_long": long, "too_long_for_first": here}, records)

    def _of_first(self) -> set[str]:
        """Return the tasks that have the first measure; those of a group need not have the same."""
        first = self.measures[0].name
        return {name for name, found in self.built.metrics.items() if any(m.measure.name == first for m in found)}

    def warnings(self, outcome: SuiteOutcome) -> tuple[str, ...]:
        """Return what a reader of this outcome must be told: items without a number."""
        n, long, here = len(self.built.items), outcome.counts["too_long"], outcome.counts["too_long_for_first"]
        told = []
        if long:
            told.append(f"{long} of {n} items of {self.name} do not fit into the model's context and are left out")
        first = self.measures[0].name
        with_it = self._of_first()
        pairs = zip(self.built.items, outcome.columns[first].values, strict=True)
        if missing := sum(value is None and item.task.task_name in with_it for item, value in pairs) - here:
            told.append(f"{first} has no number for {missing} of {n} items of {self.name}")
        return tuple(told)

    def _about(self) -> str:
        tasks = {item.task.task_name: item.task for item in self.built.items}
        if len(tasks) > 1:
            return f"{len(tasks)} tasks"
        (task,) = tasks.values()
        version, shots = getattr(task, "VERSION", None), task.get_config("num_fewshot") or 0
        told = [f"version {version}"] if isinstance(version, (int, float, str)) and version != "Yaml" else []
        return ", ".join([*told, f"{shots} examples in the prompt"])

    def _notes(self) -> Iterator[str]:
        if len(self.built.metrics) > 1:
            yield (
                f"the items of {len(self.built.metrics)} tasks are pooled and weigh the same; each task is a cluster"
            )
        if self.built.left:
            yield f"left out, since they have no value an item or are no mean: {', '.join(self.built.left)}"
        yield "prompts are plain text, as the task writes them, without a chat template"


def build_suite(
    spec: str, take: Callable[[Sequence[DataItem]], Sequence[int]], tokens: int | None = None
) -> HarnessSuite:
    """Return the suite of what follows `harness:`; raises what `load_tasks` raises.

    Parameters:
        spec: a name that lm-eval knows, or the path of a YAML file.
        take: chooses positions from what tells the items apart.
        tokens: the most tokens of an answer, where answers are generated.
    """
    loaded = load_tasks(spec)
    docs = documents(loaded)
    items = [DataItem(plain_digest(doc)) for of_task in docs for doc in of_task]
    return HarnessSuite(build(loaded, docs, sorted(take(items)), tokens))
