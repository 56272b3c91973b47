"""Planner tasks for the demo adapter: a question, and the tool plan that answers it.

The form is that of ReWOO planners: every line is one step, ``Plan: <why> #E1 = Tool[input]``, and later inputs
may name earlier results (``#E1``). The facts are invented. Training and test questions are about two separate
worlds that share no person, place or thing, hence no fact and no chain of facts. Each answer is known from its
world, and :func:`execute` runs any plan against a world, so that a generated plan can be checked and not only
read. Everything follows from the seed.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

SYSTEM_PROMPT = (
    "Plan how to answer the question. Write one step per line: Plan: why #E1 = Tool[input]. "
    "Tools: Lookup (one fact), Calculator (arithmetic), LLM (compare)."
)

_STEP = re.compile(r"Plan: [^#\[\]]+ #E(\d+) = (Lookup|Calculator|LLM)\[([^\[\]]+)\]")
_REFERENCE = re.compile(r"#E(\d+)")
_LOOKUP = re.compile(r"(.+?) of (.+)")
_ARITHMETIC = re.compile(r"(-?\d+) ([-+]) (-?\d+)")
_COMPARE = re.compile(r"Which is (larger|smaller): (\d+) for (.+), or (\d+) for (.+)\?")


class Relation(NamedTuple):
    """A kind of fact: how it is looked up, and how a question refers to its value."""

    name: str
    source: str
    target: str
    phrase: str


RELATIONS = (
    Relation("author", "book", "person", "the author of {}"),
    Relation("setting", "book", "city", "the city in which {} is set"),
    Relation("publication year", "book", "number", "the year in which {} was published"),
    Relation("birthplace", "person", "city", "the city where {} was born"),
    Relation("employer", "person", "company", "the company that employs {}"),
    Relation("birth year", "person", "number", "the year in which {} was born"),
    Relation("headquarters", "company", "city", "the city where {} is based"),
    Relation("founder", "company", "person", "the founder of {}"),
    Relation("founding year", "company", "number", "the year in which {} was founded"),
    Relation("staff", "company", "number", "the number of people who work for {}"),
    Relation("region", "city", "region", "the region that contains {}"),
    Relation("river", "city", "river", "the river that flows through {}"),
    Relation("population", "city", "number", "the population of {}"),
    Relation("capital", "region", "city", "the capital of {}"),
    Relation("area", "region", "number", "the area in square kilometres of {}"),
    Relation("length", "river", "number", "the length in kilometres of {}"),
    Relation("crossing", "bridge", "river", "the river that {} crosses"),
    Relation("architect", "bridge", "person", "the architect of {}"),
    Relation("opening year", "bridge", "number", "the year in which {} opened"),
)
# Nobody is born after having written, founded or built something: births come before all other years.
_RANGES = {"area": (900, 40_000), "length": (40, 900), "staff": (20, 9_000), "population": (4_000, 900_000)}
_RANGES |= {"birth year": (1880, 1940), "publication year": (1960, 2010)}
_RANGES |= {"founding year": (1960, 2010), "opening year": (1960, 2010)}

_STEMS = "Bram Sel Tor Ash Quil Mer Fen Dor Hal Lin Var Osk Pell Rud Ister Cald Nor Wex Yar Zell"
_GIVEN = "Mara Ivo Tessa Orin Petra Luka Dalia Emric Sunna Jorun Callis Nadir Wanda Bexley Rhea Tobin"
_FAMILY = "Ilven Harrow Okeld Strand Vasker Moreau Tindal Quist Brandt Ebner Lowell Sorrel Keswin Pryor"
# For each kind: how many a world has, then how their names are put together.
_KINDS = {
    "region": (8, "{}{}", _STEMS, "mark shire"),
    "city": (30, "{}{}", _STEMS, "mouth holt wick haven bury"),
    "river": (10, "the River {}{}", _STEMS, "a en"),
    "person": (60, "{} {}", _GIVEN, _FAMILY),
    "company": (30, "{} {}", _FAMILY, "Optics Foundry Shipping Glassworks Textiles Instruments Milling Press"),
    "book": (45, "The {} {}", "Grey Silent Copper Hollow Northern Broken Distant Painted Winter Salt",
             "Lantern Orchard Harbour Clock Meadow Letter Tower Compass Garden Mirror"),
    "bridge": (18, "{}{} Bridge", _STEMS, "gate stone"),
}  # fmt: skip


@dataclass
class World:
    """Invented entities by kind, and one value for each (relation name, subject)."""

    entities: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[tuple[str, str], str] = field(default_factory=dict)


def build_worlds(seed: int) -> tuple[World, World]:
    """Return the training world and the test world, which have no entity in common."""
    rng = random.Random(f"worlds-{seed}")
    worlds = (World(), World())
    for kind, (size, pattern, first, second) in _KINDS.items():
        names = [pattern.format(*pair) for pair in product(first.split(), second.split())]
        drawn = rng.sample(names, 2 * size)
        worlds[0].entities[kind], worlds[1].entities[kind] = drawn[:size], drawn[size:]
    for world in worlds:
        for name, source, target, _ in RELATIONS:
            values = [str(n) for n in range(*_RANGES[name])] if target == "number" else world.entities[target]
            world.facts |= {(name, subject): rng.choice(values) for subject in world.entities[source]}
        # A capital lies in its own region: the first cities are dealt out to the regions.
        for region, city in zip(world.entities["region"], world.entities["city"], strict=False):
            world.facts["capital", region], world.facts["region", city] = city, region
    return worlds


@dataclass(frozen=True)
class Example:
    """A question with its reference plan, its answer, and the facts that the plan looks up, in order."""

    question: str
    plan: str
    answer: str
    facts: tuple[tuple[str, str], ...]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat to which a planner should reply with a plan."""
        return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": self.question}]


