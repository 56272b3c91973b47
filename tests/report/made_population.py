"""Surveys of populations that tests make up, without a dataset."""

from __future__ import annotations

import dataclasses
import math

from s3lora.fleet.populations.distributions import Distribution, Group
from s3lora.fleet.populations.standing import Mark
from s3lora.fleet.populations.survey import Census, Copies, Failure, Failures, Survey
from s3lora.fleet.populations.unusual import Ranking, UnusualAdapter, ZSpread
from s3lora.fleet.results.distinct import Recipe
from s3lora.fleet.results.outcome import Settings
from s3lora.measure.against import hindrance, together
from s3lora.measure.against import unusual as judged
from s3lora.spectrum.indices import INDICES

FAMILIES = ("llama-3", "mistral", "qwen-2.5", "gemma-2", "phi-3")
PROJECTIONS = ("v_proj", "q_proj", "down_proj", "o_proj")
#: Where the hill of an index lies.
MIDDLE = {"ssi": 0.2, "normalised_ssi": 0.1, "weighted_ssi": 0.02, "magnitude": 0.1, "stable_rank": 3.0}


def group(
    index: str, name: str, bins: tuple[int, int], *, shift: float = 0.0, joined: int = 1, size: int = 40
) -> Group:
    """Return a group whose histogram is a hill."""
    first, last = bins
    top = (first + last) / 2 + shift
    counts = tuple(int(size * 6 * math.exp(-(((i - top) / 6) ** 2))) for i in range(first, last))
    middle = INDICES[index].bins.edge(round(top))
    return Group(name, joined, size, sum(counts), middle * 0.5, middle * 0.9, middle, middle * 1.1, middle * 2, counts)


def distribution(
    index: str, families: tuple[str, ...] = FAMILIES, projections: tuple[str, ...] = PROJECTIONS
) -> Distribution:
    """Return an index in groups, the last family being that of many joined ones."""
    edges = INDICES[index].bins
    at = next(i for i in range(edges.count) if edges.edge(i + 1) > MIDDLE[index])
    bins = (max(at - 10, 0), at + 12)
    names = [(name, 1) for name in families] + [("", 7)]
    made = [group(index, name, bins, shift=i - 2, joined=joined) for i, (name, joined) in enumerate(names)]
    counts = tuple(map(sum, zip(*(one.counts for one in made), strict=True)))
    whole = dataclasses.replace(group(index, "all", bins, size=900), counts=counts, modules=sum(counts))
    return Distribution(
        index,
        INDICES[index].described,
        edges.scale,
        tuple(edges.edge(i) for i in range(bins[0], bins[1] + 1)),
        whole,
        tuple(made),
        tuple(group(index, name, bins, shift=(i - 2) / 2) for i, name in enumerate(projections)),
    )


def unusual(
    place: int, name: str, *, uri: str | None = None, level: int = 0, z: float | None = 4.0, adapters: int = 1234
) -> UnusualAdapter:
    """Return an adapter of the list, far out at the high end among as many of its kind."""
    sharp = Mark(0.5 + 0.01 * place, 99.7, 97.0, 99.9, z)
    median = Mark(0.21, 60.0, 50.0, 70.0, None if z is None else z / 4)
    words = ("same base family and rank band", "same rank band, of any base", "all adapters")[level]
    hindered = hindrance("ssi", level, (16, 16))
    verdict = together([judged(mark, adapters, hindered) for mark in (sharp, median)])
    return UnusualAdapter(
        place, uri or f"registry/{name}", name, "llama-3", 16, 224, place % 3, "model.layers.17.self_attn.q_proj",
        level, words, adapters, median, sharp, verdict, hindered,
    )  # fmt: skip


def ranking(most: tuple[UnusualAdapter, ...], **more: object) -> Ranking:
    """Return a ranking with these adapters in front."""
    edges = tuple(i / 2 - 10 for i in range(41))
    counts = tuple(int(2000 * math.exp(-(((i - 19.5) / 4) ** 2))) for i in range(39))
    values = {
        "index": "ssi", "meaning": INDICES["ssi"].described, "sharp": "high", "against": "population",
        "reference": "registry", "reference_adapters": 12_000, "adapters": 12_000, "coarser": 40, "alike": 3,
        "unusual": 21, "few": 400, "mixed": 40, "rank_one": 17,
        "spread": ZSpread(edges, (*counts, 2), (*counts, 9)), "most": most,
    }  # fmt: skip
    return Ranking(**{**values, **more})  # type: ignore[arg-type]


def population(name: str = "adapter", **more: object) -> Survey:
    """Return the survey of a population in which everything occurs; `name` stands wherever a foreign name does."""
    most = tuple(
        unusual(i, f"{name}-{i}" if name == "adapter" else name, level=i % 3, uri=f"registry/{name}/{i}",
                z=(-1) ** i * 14.0 / i)
        for i in range(1, 9)
    )  # fmt: skip
    other = () if name == "adapter" else (name,)
    values = {
        "name": "registry" if name == "adapter" else name,
        "settings": Settings(),
        "inputs": ("registry", *other),
        "complete": False,
        "census": Census(12_345, 12_300, 45, 12_050, 6, 12_000, 2_700_000, 2_690_000, 12, 3, 88_000_000_000, 10**12),
        "unusual": ranking(most),
        "distributions": tuple(
            distribution(index, (*FAMILIES, *other), (*PROJECTIONS, *other)) for index in MIDDLE
        ),
        "errors": (
            Failures("AdapterFile", 42, 0, tuple(Failure(f"registry/{name}/{i}", f"{name} is bad") for i in range(5))),
            Failures("Unreachable", 3, 3, (Failure(f"https://me:secret@host.org/{name}?key=signed", "no answer"),)),
        ),
        "skipped": {"base model": 4},
        "copied_groups": 30,
        "copies": (Copies("0" * 64, 9, 2, tuple(f"registry/{name}/{i}" for i in range(5))),),
        "recipes": (
            Recipe("llama-3", "q_proj+v_proj", 16, 32.0, 0.05, "true", 4000),
            Recipe(name[:60], name, 8, None, None, None, 20),
        ),
        "more_recipes": 17,
    }  # fmt: skip
    return Survey(**{**values, **more})  # type: ignore[arg-type]


def bare() -> Survey:
    """Return the survey of a dataset of errors alone."""
    return dataclasses.replace(
        population(), unusual=None, distributions=(), copies=(), copied_groups=0, recipes=(), more_recipes=0,
        complete=True, census=Census(3, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0), skipped={},
    )  # fmt: skip


def few() -> Survey:
    """Return the survey of a population too small for anything to be called unusual in it."""
    most = tuple(unusual(i, f"adapter-{i}", z=9.0 / i, adapters=60) for i in (1, 2, 3))
    found = ranking(most, adapters=60, reference_adapters=60, unusual=0, few=60, mixed=0, rank_one=0)
    return population(unusual=found)
