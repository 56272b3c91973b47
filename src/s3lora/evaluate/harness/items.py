"""The items of tasks with what is asked for each: drawn, built once, and the same for every variant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from s3lora.errors import S3LoRAError
from s3lora.evaluate.chat import digest_of
from s3lora.evaluate.harness.metrics import HarnessMetric, metrics_of
from s3lora.evaluate.harness.package import HarnessError, harness, quiet
from s3lora.evaluate.harness.tasks import HarnessTasks
from s3lora.evaluate.loading import reason_of


@dataclass(frozen=True)
class HarnessItem:
    """One item: its task, its number there, what it is, what is asked for it, and a digest of all of that."""

    task: Any
    number: int
    doc: Any
    instances: tuple[Any, ...]
    digest: str


@dataclass(frozen=True)
class BuiltTasks:
    """The items of one suite, the measures of each of its tasks, and the names of metrics that are left out."""

    name: str
    items: tuple[HarnessItem, ...]
    metrics: Mapping[str, tuple[HarnessMetric, ...]]
    left: tuple[str, ...]


def documents(loaded: HarnessTasks) -> list[list[Any]]:
    """Return the items of each task, as its data has them."""
    found = []
    for task in loaded.tasks:
        with _explained(task), quiet():
            found.append(list(task.eval_docs))
    return found


def build(loaded: HarnessTasks, docs: Sequence[Sequence[Any]], chosen: Sequence[int], tokens: int | None) -> BuiltTasks:
    """Build what is asked for the chosen items.

    Parameters:
        loaded: the tasks.
        docs: `documents` of them.
        chosen: positions in all documents, one task after the other, ascending.
        tokens: the most tokens of an answer, where answers are generated; None for what each task says.
    """
    items: list[HarnessItem] = []
    metrics: dict[str, tuple[HarnessMetric, ...]] = {}
    left: list[str] = []
    start = 0
    for task, all_of_it in zip(loaded.tasks, docs, strict=True):
        mine = [i - start for i in chosen if start <= i < start + len(all_of_it)]
        start += len(all_of_it)
        if not mine:  # which lm-eval would take for all of them
            continue
        built = _items(task, all_of_it, mine, tokens)
        with quiet():
            named, without = metrics_of(task, built[0].doc, built[0].instances)
        metrics[task.task_name] = tuple(named)
        left += without
        items += built
    return BuiltTasks(loaded.name, tuple(items), metrics, tuple(dict.fromkeys(left)))


def plain_digest(value: Any) -> str:
    """Return the SHA-256 of an item or of a configuration; of what is no JSON, its name or text is taken."""
    return digest_of(json.dumps(value, sort_keys=True, default=_named, ensure_ascii=False))


def _named(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    return str(value) if name is None else f"{value.__module__}.{name}"


def _items(task: Any, docs: Sequence[Any], mine: list[int], tokens: int | None) -> list[HarnessItem]:
    with _explained(task), quiet():
        task.build_all_requests(samples=None if len(mine) == len(docs) else mine)
    told = task.get_config
    fields = ("metric_list", "filter_list", "process_results", "doc_to_target", "doc_to_choice")
    scoring = [task.task_name, harness().version, *map(told, fields)]
    grouped: dict[int, list[Any]] = {}
    for instance in task.instances:
        grouped.setdefault(instance.doc_id, []).append(_bounded(instance, tokens))
    found = []
    for place, instances in sorted(grouped.items()):
        instances.sort(key=lambda one: one.idx)
        number = mine[place]
        asked = [[one.request_type, one.args, one.repeats] for one in instances]
        digest = plain_digest([scoring, docs[number], asked])
        found.append(HarnessItem(task, number, docs[number], tuple(instances), digest))
    return found


def _bounded(instance: Any, tokens: int | None) -> Any:
    """Return the request with at most so many tokens of an answer."""
    if tokens is not None and instance.request_type == "generate_until":
        context, how = instance.arguments
        rest = {key: value for key, value in how.items() if key not in ("max_new_tokens", "max_length")}
        instance.arguments = (context, {**rest, "max_gen_toks": tokens})
    return instance


@contextmanager
def _explained(task: Any) -> Iterator[None]:
    """Turn what a task's own code and templates raise into one sentence."""
    try:
        yield
    except S3LoRAError:
        raise
    except Exception as error:
        raise HarnessError(f"the task cannot be built ({reason_of(error)})", file=task.task_name) from None
