"""From what follows `harness:` to tasks with their data: a name that lm-eval knows, or a YAML file."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3lora.errors import UsageError, printable
from s3lora.evaluate.harness.definitions import ENDINGS, Spec, read_definitions
from s3lora.evaluate.harness.execution import runs_code
from s3lora.evaluate.harness.package import HarnessError, harness, quiet
from s3lora.evaluate.loading import reason_of

#: Of the draw of few-shot examples: lm-eval's own, so that the prompts are those of its published results.
FEW_SHOT_SEED = 1234
#: Names that an error proposes.
NEAR = 3


@dataclass(frozen=True)
class HarnessTasks:
    """Tasks of lm-eval with their data, under the name of the one or of the group."""

    name: str
    tasks: tuple[Any, ...]

    @property
    def title(self) -> str:
        """Return the name of the suite."""
        return f"harness:{self.name}"


def load_tasks(spec: str) -> HarnessTasks:
    """Return a task, or all of a group, with its data.

    Parameters:
        spec: a name that lm-eval knows, or the path of a YAML file.

    Raises MissingPackageError without lm-eval, UsageError for an unknown name or a file that cannot be read, and
    HarnessError for what would run code and for data that cannot be had.
    """
    if not spec.strip():
        raise UsageError("harness: names no task", fix="write harness:NAME, or harness:PATH.yaml")
    parts = harness()
    if spec.endswith(ENDINGS) or os.sep in spec:
        path = Path(spec).expanduser()
        with quiet():
            name, specs = read_definitions(path, lambda metric: metric in parts.registry.metric_registry)
    else:
        name, specs = printable(spec, 80), [spec]
    found: dict[str, Any] = {}
    for one in specs:
        for task in _build(one):
            found.setdefault(task.task_name, task)
    if not found:
        raise HarnessError("holds no task", file=spec)
    return HarnessTasks(name, tuple(found.values()))


@functools.cache
def _manager(everything: bool) -> Any:
    """Return lm-eval's table of tasks: of all that come with it, which takes seconds to read, or empty."""
    parts = harness()
    with quiet():
        return parts.tasks.TaskManager(include_defaults=everything)


def _build(spec: Spec) -> list[Any]:
    """Return the tasks of one name, or of one mapping: built, with their data."""
    name = spec if isinstance(spec, str) else str(spec["task"])
    # A task that says where its data is stands alone: nothing that comes with lm-eval takes part.
    alone = isinstance(spec, Mapping) and "dataset_path" in spec
    manager = _manager(not alone)
    if not alone:
        _refuse_unknown(name, manager)
        _refuse_code(name, manager)
    # lm-eval changes a task of its own in a group only.
    wanted: Any = spec if alone or isinstance(spec, str) else {"group": "changed", "task": [dict(spec)]}
    try:
        with quiet():
            tasks = [prepared(task) for task in manager.load([wanted])["tasks"].values()]
    except Exception as error:  # a network, a hub, file formats and templates fail in as many ways
        away = "its data needs a network, or a copy in the cache of Hugging Face" if _is_away(error) else None
        what = f"the task cannot be built ({reason_of(error)})"
        raise HarnessError(what, file=printable(name, 80), fix=away) from None
    for task in tasks:
        if getattr(task, "UNSAFE_CODE", False):
            raise _unsafe(task.task_name)
        if getattr(task, "MULTIMODAL", False):
            raise HarnessError("asks about images or sound, and only texts are put to the model", file=task.task_name)
    return tasks


def prepared(task: Any) -> Any:
    """Return a task of lm-eval's as its own evaluation prepares it: with a number and a draw of few-shot examples."""
    if task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", 0)
    task.set_fewshot_seed(seed=FEW_SHOT_SEED)
    return task


def _refuse_unknown(name: str, manager: Any) -> None:
    if name not in manager.task_index:
        near = difflib.get_close_matches(name, manager.all_tasks, NEAR, cutoff=0.6)
        proposed = f"near to it are {', '.join(near)}" if near else "`lm-eval ls tasks` lists them"
        raise UsageError(f"lm-eval has no task {printable(name, 60)}", fix=proposed)


def _refuse_code(name: str, manager: Any, seen: set[str] | None = None) -> None:
    """Raise HarnessError before anything of a task that runs code is imported, or of a group that holds one."""
    seen = set() if seen is None else seen
    entry = manager.task_index.get(name)
    if entry is None or name in seen:
        return
    seen.add(name)
    config = entry.cfg or {}
    if runs_code(config, Path(harness().tasks.__file__).parent):
        raise _unsafe(name)
    members = config.get("task")
    for member in [*(members if isinstance(members, list) else ()), *sorted(entry.tags if config == {} else ())]:
        inner = member.get("group", member.get("task")) if isinstance(member, Mapping) else member
        if isinstance(inner, str):
            _refuse_code(inner, manager, seen)


def _unsafe(name: str) -> HarnessError:
    return HarnessError("the task runs code that the model writes, and s3lora runs none", file=printable(name, 80))


def _is_away(error: BaseException) -> bool:
    """Return whether a data set could not be fetched, by any of the libraries that fetch one."""
    names = {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}
    return bool(names & {"ConnectionError", "DatasetNotFoundError", "HTTPError", "HfHubHTTPError", "TransportError"})


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
