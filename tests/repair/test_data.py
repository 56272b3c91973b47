"""What a repair's data are made of: three disjoint parts of each kind, from files in any form and order."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s3lora
from s3lora.errors import S3LoRAError, UsageError
from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.data.draws import DataItem, clusters, halves, parts
from s3lora.evaluate.prompts import PromptSet, Request
from s3lora.repair.build_data import repair_data
from s3lora.repair.data import RepairData, RepairPart, TaskPrompts

Row = dict[str, Any]
ITEMS = st.lists(st.builds(DataItem, st.sampled_from("abcdefghijkl"), st.sampled_from(["", *"12345678"])), max_size=60)
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=4)
SMALL = {"learn": 6, "tune": 8, "test": 12}


def three(data: RepairData) -> tuple[RepairPart, RepairPart, RepairPart]:
    return data.learning, data.tuning, data.test


def lines(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("# prompts\n" + "".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def rows(path: Path, content: Sequence[Row]) -> Path:
    """Write rows in the form that the ending says."""
    names = path.name.removesuffix(".gz").rpartition(".")[2]
    if names == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(content)), path)
        return path
    if names == "csv":
        import io

        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, list(content[0]))
        writer.writeheader()
        writer.writerows(content)
        text = file.getvalue()
    elif names == "json":
        text = json.dumps(list(content))
    else:
        text = "".join(json.dumps(row) + "\n" for row in content)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@given(ITEMS, SIZES, st.integers(0, 9))
def test_parts_share_nothing_and_lose_nothing(items: list[DataItem], sizes: list[int], seed: int) -> None:
    found = parts(items, sizes, seed)
    assert len(found) == len(sizes)
    assert sorted(items[i].text for part in found for i in part) == sorted({item.text for item in items})
    for n, part in enumerate(found):
        others = [items[i] for other in found[n + 1 :] for i in other]
        assert not {items[i].text for i in part} & {item.text for item in others}
        assert not {items[i].id for i in part if items[i].id} & {item.id for item in others}
    # No part is ahead of another by more than what was dealt out last.
    most = max((len({items[i].text for i in cluster}) for cluster in clusters(items)), default=0)
    shares = [(len(part), size) for part, size in zip(found, sizes, strict=True)]
    assert all((n - most) / size <= m / other for n, size in shares for m, other in shares)


@given(st.integers(0, 60), SIZES, st.integers(0, 9))
def test_single_items_fill_the_sizes_first(n: int, sizes: list[int], seed: int) -> None:
    found = [len(part) for part in parts([DataItem(str(i)) for i in range(n)], sizes, seed)]
    assert sum(found) == n
    if n >= sum(sizes):
        assert all(have >= size for have, size in zip(found, sizes, strict=True))
    if n == sum(sizes):
        assert found == sizes


@given(ITEMS, st.integers(0, 9))
def test_halves_are_two_equal_parts(items: list[DataItem], seed: int) -> None:
    one, two = parts(items, (1, 1), seed)
    if two:
        assert halves(items, seed) == (one, two)
    assert parts(items, (1, 0, 1), seed) == [one, [], two], "a part of size 0 gets nothing"


TEXTS = st.lists(
    st.tuples(st.sampled_from([f"text {n}" for n in range(60)]), st.sampled_from(["", *map(str, range(40))])),
    min_size=40,
    max_size=120,
)


@settings(max_examples=15, deadline=None)
@given(data=st.data(), made=TEXTS, seed=st.integers(0, 3))
def test_the_same_file_in_another_order(
    data: st.DataObject, made: list[tuple[str, str]], seed: int, tmp_path: Path
) -> None:
    """All three kinds at once; the second file has the same rows, shuffled."""
    content = [{"prompt": text, "id": own, "reference": f"answer to {text}, {own}."} for text, own in made]
    shuffled = data.draw(st.permutations(content))
    found: list[RepairData | str] = []
    for order in (content, shuffled):
        harmful = rows(tmp_path / "h.jsonl", [{**row, "prompt": f"bad {row['prompt']}"} for row in order])
        task = rows(tmp_path / "t.jsonl", order)
        try:
            found.append(repair_data(harmful=harmful, task=task, seed=seed, learn=2, tune=3, test=5))
        except UsageError as error:
            found.append(error.problem)
    assert found[0] == found[1]
    if not isinstance(found[0], RepairData):
        assert "too few to tell anything" in found[0]
        return
    learning, tuning, test = three(found[0])
    for one, other in ((learning, tuning), (learning, test), (tuning, test)):
        for kind in ("harmful", "harmless"):
            mine, theirs = getattr(one, kind).requests, getattr(other, kind).requests
            assert not {r.text for r in mine} & {r.text for r in theirs}
            assert not {r.id for r in mine if r.id} & {r.id for r in theirs}
        assert not {*one.task.prompts} & {*other.task.prompts}
        assert not {own for own in one.task.ids if own} & {*other.task.ids}
    for part, size in ((learning, 2), (tuning, 3), (test, 5)):
        assert 0 < len(part.harmful) <= size
        assert len(part.task.references) == len(part.task.ids) == len(part.task) <= size
        for prompt, text in zip(part.task.prompts, part.task.references, strict=True):
            assert text.startswith(f"answer to {prompt.messages[-1].content}, ")


def test_the_seed_decides(tmp_path: Path) -> None:
    file = lines(tmp_path / "h.txt", [f"Do the bad thing {n}." for n in range(400)])
    cut = [repair_data(harmful=file, seed=seed) for seed in (0, 0, 1)]
    assert cut[0] == cut[1]
    assert cut[0].test.harmful != cut[2].test.harmful
    assert cut[0].learning.task != cut[2].learning.task
    assert [len(part.harmful) for part in three(cut[2])] == [32, 50, 100]


def test_a_small_file_is_cut_in_proportion(tmp_path: Path) -> None:
    file = lines(tmp_path / "few.txt", [f"Bad thing {n}" for n in range(91)])
    data = repair_data(harmful=file)
    assert [len(part.harmful) for part in three(data)] == [16, 25, 50]
    assert [len(part.harmless) for part in three(data)] == [32, 50, 100]
    assert data.notes[0] == (
        "few.txt: 91 different harmful prompts make 16 to learn from, 25 to tune on, 50 to test on, instead of 32, 50 "
        "and 100"
    )


@pytest.mark.parametrize("option", ["harmful", "harmless", "task"])
def test_too_few_say_what_is_enough(option: str, tmp_path: Path) -> None:
    texts = [f"Thing number {n}" for n in range(54)]
    too_few: Any = {option: lines(tmp_path / "few.txt", texts[:-1])}
    with pytest.raises(UsageError) as caught:
        repair_data(**too_few)
    assert str(caught.value) == (
        f"few.txt: 53 different {option} prompts make 9 to learn from, 15 to tune on, 29 to test on, too few to tell "
        f"anything; give at least 54 for {option}=, or none to use those that are built in"
    )
    enough: Any = {option: lines(tmp_path / "few.txt", texts)}
    repair_data(**enough)


def test_cases_of_few_behaviours_are_too_few(tmp_path: Path) -> None:
    content = [{"test_case": f"way {n} of {n % 20}", "behavior_id": f"b{n % 20}"} for n in range(400)]
    with pytest.raises(
        UsageError, match=r"h\.jsonl: \d+ different harmful prompts of 20 identifiers make .* give at least"
    ):
        repair_data(harmful=rows(tmp_path / "h.jsonl", content))


def test_sizes_of_ones_own(tmp_path: Path) -> None:
    for wrong in ({"learn": 0}, {"tune": -1}, {"test": 0}):
        with pytest.raises(UsageError, match="leave one empty; give at least 1"):
            repair_data(**wrong)  # type: ignore[arg-type]
    # Who asks for fewer than ten gets fewer.
    data = repair_data(harmful=lines(tmp_path / "h.txt", [f"Bad thing {n}" for n in range(8)]), learn=1, tune=2, test=5)
    assert [len(part.harmful) for part in three(data)] == [1, 2, 5]
    assert [len(part.task) for part in three(data)] == [1, 2, 5]
    assert not [note for note in data.notes if "instead of" in note]


def test_a_prompt_of_both_kinds_is_an_error(tmp_path: Path) -> None:
    bad = [f"Bad thing {n}" for n in range(60)]
    harmful = lines(tmp_path / "h.txt", bad)
    harmless = lines(tmp_path / "b.txt", [*(f"Good thing {n}" for n in range(60)), "bad  THING 7", "Bad thing 9"])
    with pytest.raises(UsageError) as caught:
        repair_data(harmful=harmful, harmless=harmless)
    assert "2 prompts of b.txt are both harmless and, in h.txt, harmful; the first is: " in str(caught.value)
    assert "take them out" in str(caught.value)
    # Beside what is built in, too.
    with pytest.raises(UsageError, match=r"1 prompts of built-in benign are both harmless and, in h\.txt, harmful"):
        repair_data(harmful=lines(tmp_path / "h.txt", [*bad, "Why is the sky blue?"]))


def test_task_prompts_of_another_kind_are_left_out(tmp_path: Path) -> None:
    file = lines(tmp_path / "t.txt", ["why is the sky blue?", *(f"Do task {n}" for n in range(182))])
    data = repair_data(task=file)
    assert sum(len(part.task) for part in three(data)) == 182
    assert data.notes == ("t.txt: 1 prompts are among the harmful or harmless ones and are left out",)
    assert not any("sky" in prompt.messages[-1].content for part in three(data) for prompt in part.task.prompts)


def test_fresh_prompts(tmp_path: Path) -> None:
    bad = [f"Bad thing {n}" for n in range(182)]
    harmful = lines(tmp_path / "h.txt", bad)
    fresh = lines(tmp_path / "f.txt", [*(text.upper() for text in bad[:5]), *(f"Other thing {n}" for n in range(12))])
    data = repair_data(harmful=harmful, fresh=fresh)
    assert data.fresh is not None
    assert sorted(request.text[:5] for request in data.fresh.requests) == ["Other"] * 12
    assert "f.txt: 5 prompts are in a part of the repair's data and are left out" in data.notes
    drawn = repair_data(harmful=harmful, fresh=fresh, **SMALL)
    assert drawn.fresh is not None
    assert len(drawn.fresh) == 12, "as many as the test part at most"
    with pytest.raises(UsageError, match=r"f\.txt: fresh= holds no prompt that .*; give prompts of another source"):
        repair_data(harmful=harmful, fresh=lines(fresh, bad[:5]))


def test_a_second_task(tmp_path: Path) -> None:
    task = rows(tmp_path / "t.jsonl", [{"prompt": f"Do {n}", "completion": f"Done {n}"} for n in range(182)])
    other = rows(tmp_path / "o.csv", [{"wording": f"Do {n}", "reference": f"Else {n}"} for n in range(170, 200)])
    data = repair_data(
        task=task, second_task=other, prompt_fields=["second-task:wording"], where=["task:prompt!=Do 175"]
    )
    assert data.second is not None
    # One of the twelve that both files have was not chosen for the task.
    assert len(data.second) == 19
    assert {text[:4] for text in data.second.references} == {"Else"}
    assert "o.csv: 11 prompts are in a part of the repair's task and are left out" in data.notes
    assert repair_data(task=task, second_task="maths", **SMALL).second is not None
    with pytest.raises(UsageError, match="second_task= holds no prompt that the repair's own data do not hold"):
        repair_data(task=task, second_task=task)


def test_rows_are_chosen_for_one_input_or_all(tmp_path: Path) -> None:
    content = [
        {"ask": f"{'Bad' if n % 2 else 'Good'} thing {n}", "label": "unsafe" if n % 2 else "safe"} for n in range(400)
    ]
    both = rows(tmp_path / "both.csv", content)
    data = repair_data(harmful=both, harmless=both, prompt_fields=["ask"])
    for part in three(data):
        assert {request.text.split()[0] for request in part.harmful.requests} == {"Bad"}
        assert {request.text.split()[0] for request in part.harmless.requests} == {"Good"}
    chosen = repair_data(
        harmful=both, harmless=both, prompt_fields=["harmful:ask", "harmless:ask"], where=["harmless:label=safe"]
    )
    assert chosen.learning.harmless.requests == data.learning.harmless.requests
    for wrong, problem in (
        ({"where": ["harmless:label=safe"]}, "where=harmless:label=safe does nothing without harmless="),
        ({"where": ["label=safe"], "task": "planning"}, "does nothing without a file of one's own"),
        ({"harmful": both, "prompt_fields": ["harmful:text"]}, "has no column text"),
    ):
        with pytest.raises(S3LoRAError, match=problem):
            repair_data(**wrong)  # type: ignore[arg-type]


def test_a_file_that_is_not_there() -> None:
    for option in ("harmful", "harmless", "task", "fresh", "second_task"):
        missing: Any = {option: "nowhere.csv"}
        with pytest.raises(S3LoRAError, match=r"nowhere\.csv: cannot be read"):
            repair_data(**missing)


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "jsonl.gz", "csv.gz", "parquet"])
def test_all_forms_give_the_same(form: str, tmp_path: Path) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    bad = [{"prompt": f"Bad thing {n}", "category": "c"} for n in range(90)]
    good = [{"prompt": f"Good thing {n}"} for n in range(90)]
    task = [{"prompt": f"Task {n}", "reference": f"Done {n}"} for n in range(90)]
    found = []
    for ending in ("jsonl", form):
        for content in (bad, good, task):
            random.Random(ending).shuffle(content)
        data = repair_data(
            harmful=rows(tmp_path / f"h.{ending}", bad),
            harmless=rows(tmp_path / f"b.{ending}", good),
            task=rows(tmp_path / f"t.{ending}", task),
        )
        found.append([one.sha256 for part in three(data) for one in part.data])
        assert [one.n for one in data.test.data] == [49, 49, 49]
        assert data.test.task.references
    assert found[0] == found[1]


def test_a_part_tells_its_data() -> None:
    task = TaskPrompts("t", (Prompt.ask("a"), Prompt.ask("b", "s"), Prompt.ask("c")), ("1", "2", "3"), ("x", "y", "z"))
    harmful = PromptSet("h", (Request("a"),))
    part = RepairPart(harmful, PromptSet("b", (Request("b"),), built_in=True), task)
    assert [(one.name, one.n, one.built_in) for one in part.data] == [("h", 1, False), ("b", 1, True), ("t", 3, False)]
    assert part.data[0].sha256 == harmful.sha256
    some = task.subset([2, 0, 2])
    assert (some.references, some.ids, len(some)) == (("1", "3"), ("x", "z"), 2)
    assert some.prompts == (Prompt.ask("a"), Prompt.ask("c"))
    bare = TaskPrompts("t", task.prompts)
    assert (bare.subset([1]).references, bare.subset([1]).ids) == ((), ())
    # What is asked, what is answered and who speaks all count; identifiers and the name do not.
    assert len({task.sha256, bare.sha256, some.sha256, TaskPrompts("t", task.prompts, ("1", "2", "4")).sha256}) == 4
    assert TaskPrompts("u", task.prompts, task.references).sha256 == task.sha256
    assert task.ordered() == task.at([2, 1, 0]).ordered()


def test_it_is_public() -> None:
    assert s3lora.repair_data is repair_data
    assert s3lora.RepairData is RepairData
