"""Which measures a task has: found out by scoring its first item on an answer that says nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from s3lora.evaluate.harness.package import HarnessError
from s3lora.evaluate.loading import reason_of
from s3lora.evaluate.results import Better, Measure

#: Where lm-eval's own scoring stands; tasks may bring another.
THEIRS = "lm_eval.api.task"
#: Metrics that lm-eval's own scoring makes 0 or 1 an item.
BINARY = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"})
#: Metrics of likelihoods, of which lm-eval shows the exponential: what the mean is called here, and its unit.
LIKELIHOODS = {
    "perplexity": ("loss", "nats"),
    "word_perplexity": ("loss_per_word", "nats"),
    "byte_perplexity": ("loss_per_byte", "nats"),
    "bits_per_byte": ("bits_per_byte", "bits"),
}
#: An item's number and its weight; no number where there is none.
Weighed = tuple[float | None, float]


@dataclass(frozen=True)
class HarnessMetric:
    """One measure of a task: what it is called in lm-eval, behind which filter, and as a measure here."""

    metric: str
    filter: str
    measure: Measure

    def weigh(self, value: object) -> Weighed:
        """Return an item's number from what lm-eval computed for it.

        >>> HarnessMetric("acc", "none", Measure("acc", "rate", "higher", "")).weigh(np.float64(1))
        (1.0, 1.0)
        """
        if self.metric not in LIKELIHOODS:
            return _number(value), 1.0
        total, weight = value if isinstance(value, tuple) and len(value) == 2 else (value, 1.0)
        nats, parts = _number(total), _number(weight)
        if nats is None or not parts:
            return None, 0.0
        return -nats / parts / (math.log(2) if self.metric == "bits_per_byte" else 1.0), parts


def metrics_of(task: Any, doc: Any, instances: Sequence[Any]) -> tuple[list[HarnessMetric], list[str]]:
    """Return the measures of a task, the first of them first, and the names of metrics without a number an item.

    Parameters:
        task: of lm-eval, with its data.
        doc: its first item.
        instances: what would be asked for that.

    Raises HarnessError where the task cannot be scored, or has no such measure.
    """
    try:
        scored = score(task, doc, [replace(one, resps=_nothing(one), filtered_resps={}) for one in instances])
        aggregations, better = task.aggregation(), task.higher_is_better()
    except Exception as error:  # whatever a task's own scoring raises
        raise HarnessError(f"an item cannot be scored ({reason_of(error)})", file=task.task_name) from None
    found, left = [], []
    for name, metrics in scored.items():
        for metric, value in metrics.items():
            suffix = f" ({name})" if len(scored) > 1 else ""
            likelihood = metric in LIKELIHOODS and not _is_mean(aggregations.get(metric))
            if not likelihood and (_number(value, finite=False) is None or not _is_mean(aggregations.get(metric))):
                left.append(metric + suffix)
                continue
            called, unit = LIKELIHOODS[metric] if likelihood else (metric, "")
            kind: Literal["rate", "mean"] = "rate" if _is_binary(task, metric, value) else "mean"
            direction: Better = _direction(better.get(metric))
            about = f"{metric} of lm-evaluation-harness{', filter ' + name if suffix else ''}"
            if likelihood and called != metric:
                about = f"mean negative log-likelihood, whose exponential is the {about}"
            found.append(HarnessMetric(metric, name, Measure(called + suffix, kind, direction, about, unit)))
    if not found:
        told = f" ({', '.join(left)})" if left else ""
        raise HarnessError(f"none of its metrics has a number for each item{told}", file=task.task_name)
    return found, left


def score(task: Any, doc: Any, instances: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    """Return what lm-eval computes for an item from its answers: by filter, then by metric."""
    filter_all(task, instances)
    return {
        name: task.process_results(doc, [one.filtered_resps[name] for one in instances])
        for name in instances[0].filtered_resps
    }


def filter_all(task: Any, instances: Sequence[Any]) -> None:
    """Let every pipeline of a task's filters put what it makes of the answers beside them."""
    for pipeline in task._filters:
        pipeline.apply(list(instances))


def _nothing(instance: Any) -> list[Any]:
    answers: dict[str, Any] = {"generate_until": "", "loglikelihood": (-1.0, False), "loglikelihood_rolling": -1.0}
    return [answers[instance.request_type]] * (instance.repeats or 1)


def _number(value: object, finite: bool = True) -> float | None:
    if not isinstance(value, (bool, int, float, np.number, np.bool_)) or isinstance(value, np.complexfloating):
        return None
    number = float(value)
    return number if math.isfinite(number) or not finite else None


def _is_binary(task: Any, metric: str, value: object) -> bool:
    """Return whether every item has 0 or 1: a truth value, or what lm-eval itself counts as right or wrong."""
    if isinstance(value, (bool, np.bool_)):
        return True
    special = type(task).process_results.__module__ != THEIRS or callable(task.get_config("process_results"))
    return metric in BINARY and (not special or (isinstance(value, int) and value in (0, 1)))


def _is_mean(aggregate: Callable[[list[float]], Any] | None) -> bool:
    """Return whether a metric is averaged over the items. Where lm-eval is told nothing, it averages."""
    if aggregate is None:
        return True
    try:
        return math.isclose(aggregate([0.0, 1.0, 1.0, 0.5]), 0.625) and math.isclose(aggregate([2.0, 0.0]), 1.0)
    except Exception:  # made for something else than numbers
        return False


def _direction(higher: object) -> Better:
    return "neither" if higher is None else "higher" if higher else "lower"
