"""Word problems with one number as the answer: from ten templates of our own, with the working in words.

Everything follows from the seed. Names, things and numbers are drawn; numbers are such that no step leaves the whole
numbers or goes below zero.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from s3lora.errors import UsageError
from s3lora.evaluate.chat import Prompt, digest_of
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.draws import DataItem
from s3lora.evaluate.maths.numbers import final_number
from s3lora.evaluate.references import ReferenceSet
from s3lora.wording import worded

#: Beyond this, drawing a problem that was not drawn before takes ever longer.
MAX_PROBLEMS = 5_000
ASK = "{question}\n\nThink in short steps, and end with a line that holds #### and the number alone."

NAMES = ("Ada", "Ben", "Chidi", "Dana", "Emre", "Femi", "Greta", "Hana", "Ivo", "Jun", "Kofi", "Lena", "Mira", "Noor")
THINGS = ("apples", "books", "buttons", "candles", "marbles", "pencils", "plates", "shells", "stamps", "tickets")


@dataclass(frozen=True, slots=True)
class WordProblem:
    """A question, its answer, and the worked answer that ends with it, empty where the source has none."""

    question: str
    answer: Fraction
    worked: str = ""
    id: str = ""

    @property
    def prompt(self) -> Prompt:
        """Return the question as it is asked."""
        return Prompt.ask(ASK.format(question=self.question))


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """Problems in the order of their source."""

    name: str
    problems: tuple[WordProblem, ...]
    built_in: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return how many problems there are."""
        return len(self.problems)

    @property
    def sha256(self) -> str:
        """Return a digest of questions, answers and workings."""
        return digest_of([[p.question, str(p.answer), p.worked] for p in self.problems])

    @property
    def items(self) -> list[DataItem]:
        """Return what draws and halves go by."""
        return [DataItem(problem.prompt.digest, problem.id) for problem in self.problems]

    def subset(self, positions: Iterable[int]) -> ProblemSet:
        """Return the problems at these positions, in the order of the source."""
        return replace(self, problems=tuple(self.problems[i] for i in sorted(set(positions))))


#: A question, its working, and the answer.
_ProblemDraft = tuple[str, str, int]


def _bought(who: str, what: str, r: random.Random) -> _ProblemDraft:
    boxes, each, gone = r.randint(2, 9), r.randint(3, 12), r.randint(2, 5)
    left = boxes * each - gone
    return (
        f"{who} buys {boxes} boxes with {each} {what} each and gives {gone} {what} away. How many {what} are left?",
        f"{boxes} boxes hold {boxes} * {each} = {boxes * each} {what}. {boxes * each} - {gone} = {left} are left.",
        left,
    )


def _shared(who: str, what: str, r: random.Random) -> _ProblemDraft:
    people, each = r.randint(3, 8), r.randint(4, 15)
    return (
        f"{who} has {people * each} {what} and shares them equally among {people} people. How many does each get?",
        f"{people * each} / {people} = {each}.",
        each,
    )


