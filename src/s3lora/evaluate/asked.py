"""Which prompts suites ask: nothing may be learned from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.likelihood import LossSuite
from s3lora.evaluate.maths.suite import MathsSuite
from s3lora.evaluate.planning.suite import PlanningSuite
from s3lora.evaluate.safety import SafetySuite
from s3lora.evaluate.suite import Suite
from s3lora.evaluate.summarisation import SummarisationSuite


def asked_by(suites: Sequence[Suite]) -> frozenset[str]:
    """Return the digests of the prompts that our own suites ask; those of others are not known."""
    return frozenset(prompt.digest for suite in suites for prompt in _prompts(suite))


def own_data(suites: Iterable[Suite]) -> tuple[str, ...]:
    """Return the names of what is measured and not built in."""
    return tuple(dict.fromkeys(data.name for suite in suites for data in suite.info.data if not data.built_in))


def _prompts(suite: Suite) -> Iterator[Prompt]:
    if isinstance(suite, SafetySuite):
        yield from (*suite.harmful.prompts, *suite.benign.prompts)
    elif isinstance(suite, LossSuite):
        yield from (prompt for prompt, _ in suite.pairs)
    elif isinstance(suite, PlanningSuite):
        yield from (task.prompt for task in suite.tasks.tasks)
    elif isinstance(suite, MathsSuite):
        yield from (problem.prompt for problem in suite.data.problems)
    elif isinstance(suite, SummarisationSuite):
        yield from (example.prompt for example in suite.data.examples)


__all__ = ["asked_by", "own_data"]
