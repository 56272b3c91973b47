"""A task or a group in a user's YAML file, read as data.

lm-eval takes such a file for code: `!function` imports Python that lies beside it, a metric may be a script, and a data
set a pickle. Here a file holds what is listed below and nothing else. Code comes from installed packages only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from s3lora.errors import S3LoRAError, UsageError, printable
from s3lora.evaluate.harness.package import EXTRA, HarnessError
from s3lora.files import check_regular, read_whole, reason
from s3lora.needs import need

#: Bytes of a YAML file, and values in it once its aliases are followed.
MAX_BYTES, MAX_VALUES = 1 << 20, 100_000
MAX_DEPTH = 20
#: Times that files are read, all together; the largest groups of lm-eval have some hundred.
MAX_READS = 2_000
ENDINGS = (".yaml", ".yml")

#: What a task may say. All else of lm-eval's keys takes code, or images and sound.
TASK_KEYS = frozenset({
    *("task", "task_alias", "tag", "metadata", "output_type", "num_fewshot", "repeats"),
    *("dataset_path", "dataset_name", "dataset_kwargs"),
    *("training_split", "validation_split", "test_split", "fewshot_split"),
    *("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix"),
    *("target_delimiter", "fewshot_delimiter", "fewshot_config"),
    *("generation_kwargs", "metric_list", "filter_list"),
    *("should_decontaminate", "doc_to_decontamination_query"),
})  # fmt: skip
GROUP_KEYS = frozenset({"group", "group_alias", "task", "tag", "aggregate_metric_list", "metadata"})
#: Kinds of local files; others of `datasets` unpickle, or fetch.
FILE_KINDS = ("json", "csv", "text", "parquet")
#: What the mappings in a task may say.
INNER_KEYS = {
    # Of `load_dataset`; others name places to write to, or ways to reach a network.
    "dataset_kwargs": frozenset({
        *("data_files", "data_dir", "field", "sep", "delimiter", "column_names", "encoding", "revision"),
    }),
    # Of `generate`; among the others is one that fetches code.
    "generation_kwargs": frozenset({
        *("until", "do_sample", "temperature", "top_p", "top_k", "min_p"),
        *("max_gen_toks", "repetition_penalty", "num_beams"),
    }),
    "fewshot_config": frozenset({
        *("sampler", "split", "samples", "fewshot_indices", "doc_to_text", "doc_to_choice", "doc_to_target"),
        *("gen_prefix", "fewshot_delimiter", "target_delimiter"),
    }),
}  # fmt: skip
_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*")

Spec = Mapping[str, Any] | str


def read_definitions(path: Path, metrics: Callable[[str], bool]) -> tuple[str, list[Spec]]:
    """Return the name of the task or group in a YAML file, and its tasks: what they say, or a name of lm-eval's.

    Parameters:
        path: the file; a group may name tasks of the other YAML files in its folder.
        metrics: tells whether lm-eval has a metric of this name.

    Raises UsageError for a file that cannot be read, and HarnessError for what would run code.
    """
    reader = _DefinitionReader(path.parent, metrics)
    told = reader.read(path)
    name = told.get("group", told.get("task"))
    if not isinstance(name, str) or not name.strip():
        raise UsageError("names neither a task nor a group", file=path, fix="give it `task: NAME`")
    return printable(name, 80), list(reader.specs(told, path, 0))


class _DefinitionReader:
    """Reads the files of one folder."""

    def __init__(self, folder: Path, metrics: Callable[[str], bool]) -> None:
        self._folder, self._metrics = folder, metrics
        self._read = 0
        self._beside: dict[str, Path] | None = None

    def read(self, path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
        """Return what a file says, with what it includes."""
        if path in seen or len(seen) > MAX_DEPTH:
            raise UsageError("includes itself", file=path)
        self._read += 1
        if self._read > MAX_READS:
            raise UsageError(f"names other files more than {MAX_READS:,} times in all", file=path)
        told = _parsed(path)
        includes = told.pop("include", [])
        merged: dict[str, Any] = {}
        for name in includes if isinstance(includes, list) else [includes]:
            if not isinstance(name, str):
                raise UsageError("includes what is no file name", file=path)
            merged |= self.read(path.parent / name, (*seen, path))
        return merged | told

    def specs(self, told: Mapping[str, Any], path: Path, depth: int) -> Iterator[Spec]:
        """Yield the tasks of a task or group."""
        if depth > MAX_DEPTH:
            raise UsageError("holds groups that hold each other", file=path)
        if "group" not in told and not isinstance(told.get("task"), list):
            yield self._checked(told, path)
            return
        members = told.get("task")
        if not isinstance(members, list) or not members:
            raise UsageError("is a group without tasks", file=path, fix="give `task:` a list of names")
        shared = {key: value for key, value in told.items() if key not in GROUP_KEYS}
        for member in members:
            yield from self._member(member, shared, path, depth + 1)

    def _member(self, member: Any, shared: Mapping[str, Any], path: Path, depth: int) -> Iterator[Spec]:
        if isinstance(member, str):
            member = {"task": member}
        if not isinstance(member, dict):
            raise UsageError("is a group of what is no task", file=path, fix="give names, or mappings with `task:`")
        name = member.get("group", member.get("task"))
        beside = self._named(name) if isinstance(name, str) else None
        if beside is not None and beside != path:
            own = {key: value for key, value in member.items() if key not in ("group", "task")}
            yield from self.specs(self.read(beside) | dict(shared) | own, beside, depth)
        elif "group" in member or member.keys() & {"dataset_path", "doc_to_text"}:
            yield from self.specs(dict(shared) | member, path, depth)
        elif not isinstance(name, str):
            raise UsageError("is a group of what is no task", file=path, fix="give names, or mappings with `task:`")
        elif shared or member.keys() - {"task"}:
            yield self._checked(dict(shared) | member, path)
        else:
            yield name

    def _named(self, name: str) -> Path | None:
        """Return the file of the folder that defines a task or group, None where none does."""
        if self._beside is None:
            self._beside = {}
            for path in sorted(self._folder.iterdir()):
                if path.suffix in ENDINGS and path.is_file():
                    # What is no task is nobody's here, and what is named is read again, and then complained of.
                    try:
                        told = _parsed(path)
                    except S3LoRAError:
                        continue
                    for key in ("group", "task"):
                        if isinstance(told.get(key), str):
                            self._beside.setdefault(told[key], path)
        return self._beside.get(name)

    def _checked(self, told: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """Return a task's keys; raise HarnessError for one that is not on the lists."""
        task = dict(told)
        if task.get("unsafe_code"):
            raise HarnessError("runs code that the model writes, and s3lora runs none", file=path)
        task.pop("unsafe_code", None)
        _only(task, TASK_KEYS, "", path)
        for key, allowed in INNER_KEYS.items():
            if task.get(key) is not None:
                task[key] = dict(_only(task[key], allowed, f"{key}.", path))
        for metric in _list_of_mappings(task, "metric_list", path):
            name = metric.get("metric")
            if not isinstance(name, str) or not self._metrics(name) or metric.get("hf_evaluate"):
                what = f"the metric {printable(name, 40)} is none of lm-eval's own, and others are scripts"
                raise HarnessError(what, file=path)
        for pipeline in _list_of_mappings(task, "filter_list", path):
            _list_of_mappings(pipeline, "filter", path)
        _check_data(task, path)
        return task


