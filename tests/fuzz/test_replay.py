"""Every target in the default suite: what was found once, and some hundred seeded mutations, without atheris."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.contract import check, emptied, work_folder
from tests.fuzz.mutate import mutated
from tests.fuzz.session import CORPUS, known
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("part", [3, pytest.param(1, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_once_and_mutations_of_it(name: str, part: int) -> None:
    target = TARGETS[name]
    if missing := target.missing():
        pytest.skip(f"{missing} is not installed")
    with work_folder() as work:
        inputs = known(target)
        accepted = [check(target, data, emptied(work / "input")) for data in inputs]
        assert any(accepted), "where nothing valid is tried, only the first check is"
        draw = random.Random(name)
        for _ in range(target.quick // part):
            data = mutated(draw, inputs, target.words)
            try:
                check(target, data, emptied(work / "input"))
            except BaseException:
                print(f"the input was {data!r}")
                raise


def test_the_corpus_is_of_targets_and_small() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} <= TARGETS.keys()
    assert all(path.parent.parent == CORPUS for path in files)
    assert sum(path.stat().st_size for path in files) < 256 * 1024
