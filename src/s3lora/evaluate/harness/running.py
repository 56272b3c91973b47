"""A switched model inside lm-eval's HFLM: the answers to items, scored, and only the scores kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from s3lora.errors import ModelError, S3LoRAError
from s3lora.evaluate.chat import digest_of
from s3lora.evaluate.harness.items import BuiltTasks, HarnessItem
from s3lora.evaluate.harness.metrics import filter_all
from s3lora.evaluate.harness.package import EXTRA, HarnessError, quiet
from s3lora.evaluate.harness.tasks import FEW_SHOT_SEED
from s3lora.evaluate.loading import is_out_of_memory, reason_of
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.store import AnswerStore
from s3lora.measure.scan import Progress
from s3lora.needs import need
from s3lora.wording import worded

#: Raised where what is kept of an item changes its meaning.
VERSION = 2
#: Items that are asked together. Rounding depends on what stands beside what, so they always are.
TOGETHER = 64
#: Instead of scores, for an item that does not fit into the model's context.
TOO_LONG = {"too_long": True}

#: What is kept of an item: by measure, its number and its weight.
ItemScores = Mapping[str, Any]


class SwitchedModel:
    """What HFLM takes for a model: the base with whatever adapter is on, and the tokens that end an answer.

    It is no torch module on purpose: HFLM ties the weights of those anew.
    """

    def __init__(self, model: LocalModel) -> None:
        """Take the model as it is switched now."""
        self._inner = model.adapters.model
        self._ends = list(model.ends)

    def __getattr__(self, name: str) -> Any:
        """Return what the model has."""
        return getattr(self._inner, name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Run the model."""
        return self._inner(*arguments, **keywords)

    def generate(self, **keywords: Any) -> Any:
        """Generate, and end where the checkpoint says."""
        return self._inner.generate(eos_token_id=self._ends, **keywords)


def scores(
    model: LocalModel, built: BuiltTasks, store: AnswerStore | None, progress: Progress | None = None
) -> list[ItemScores]:
    """Return the scores of each item, in the order of the items; what the store has is not asked again."""
    items = built.items
    keys = [digest_of(["harness", VERSION, model.identity, item.digest]) for item in items]
    known: dict[str, ItemScores] = dict(store.get(keys)) if store is not None else {}
    parts = [range(i, min(i + TOGETHER, len(items))) for i in range(0, len(items), TOGETHER)]
    missing = [part for part in parts if any(keys[i] not in known for i in part)]
    done = len(items) - sum(map(len, missing))
    if progress is not None:
        progress(done, len(items))
    lm = hflm(model) if missing else None
    for part in missing:
        found = _answered(lm, model, [items[i] for i in part], built)
        fresh = {keys[i]: one for i, one in zip(part, found, strict=True) if keys[i] not in known}
        known |= fresh
        if store is not None:
            store.put(fresh)
        done += len(part)
        if progress is not None:
            progress(done, len(items))
    return [known[key] for key in keys]


def hflm(model: LocalModel) -> Any:
    """Return lm-eval's wrapper around the model as it is switched now."""
    with quiet():
        kind = need("lm_eval.models.huggingface", EXTRA).HFLM
    with quiet(streams=False):
        lm = kind(pretrained=SwitchedModel(model), tokenizer=model.base.tokenizer, batch_size=model.batch_size)
    inner = lm._loglikelihood_tokens

    def silent(requests: Any, disable_tqdm: bool = True, **rest: Any) -> Any:
        """Show no bar, also where lm-eval asks for one whatever it was told."""
        return inner(requests, disable_tqdm=True, **rest)

    lm._loglikelihood_tokens = silent
    return lm


def _answered(lm: Any, model: LocalModel, items: Sequence[HarnessItem], built: BuiltTasks) -> list[ItemScores]:
    """Return the scores of a few items, all asked together."""
    fitting = [item for item in items if all(_fits(lm, one) for one in item.instances)]
    asked = {id(item): [replace(one, resps=[], filtered_resps={}) for one in item.instances] for item in fitting}
    need("torch").manual_seed(FEW_SHOT_SEED)  # of tasks that sample
    try:
        with quiet(streams=False):
            _ask(lm, [one for item in fitting for one in asked[id(item)]])
            # A filter may look at all that it is given, and is given one task's.
            for task in {id(item.task): item.task for item in fitting}.values():
                filter_all(task, [one for item in fitting if item.task is task for one in asked[id(item)]])
            return [
                _scored(item, asked[id(item)], built) if id(item) in asked else TOO_LONG for item in items
            ]  # fmt: skip
    except S3LoRAError:
        raise
    except Exception as error:  # of lm-eval, of a task's own scoring, or of torch
        if is_out_of_memory(error):
            fix = worded("give a smaller {batch_size}, or {dtype}bfloat16")
            raise ModelError("memory runs out", file=model.name, fix=fix) from None
        raise HarnessError(f"lm-eval cannot run it ({reason_of(error)})", file=f"harness:{built.name}") from None


def _ask(lm: Any, instances: Sequence[Any]) -> None:
    """Put what the model says to each request beside it."""
    kinds = dict.fromkeys(one.request_type for one in instances)
    for kind in kinds:
        asked = [one for one in instances if one.request_type == kind for _ in range(one.repeats or 1)]
        for one, answer in zip(asked, getattr(lm, kind)(asked, disable_tqdm=True), strict=True):
            one.resps.append(answer)


def _fits(lm: Any, instance: Any) -> bool:
    """Return whether lm-eval would not cut the prompt. What is scored in windows always fits."""
    if instance.request_type == "loglikelihood_rolling":
        return True
    context, rest = instance.args[:2]
    room = int(lm.max_length)
    if instance.request_type == "loglikelihood":
        return len(lm.tok_encode(context)) + len(lm.tok_encode(rest)) <= room + 1
    answer = int(rest.get("max_gen_toks", rest.get("max_new_tokens", lm.max_gen_toks)))
    return len(lm.tok_encode(context)) <= room - answer


def _scored(item: HarnessItem, instances: Sequence[Any], built: BuiltTasks) -> ItemScores:
    found: dict[str, Any] = {}
    computed: dict[str, Mapping[str, Any]] = {}
    for metric in built.metrics[item.task.task_name]:
        name = metric.filter
        if name not in computed:
            computed[name] = item.task.process_results(item.doc, [one.filtered_resps[name] for one in instances])
        found[metric.measure.name] = list(metric.weigh(computed[name].get(metric.metric)))
    return found
