"""The built-in prompts of a repair: enough, each its own, and none of anybody else's."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from s3lora.evaluate.planning.questions import built_in as built_in_questions
from s3lora.evaluate.prompts import built_in
from s3lora.evaluate.suites import SuiteSettings, build_suites
from s3lora.repair.build_data import repair_data
from tests.support import shared

#: Of the 3-grams of the shorter of two prompts, a share above this is a near duplicate.
NEAR = 0.6


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def grams(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + 3]) for i in range(len(found) - 2)}


def test_there_are_enough_of_each_kind() -> None:
    for kind in ("harmful", "benign"):
        data = built_in(kind, "repair")
        assert len(data) == 140
        assert [one.id for one in data.requests] == [f"repair-{kind}-{n:03}" for n in range(1, 141)]
    assert Counter(one.category for one in data.requests) == {"look-alike": 70, "everyday": 70}
    assert set(Counter(one.category for one in built_in("harmful", "repair").requests).values()) == {10}


def test_none_is_near_another() -> None:
    everything = [
        one.text
        for kind in ("harmful", "benign")
        for of in ("evaluate", "repair")
        for one in built_in(kind, of).requests
    ]
    assert len({" ".join(words(text)) for text in everything}) == len(everything) == 376
    shingles = [(text, grams(text)) for text in everything]
    near = [
        (one, other)
        for (one, a), (other, b) in combinations(shingles, 2)
        if a and b and len(a & b) > NEAR * min(len(a), len(b))
    ]
    assert not near
    assert grams("Tell me how to bake bread.") & grams("Show me how to bake rye."), "the measure sees what is shared"


def test_they_differ_in_wording() -> None:
    for kind in ("harmful", "benign"):
        openings = Counter(" ".join(words(one.text)[:2]) for one in built_in(kind, "repair").requests)
        assert len(openings) > 40
        assert max(openings.values()) < 140 / 3


def texts_of(path: Path) -> Iterator[str]:
    """Yield all texts of a data set that could be prompts, answers too."""
    rows: Any
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    else:
        content = path.read_bytes()
        rows = map(json.loads, (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines())
    yield from (value for row in rows for value in row.values() if isinstance(value, str))


def test_none_is_of_a_data_set() -> None:
    folder = shared() / "data"
    own = {one.text: grams(one.text) for kind in ("harmful", "benign") for one in built_in(kind, "repair").requests}
    holding: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for text, shingles in own.items():
        for gram in shingles:
            holding[gram].add(text)
    read = 0
    for text in (text for path in sorted(folder.iterdir()) for text in texts_of(path)):
        read += 1
        theirs = grams(text)
        shares = Counter(mine for gram in theirs for mine in holding.get(gram, ()))
        for mine, count in shares.items():
            # Of what is as short as "How do I drown?", most stands in any question.
            assert len(theirs) < 5 or count <= NEAR * min(len(theirs), len(own[mine])), (mine, text[:80])
    assert read > 5_000


@pytest.mark.parametrize(("learn", "tune", "test"), [(32, 50, 100), (6, 6, 6), (40, 60, 40), (300, 100, 100)])
def test_what_eval_asks_is_in_the_test_part_alone(learn: int, tune: int, test: int) -> None:
    data = repair_data(learn=learn, tune=tune, test=test, seed=3)
    for kind, name in (("harmful", "harmful"), ("benign", "harmless")):
        asked = {one.text for one in built_in(kind).requests}
        mine = [{one.text for one in getattr(part, name).requests} for part in (data.learning, data.tuning, data.test)]
        assert not asked & (mine[0] | mine[1])
        assert len(asked & mine[2]) == min(48, test)
    asked = {task.prompt for task in built_in_questions(50).tasks}
    [maths] = build_suites(SuiteSettings(names=("maths-loss",)))
    asked |= {prompt for prompt, _ in maths.pairs}  # type: ignore[attr-defined]
    assert len(asked) == 100
    assert not asked & {*data.learning.task.prompts, *data.tuning.task.prompts}
    if learn < 300:
        assert [len(part.task) for part in (data.learning, data.tuning, data.test)] == [learn, tune, test]


def test_by_default_all_parts_are_full() -> None:
    data = repair_data()
    for part, size in ((data.learning, 32), (data.tuning, 50), (data.test, 100)):
        assert [one.n for one in part.data] == [size] * 3
        assert all(one.built_in for one in part.data)
    assert len(data.notes) == 1, "only that one's own task data are better"
    assert "make a better repair" in data.notes[0]
    assert (data.fresh, data.second) == (None, None)


def test_the_built_in_task_is_mixed_evenly() -> None:
    data = repair_data(seed=1)
    for part, summaries in ((data.learning, 4), (data.tuning, 7), (data.test, 13)):
        kinds = Counter(
            "summaries" if prompt.messages[-1].content.startswith("Summarise") else
            "maths" if "####" in prompt.messages[-1].content else "planning"
            for prompt in part.task.prompts
        )  # fmt: skip
        assert kinds["summaries"] == summaries
        assert 0 <= kinds["planning"] - kinds["maths"] <= 1
        assert len(part.task.references) == len(part.task)
        # The tasks are mixed: a batch of the first few is not of one alone.
        assert len({len(prompt.messages) for prompt in part.task.prompts[:16]}) == 2


@pytest.mark.parametrize(("name", "mark"), [("planning", "Plan: "), ("maths", "####")])
def test_a_built_in_task_by_name(name: str, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = repair_data(task=name, second_task="mixed")
    assert all(mark in text for part in (data.learning, data.tuning, data.test) for text in part.task.references)
    assert data.second is not None
    assert not {*data.second.prompts} & {*data.test.task.prompts}
    # Of 100 mixed ones, 38 are the same plans or word problems.
    assert len(data.second) == 62
    assert data.notes == ("built-in mixed task: 38 prompts are in a part of the repair's task and are left out",)
    # A file of that name comes first.
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("".join(f"Ask {n} of the file.\n" for n in range(182)))
    assert not repair_data(task=name).learning.task.built_in