def _parsed(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; its tags are refused, not followed."""
    yaml = need("yaml", EXTRA)
    if path.suffix not in ENDINGS:
        raise UsageError("is not called .yaml or .yml", file=path)
    content = read_whole(path, MAX_BYTES)
    try:
        told = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.constructor.ConstructorError as error:
        tag = re.search(r"for the tag '([^']*)'", str(error))
        if tag is None:
            raise UsageError("is not YAML that can be read", file=path) from None
        raise HarnessError(
            f"holds the tag {printable(tag[1], 40)}, and s3lora runs no code that a file names",
            file=path,
            fix="put it in words of templates and filters, or use a task of an installed package",
        ) from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise UsageError(f"is not YAML that can be read{where}", file=path) from None
    if not _is_small(told):
        raise UsageError("holds too much for a task, or too deep", file=path)
    if not isinstance(told, dict) or not all(isinstance(key, str) for key in told):
        raise UsageError("is not a task: a mapping of keys to values", file=path)
    return told


def _is_small(value: Any) -> bool:
    """Return whether a document has few values, those behind an alias counted at every place, and no deep ones."""
    stack, count = [(value, 0)], 0
    while stack:
        value, depth = stack.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            return False
        inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
        stack.extend((one, depth + 1) for one in inner)
    return True


def _only(value: Any, allowed: frozenset[str], where: str, path: Path) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"has no mapping as {where[:-1]}", file=path)
    for key in value:
        if key not in allowed:
            what = f"has the key {where}{printable(key, 40)}, which is not read from a file"
            raise HarnessError(what, file=path, fix="leave it out: what it is for takes code, or a network")
    return value


def _list_of_mappings(told: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = told.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise UsageError(f"has no list of mappings as {key}", file=path)
    return value


def _check_data(task: dict[str, Any], path: Path) -> None:
    """Let data come from files of known kinds, found beside the YAML file, or from the Hub."""
    kind, keywords = task.get("dataset_path"), task.get("dataset_kwargs") or {}
    for key in ("data_files", "data_dir"):
        for name in _strings(keywords.get(key)):
            if "://" in name or "::" in name:
                raise HarnessError(f"has data at {printable(name, 60)}, which is no local file", file=path)
    if kind is None:
        return
    if kind in FILE_KINDS:
        if keywords.get("data_dir") is not None or not keywords.get("data_files"):
            raise UsageError(f"reads {kind} and names no file", file=path, fix="give dataset_kwargs.data_files")
        task["dataset_kwargs"] = keywords | {"data_files": _placed(keywords["data_files"], path)}
    elif not isinstance(kind, str) or not _HUB.fullmatch(kind) or Path(kind).exists():
        kinds = ", ".join(FILE_KINDS)
        what = f"takes its data from {printable(kind, 60)}"
        raise HarnessError(what, file=path, fix=f"use {kinds}, or owner/name on the Hub")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(one)


def _placed(files: Any, path: Path) -> Any:
    """Return names of data files as absolute paths: from the folder of the YAML file, else from the working one."""
    if isinstance(files, dict):
        return {split: _placed(one, path) for split, one in files.items()}
    if isinstance(files, list):
        return [_placed(one, path) for one in files]
    if not isinstance(files, str):
        raise UsageError("has data files that are no names", file=path)
    beside = path.parent / files
    place = beside if beside.exists() else Path(files)
    try:
        check_regular(place)
    except OSError as problem:
        raise UsageError(f"its data cannot be read ({reason(problem)})", file=place) from None
    return str(place.absolute())