def _paid(who: str, what: str, r: random.Random) -> _ProblemDraft:
    count, price = r.randint(3, 12), r.randint(2, 9)
    note = (count * price // 50 + 1) * 50
    return (
        f"{who} buys {count} {what} at ${price} each and pays with ${note}. How many dollars are the change?",
        f"The {what} cost {count} * {price} = {count * price} dollars. The change is {note} - {count * price} = "
        f"{note - count * price} dollars.",
        note - count * price,
    )


def _twice(who: str, what: str, r: random.Random) -> _ProblemDraft:
    first, times, more = r.randint(5, 30), r.randint(2, 4), r.randint(3, 20)
    second = first * times + more
    return (
        f"{who} has {first} {what}. A friend has {more} more than {times} times as many. "
        f"How many {what} do both have together?",
        f"The friend has {times} * {first} + {more} = {second} {what}. Together they have {first} + {second} = "
        f"{first + second}.",
        first + second,
    )


def _walked(who: str, _: str, r: random.Random) -> _ProblemDraft:
    days, there, extra = r.randint(3, 10), r.randint(2, 9), r.randint(1, 8)
    return (
        f"{who} walks {there} km to work and {there} km back on {days} days, and {extra} km on Sunday. "
        f"How many km are that in all?",
        f"A day is {there} + {there} = {2 * there} km. {days} days are {days} * {2 * there} = {days * 2 * there} km. "
        f"{days * 2 * there} + {extra} = {days * 2 * there + extra}.",
        days * 2 * there + extra,
    )


def _saved(who: str, _: str, r: random.Random) -> _ProblemDraft:
    weekly, spent, weeks = r.randint(6, 20), r.randint(2, 5), r.randint(3, 12)
    return (
        f"{who} earns ${weekly} a week and spends ${spent} of it. How many dollars are saved in {weeks} weeks?",
        f"A week saves {weekly} - {spent} = {weekly - spent} dollars. {weeks} * {weekly - spent} = "
        f"{weeks * (weekly - spent)}.",
        weeks * (weekly - spent),
    )


def _percent(who: str, what: str, r: random.Random) -> _ProblemDraft:
    percent, hundreds = r.choice((10, 20, 25, 30, 40, 60, 75)), r.randint(2, 12) * 20
    gone = hundreds * percent // 100
    return (
        f"{who} has {hundreds} {what} and sells {percent}% of them. How many {what} are kept?",
        f"{percent}% of {hundreds} are {hundreds} * {percent} / 100 = {gone}. {hundreds} - {gone} = {hundreds - gone}.",
        hundreds - gone,
    )


def _minutes(who: str, what: str, r: random.Random) -> _ProblemDraft:
    each, count, pause = r.randint(4, 15), r.randint(3, 9), r.randint(5, 20)
    return (
        f"{who} needs {each} minutes to paint one of {count} {what}, and rests {pause} minutes once. "
        f"How many minutes does it take to paint them all?",
        f"Painting takes {count} * {each} = {count * each} minutes. {count * each} + {pause} = {count * each + pause}.",
        count * each + pause,
    )


def _ages(who: str, _: str, r: random.Random) -> _ProblemDraft:
    age, gap, years = r.randint(5, 15), r.randint(20, 35), r.randint(2, 12)
    return (
        f"{who} is {age} years old, and an uncle is {gap} years older. How old is the uncle in {years} years?",
        f"The uncle is {age} + {gap} = {age + gap} now. In {years} years he is {age + gap} + {years} = "
        f"{age + gap + years}.",
        age + gap + years,
    )


def _rows(who: str, what: str, r: random.Random) -> _ProblemDraft:
    rows, each, broken = r.randint(4, 12), r.randint(5, 12), r.randint(1, 9)
    whole = rows * each - broken
    pairs = whole // 2
    return (
        f"{who} sets up {rows} rows of {each} {what}. {broken} break. How many whole pairs can be made of the rest?",
        f"There were {rows} * {each} = {rows * each} {what}. {rows * each} - {broken} = {whole} are whole, which make "
        f"{pairs} pairs.",
        pairs,
    )


TEMPLATES: tuple[Callable[[str, str, random.Random], _ProblemDraft], ...] = (
    _bought, _shared, _paid, _twice, _walked, _saved, _percent, _minutes, _ages, _rows
)  # fmt: skip


def built_in_problems(count: int = 50, seed: int = 0) -> ProblemSet:
    """Return the first `count` problems of a seed; a larger count begins with the smaller.

    Raises UsageError for a count outside 1 … 5,000.
    """
    if not 0 < count <= MAX_PROBLEMS:
        raise UsageError(f"{count} built-in problems cannot be made", fix=f"ask for 1 to {MAX_PROBLEMS:,}")
    drawn = random.Random(f"maths-{seed}")
    found: dict[str, WordProblem] = {}
    while len(found) < count:
        template = TEMPLATES[len(found) % len(TEMPLATES)]
        question, working, answer = template(drawn.choice(NAMES), drawn.choice(THINGS), drawn)
        found.setdefault(question, WordProblem(question, Fraction(answer), f"{working}\n#### {answer}"))
    return ProblemSet(f"built-in word problems (seed {seed})", tuple(found.values()), built_in=True)


def problems_of(data: ReferenceSet) -> ProblemSet:
    """Return the questions of a set, such as GSM8K, whose right answers are numbers.

    Raises DataFileError where an answer holds no number.
    """
    problems = []
    for n, example in enumerate(data.examples, 1):
        answer = final_number(example.references[0])
        if answer is None:
            fix = worded("give questions whose answers are numbers, or use {references}")
            raise DataFileError(f"has an answer without a number (question {n})", file=data.name, fix=fix)
        problems.append(WordProblem(example.prompt.messages[-1].content, answer, example.worked, example.id))
    return ProblemSet(data.name, tuple(problems), data.built_in, data.notes)
