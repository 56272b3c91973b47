from __future__ import annotations

import random
from collections import Counter

import pytest

from experiments.comparing import ComparingModel, compare
from s3lora.errors import UsageError
from s3lora.evaluate.chat import Decoding, Prompt, digest_of
from s3lora.evaluate.planning.facts import World, build_worlds, documents
from s3lora.evaluate.planning.lookup import Lookup
from s3lora.evaluate.planning.plan import read_plan
from s3lora.evaluate.planning.questions import built_in, generate
from s3lora.evaluate.planning.tasks import SYSTEM_PROMPT
from tests.evaluate.planning.planners import parse_plan

#: Taken before the generator became a part of the package: the demo adapter was trained on what it makes.
SYSTEM_DIGEST = "b95e98cda82c4912f8b4761ee123a49be4102afc680dfd7290379183e10730d6"
DIGESTS = {
    (0, 1280): "ba9fc1a64dd692cf024d7b5aa455bbe9925fd9e0a1d3211029ff76ee093a64f6",
    (1, 100): "a41317081c2d014db5046209f5ab67086810e9ec3d279df1efef78c7572d19ab",
    (2, 100): "bd403b6e17442bcf4abd95c3fd2b8526cd5ed7bd58136610a53085a8cf176d4b",
    (7, 100): "eb7e0c09d9bb4c1160f8cceb1938a1672353eb3de01700ccc2f63e3f8fb0cd8d",
    (12345, 100): "c1134742ab684211e355bf5c0059b1ad4553b19f6af62420bf42a5ab82e4542e",
}


def digest(seed: int, count: int) -> str:
    rows: list[object] = []
    for name, world in zip(("train", "test"), build_worlds(seed), strict=True):
        rows.append([world.entities, [[*key, value] for key, value in world.facts.items()]])
        rng = random.Random(f"{name}-{seed}")
        rows += [
            [e.question, e.plan, *e.answers, [list(f) for f in e.facts], e.prompt.as_dicts()]
            for e in generate(world, count, rng)
        ]
        rows.append(str(rng.random()))
    return digest_of(rows)


@pytest.mark.parametrize(("seed", "count"), DIGESTS)
def test_the_questions_are_those_of_the_demo_adapter(seed: int, count: int) -> None:
    assert digest(seed, count) == DIGESTS[seed, count]


def test_the_prompt_is_that_of_the_demo_adapter() -> None:
    assert digest_of(SYSTEM_PROMPT) == SYSTEM_DIGEST
    task = built_in(1).tasks[0]
    assert task.prompt.as_dicts() == [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": task.question},
    ]


@pytest.mark.parametrize("seed", [0, 3])
def test_training_and_test_share_no_fact(seed: int) -> None:
    train, test = built_in(300, seed, "train"), built_in(300, seed, "test")
    assert not {fact for task in train.tasks for fact in task.facts} & {
        fact for task in test.tasks for fact in task.facts
    }
    assert not {document.title for document in train.documents} & {document.title for document in test.documents}
    assert not {task.question for task in train.tasks} & {task.question for task in test.tasks}


def test_reference_plans_are_in_form_and_name_their_facts() -> None:
    for task in built_in(300).tasks:
        strict, lenient = parse_plan(task.plan), read_plan(task.plan)
        assert strict == [(step.tool, step.input) for step in lenient.steps]
        assert lenient.well_formed
        assert sum(tool == "Lookup" for tool, _ in strict or ()) == len(task.facts) == len(set(task.facts))


def test_documents_tell_every_fact_and_nothing_else() -> None:
    for world in build_worlds(5):
        lookup = Lookup(documents(world))
        assert all(lookup(f"{name} of {subject}") == value for (name, subject), value in world.facts.items())
        assert Counter(line for d in documents(world) for line in d.text.splitlines()).total() == len(world.facts)
    assert documents(World()) == ()


def test_a_larger_set_begins_with_the_smaller() -> None:
    assert built_in(80).tasks[:50] == built_in().tasks
    assert len(built_in()) == 50


@pytest.mark.parametrize("count", [0, -1, 5_001])
def test_counts_that_cannot_be_made(count: int) -> None:
    with pytest.raises(UsageError, match="cannot be made"):
        built_in(count)


def test_a_part_has_its_own_digest_and_all_documents() -> None:
    tasks = built_in()
    part = tasks.subset([7, 3, 7])
    assert part.tasks == (tasks.tasks[3], tasks.tasks[7])
    assert part.sha256 != tasks.sha256 == built_in().sha256
    assert part.documents == tasks.documents


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Which is larger: 12 for Torholt, or 7 for Selwick?", "Torholt"),
        ("Which is smaller: 12 for Torholt, or 7 for Selwick?", "Selwick"),
        ("Which is larger: 7 for a, or 12 for b?", "b"),
        ("Which is larger: no result for a, or 12 for b?", None),
        ("Which is larger: " + "9" * 5_000 + " for a, or 12 for b?", None),
        ("Who is it?", None),
        ("", None),
    ],
)
def test_comparing(text: str, answer: str | None) -> None:
    assert compare(text) == answer
    model = ComparingModel()
    [(i, generation)] = model.generate([Prompt.ask(text, "system")], Decoding())
    assert (i, generation.text) == (0, answer or "")
    assert model.batches([], Decoding()) == []
