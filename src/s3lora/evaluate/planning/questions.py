"""The built-in tasks: multi-hop questions from three templates, with reference plans and answers known from a world.

Training and test questions are about separate worlds, so that they share no fact and no chain of facts. Everything
follows from the seed; the demo adapter was trained on the training questions of seed 0.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from s3lora.errors import UsageError
from s3lora.evaluate.planning.facts import RELATIONS, Relation, World, build_worlds, documents
from s3lora.evaluate.planning.tasks import PlanningTask, TaskSet

#: Beyond this, drawing a question that was not drawn before takes ever longer.
MAX_QUESTIONS = 5_000


class _WalkPoint(NamedTuple):
    """Where a walk has got to: how the question, the plan's words and its inputs name that, and what it is."""

    phrase: str
    noun: str
    mark: str
    value: str


@dataclass
class _Draft:
    """An example in the making."""

    world: World
    rng: random.Random
    lines: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)

    def add(self, why: str, tool: str, tool_input: str) -> str:
        """Append a step and return the mark of its result."""
        mark = f"#E{len(self.lines) + 1}"
        self.lines.append(f"Plan: {why} {mark} = {tool}[{tool_input}]")
        return mark

    def walk(self, last: Relation, hops: int) -> list[_WalkPoint]:
        """Look up a random chain of at most ``hops`` facts that ends in ``last``; return its points, start first."""
        path = [last]
        while len(path) < hops:
            before = [r for r in RELATIONS if r.target == path[0].source and r not in path]
            if path[0].name == "region":  # The capital of a region lies in that region: nothing would be asked.
                before = [r for r in before if r.name != "capital"]
            if not before:
                break
            path.insert(0, self.rng.choice(before))
        start = self.rng.choice(self.world.entities[path[0].source])
        points = [_WalkPoint(start, start, start, start)]
        for name, _, target, phrase in path:
            here = points[-1]
            self.facts.append((name, here.value))
            mark = self.add(f"Find {phrase.format(here.noun)}.", "Lookup", f"{name} of {here.mark}")
            value = self.world.facts[name, here.value]
            points.append(_WalkPoint(phrase.format(here.phrase), f"that {target}", mark, value))
        return points

    def finish(self, question: str, answer: str) -> PlanningTask:
        return PlanningTask(question, "\n".join(self.lines), (answer,), tuple(self.facts))


def _chain(draft: _Draft, rng: random.Random) -> PlanningTask:
    """Follow two or three facts."""
    last = rng.choice([r for r in RELATIONS if r.source not in ("book", "bridge")])
    end = draft.walk(last, rng.choice((2, 3, 3)))[-1]
    ask = rng.choice(("Who is {}?" if last.target == "person" else "What is {}?", "Name {}.", "Tell me {}."))
    return draft.finish(ask.format(end.phrase), end.value)


def _arithmetic(draft: _Draft, rng: random.Random) -> PlanningTask:
    """Add two numbers of one kind, or subtract one from the other."""
    last = rng.choice([r for r in RELATIONS if r.target == "number"])
    one, two = (draft.walk(last, rng.choice((1, 2)))[-1] for _ in range(2))
    plus = "year" not in last.name and rng.random() < 0.5
    verb, sign, word = ("Add", "+", "plus") if plus else ("Subtract", "-", "minus")
    draft.add(f"{verb} the numbers.", "Calculator", f"{one.mark} {sign} {two.mark}")
    answer = int(one.value) + int(two.value) * (1 if plus else -1)
    ask = rng.choice(("What is {} {} {}?", "Calculate {} {} {}."))
    return draft.finish(ask.format(one.phrase, word, two.phrase), str(answer))


def _compare(draft: _Draft, rng: random.Random) -> PlanningTask | None:
    """Say which of two entities has the larger or the smaller number; a draw asks nothing."""
    last = rng.choice([r for r in RELATIONS if r.target == "number"])
    size = rng.choice(("larger", "smaller"))
    (one, first), (two, second) = (draft.walk(last, rng.choice((1, 2)))[-2:] for _ in range(2))
    options = f"{first.mark} for {one.mark}, or {second.mark} for {two.mark}"
    if first.value == second.value:
        return None
    draft.add(f"Choose the {size} number.", "LLM", f"Which is {size}: {options}?")
    answer = one if (int(first.value) > int(second.value)) == (size == "larger") else two
    word = {"larger": "later", "smaller": "earlier"}[size] if "year" in last.name else size
    return draft.finish(f"Which {last.source} has the {word} {last.name}, {one.phrase} or {two.phrase}?", answer.value)


def generate(world: World, count: int, rng: random.Random) -> list[PlanningTask]:
    """Draw ``count`` examples with different questions, none of which looks up the same fact twice."""
    examples: dict[str, PlanningTask] = {}
    while len(examples) < count:
        example = rng.choice((_chain, _arithmetic, _compare))(_Draft(world, rng), rng)
        if example is not None and len(set(example.facts)) == len(example.facts):
            examples.setdefault(example.question, example)
    return list(examples.values())


def built_in(count: int = 50, seed: int = 0, split: Literal["train", "test"] = "test") -> TaskSet:
    """Return the first `count` questions of a split of a seed, with the documents that answer them.

    Raises UsageError for a count outside 1 … 5,000.
    """
    if not 0 < count <= MAX_QUESTIONS:
        raise UsageError(f"{count} built-in tasks cannot be made", fix=f"ask for 1 to {MAX_QUESTIONS:,}")
    world = build_worlds(seed)[("train", "test").index(split)]
    tasks = tuple(generate(world, count, random.Random(f"{split}-{seed}")))
    name = f"built-in planning {split} (seed {seed})"
    return TaskSet(name, tasks, documents(world), built_in=True)