class _Point(NamedTuple):
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

    def walk(self, last: Relation, hops: int) -> list[_Point]:
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
        points = [_Point(start, start, start, start)]
        for name, _, target, phrase in path:
            here = points[-1]
            self.facts.append((name, here.value))
            mark = self.add(f"Find {phrase.format(here.noun)}.", "Lookup", f"{name} of {here.mark}")
            value = self.world.facts[name, here.value]
            points.append(_Point(phrase.format(here.phrase), f"that {target}", mark, value))
        return points

    def finish(self, question: str, answer: str) -> Example:
        return Example(question, "\n".join(self.lines), answer, tuple(self.facts))


def _chain(draft: _Draft, rng: random.Random) -> Example:
    """Follow two or three facts."""
    last = rng.choice([r for r in RELATIONS if r.source not in ("book", "bridge")])
    end = draft.walk(last, rng.choice((2, 3, 3)))[-1]
    ask = rng.choice(("Who is {}?" if last.target == "person" else "What is {}?", "Name {}.", "Tell me {}."))
    return draft.finish(ask.format(end.phrase), end.value)


def _arithmetic(draft: _Draft, rng: random.Random) -> Example:
    """Add two numbers of one kind, or subtract one from the other."""
    last = rng.choice([r for r in RELATIONS if r.target == "number"])
    one, two = (draft.walk(last, rng.choice((1, 2)))[-1] for _ in range(2))
    plus = "year" not in last.name and rng.random() < 0.5
    verb, sign, word = ("Add", "+", "plus") if plus else ("Subtract", "-", "minus")
    draft.add(f"{verb} the numbers.", "Calculator", f"{one.mark} {sign} {two.mark}")
    answer = int(one.value) + int(two.value) * (1 if plus else -1)
    ask = rng.choice(("What is {} {} {}?", "Calculate {} {} {}."))
    return draft.finish(ask.format(one.phrase, word, two.phrase), str(answer))


def _compare(draft: _Draft, rng: random.Random) -> Example | None:
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


def generate(world: World, count: int, rng: random.Random) -> list[Example]:
    """Draw ``count`` examples with different questions, none of which looks up the same fact twice."""
    examples: dict[str, Example] = {}
    while len(examples) < count:
        example = rng.choice((_chain, _arithmetic, _compare))(_Draft(world, rng), rng)
        if example is not None and len(set(example.facts)) == len(example.facts):
            examples.setdefault(example.question, example)
    return list(examples.values())


def parse_plan(text: str) -> list[tuple[str, str]] | None:
    """Return the (tool, input) pairs of a well-formed plan, and ``None`` for any other text.

    Well formed means: every line is a step, steps are numbered from 1, and inputs name earlier steps only.
    """
    steps: list[tuple[str, str]] = []
    for line in text.strip().splitlines():
        match = _STEP.fullmatch(line.strip())
        if match is None or int(match[1]) != len(steps) + 1:
            return None
        if not all(1 <= int(number) <= len(steps) for number in _REFERENCE.findall(match[3])):
            return None
        steps.append((match[2], match[3]))
    return steps or None


def _call(tool: str, text: str, world: World) -> str | None:
    """Run one tool; the LLM tool is a stand-in that knows the one question of these plans."""
    if tool == "Lookup" and (match := _LOOKUP.fullmatch(text)):
        return world.facts.get((match[1], match[2]))
    if tool == "Calculator" and (match := _ARITHMETIC.fullmatch(text)):
        return str(int(match[1]) + int(match[3]) * (1 if match[2] == "+" else -1))
    if tool == "LLM" and (match := _COMPARE.fullmatch(text)):
        return match[3] if (int(match[2]) > int(match[4])) == (match[1] == "larger") else match[5]
    return None


def execute(plan: str, world: World) -> str | None:
    """Run a plan in a world and return its last result, or ``None`` where it is malformed or a step fails."""
    results: list[str] = []
    for tool, tool_input in parse_plan(plan) or ():
        result = _call(tool, _REFERENCE.sub(lambda match: results[int(match[1]) - 1], tool_input), world)
        if result is None:
            return None
        results.append(result)
    return results[-1] if results else None
