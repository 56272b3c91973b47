"""Invented worlds: facts that no model has read of, two worlds a seed that have no entity in common."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from s3lora.evaluate.planning.documents import Document


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
            values: Sequence[object] = range(*_RANGES[name]) if target == "number" else world.entities[target]
            world.facts |= {(name, subject): str(rng.choice(values)) for subject in world.entities[source]}
        # A capital lies in its own region: the first cities are dealt out to the regions.
        for region, city in zip(world.entities["region"], world.entities["city"], strict=False):
            world.facts["capital", region], world.facts["region", city] = city, region
    return worlds


def documents(world: World) -> tuple[Document, ...]:
    """Return what is known in a world: a document an entity, with a line `relation: value` a fact."""
    lines: dict[str, list[str]] = {}
    for (relation, subject), value in world.facts.items():
        lines.setdefault(subject, []).append(f"{relation}: {value}")
    return tuple(Document(subject, "\n".join(facts)) for subject, facts in lines.items())
