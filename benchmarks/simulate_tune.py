"""How often `tune` chooses rightly and wrongly: its own code on adapters whose every loss and gain is known.

The adapters are made up: each has 120 modules in one order, and for every number of them a true share of what was
learned that is lost and a true rate of attacks that succeed. Only the answers are drawn. No model is run.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from s3lora.choose.select import Plan
from s3lora.errors import UsageError
from s3lora.evaluate.bench import Bench, Outcomes
from s3lora.evaluate.rankings import SweepRanking
from s3lora.evaluate.results import Data, Measure, MeasureColumn, SuiteInfo, SuiteOutcome, Variant
from s3lora.evaluate.sweeping import BASE, UNPRUNED, SweepTask
from s3lora.evaluate.tuning import FLOOR, search_number
from s3lora.measure.scan import Scan, scan
from s3lora.statistics import bootstrap_mean, paired_difference

ADAPTER = Path(__file__).parents[1] / "src" / "s3lora" / "data" / "demo-adapter"
RESULTS = Path(__file__).with_name("simulate_tune.json")
PAGE = Path(__file__).parents[1] / "docs" / "evaluation.md"
BEGIN, END = "<!-- simulation of tune -->", "<!-- end of the simulation of tune -->"
TOTAL = 120
SIZES = (24, 50, 100, 300)
RUNS = 200
#: Attacks that succeed: with the adapter, and with the base alone.
HARM, BASE_HARM = 0.8, 0.1
#: Tasks solved, where usefulness is a rate: with the adapter, and with the base alone.
SOLVED, BASE_SOLVED = 0.8, 0.1
#: What is learned by an item, where usefulness is a mean: its spread among items, and that of the share lost. As in the
#: reference experiment, where they were 0.13 to 0.16 and 0.2 to 0.7.
LEARNED_SPREAD, LOSS_SPREAD = 0.15, 0.6

Kind = Literal["mean", "rate"]
#: A number of modules → the true share of what was learned that is lost, or the true share of the harm that is left.
Curve = Callable[[int], float]


@dataclass(frozen=True)
class World:
    """An adapter: what is lost and what harm is left at each number of modules, and what `tune` should make of it."""

    name: str
    lost: Curve
    harm: Curve

    def right(self, top: int) -> bool:
        """Return whether pruning so many modules keeps what `tune` promises."""
        return self.lost(top) < FLOOR and self.harm(top) < 1


def _falls(begin: int, end: int) -> Curve:
    return lambda top: 1 - min(1.0, max(0.0, (top - begin) / (end - begin)))


def _grows(top: int) -> float:
    """Return a loss as in the reference experiment: a tenth without 26 modules, half without 76."""
    return float((top / TOTAL) ** 1.5)


def _all_alike(share: float) -> Curve:
    """Return a loss that is the same for every number of modules but none and all."""
    return lambda top: 0.0 if not top else 1.0 if top == TOTAL else share


WORLDS = (
    World("worth it", _grows, _falls(0, 20)),
    World("too dear", _grows, _falls(40, 100)),
    World("half the floor", _all_alike(FLOOR / 2), lambda top: float(not top)),
    World("at the floor", _all_alike(FLOOR), lambda top: float(not top)),
    World("no gain", lambda top: float(top == TOTAL), lambda top: float(top < TOTAL)),
)


@functools.cache
def _scan() -> Scan:
    return scan(ADAPTER)


@functools.cache
def _plan(top: int) -> Plan:
    return SweepRanking("ssi", "mas-svd").plan({"mas-svd": _scan()}, top)


class Pretended:
    """An adapter that is a world, in the state that was asked for last: so many modules pruned, all for the base."""

    ranking = SweepRanking("ssi", "mas-svd")
    total = TOTAL
    name, backend, notes = "pretended", "none", ()

    def __init__(self) -> None:
        """Begin with the base alone."""
        self.top = TOTAL

    @property
    def model(self) -> Any:
        """Return what the suites ask."""
        return self

    @property
    def identity(self) -> str:
        """Return what tells states apart."""
        return str(self.top)

    def variant(self, bench: Bench, *, alone: bool) -> tuple[Variant, Outcomes]:
        """Measure the adapter without pruning, or the base alone."""
        self.top = TOTAL if alone else 0
        name = BASE if alone else UNPRUNED
        outcomes = bench.measure(self.model, name)
        return Variant(name=name, kind="base" if alone else "adapter", metrics=bench.metrics(outcomes)), outcomes

    def use(self, top: int) -> SweepTask:
        """Switch the first modules off."""
        self.top = top
        return SweepTask(self.ranking, top, _plan(top))


class Answers:
    """A suite of one measure, whose items are drawn once and then move with the number of modules."""

    def __init__(self, measure: Measure, n: int, values: Callable[[int], np.ndarray]) -> None:
        """Keep how the items move."""
        self.info = SuiteInfo(measure.role, (measure,), (Data("pretended", n, "0" * 64),), "nobody")
        self._name, self._values = measure.name, values

    def run(self, model: Pretended, store: object, progress: object = None) -> SuiteOutcome:
        """Return the items in this state."""
        return SuiteOutcome({self._name: MeasureColumn(tuple(self._values(model.top).tolist()))})

    def warnings(self, outcome: SuiteOutcome) -> tuple[str, ...]:
        """Return nothing."""
        return ()


def suites(world: World, kind: Kind, n: int, random: np.random.Generator) -> list[Any]:
    """Return the suites of one half: safety, and usefulness as a mean or a rate."""
    yields = random.random(n)
    learned = np.maximum(random.normal(1, LEARNED_SPREAD, n), 0.1)
    factor = random.lognormal(-0.5 * np.log1p(LOSS_SPREAD**2), np.sqrt(np.log1p(LOSS_SPREAD**2)), n)
    first, solved, solved_alone, goes, comes = random.random((5, n))

    def harm(top: int) -> np.ndarray:
        """An attack that the base withstands is withstood again from some number of modules on."""
        return np.where(yields < BASE_HARM + (HARM - BASE_HARM) * world.harm(top), 1.0, 0.0)

    def loss(top: int) -> np.ndarray:
        share = world.lost(top)
        return first + learned * (1.0 if top == TOTAL else share * factor)

    def right(top: int) -> np.ndarray:
        """Of three solved tasks that are lost, one is made up for by another that is solved now."""
        if top == TOTAL:
            return np.where(solved_alone < BASE_SOLVED, 1.0, 0.0)
        has, net = solved < SOLVED, world.lost(top) * (SOLVED - BASE_SOLVED)
        gone, come = goes < 1.5 * net / SOLVED, comes < 0.5 * net / (1 - SOLVED)
        return np.where(has & ~gone | ~has & come, 1.0, 0.0)

    asr = Measure("asr", "rate", "lower", "pretended", role="safety")
    use = Measure("loss", "mean", "lower", "", role="utility"), Measure("solved", "rate", "higher", "", role="utility")
    useful = Answers(use[0], n, loss) if kind == "mean" else Answers(use[1], n, right)
    return [Answers(asr, n, harm), useful]


@dataclass(frozen=True)
class Row:
    """One world, kind of measure and number of items in each half: shares of all runs.

    `chosen` a number of modules, `wrong` one that does not keep what is promised; `confirmed` and `wrongly_confirmed`
    on the held-out half; `nothing` said to be worth pruning; `untold`, that these data cannot tell; `forecast` is the
    mean power that was told beforehand for a loss of half the floor.
    """

    world: str
    kind: Kind
    n: int
    runs: int
    chosen: float
    wrong: float
    confirmed: float
    wrongly_confirmed: float
    nothing: float
    untold: float
    forecast: float


def measure(world: World, kind: Kind, n: int, runs: int, seed: int = 0) -> Row:
    """Run `tune` so many times on new items."""
    found = []
    powers = []
    for run in range(runs):
        random = np.random.default_rng([seed, run, n])
        halves = [Bench(suites(world, kind, n, random), seed=run) for _ in range(2)]
        try:
            result = search_number(Pretended(), halves[0], halves[1], floor=FLOOR, seed=run)
        except UsageError:  # the measure does not see the adapter
            found.append(("cannot tell", 0))
            continue
        found.append((result.outcome, 0 if result.best is None else result.best.top))
        powers.append(result.powers[1].power)

    def share(holds: Callable[[str, int], bool]) -> float:
        return sum(holds(*one) for one in found) / runs

    return Row(
        world.name,
        kind,
        n,
        runs,
        chosen=share(lambda _, top: top > 0),
        wrong=share(lambda _, top: top > 0 and not world.right(top)),
        confirmed=share(lambda said, _: said == "confirmed"),
        wrongly_confirmed=share(lambda said, top: said == "confirmed" and not world.right(top)),
        nothing=share(lambda said, _: said == "nothing"),
        untold=share(lambda said, _: said == "cannot tell"),
        forecast=float(np.mean(powers)) if powers else 0.0,
    )


@contextmanager
def _few_resamples() -> Iterator[None]:
    """Let bootstraps resample little: their intervals are shown, and decide nothing here."""
    functions: Sequence[Any] = (bootstrap_mean, paired_difference)
    before = [function.__kwdefaults__["resamples"] for function in functions]
    try:
        for function in functions:
            function.__kwdefaults__["resamples"] = 20
        yield
    finally:
        for function, value in zip(functions, before, strict=True):
            function.__kwdefaults__["resamples"] = value


def simulate(runs: int = RUNS, sizes: Sequence[int] | None = None) -> list[Row]:
    """Return all rows."""
    kinds: tuple[Kind, ...] = ("mean", "rate")
    with _few_resamples():
        return [measure(world, kind, n, runs) for kind in kinds for world in WORLDS for n in sizes or SIZES]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| usefulness | adapter | items in each half | chosen | chosen wrongly | confirmed | confirmed wrongly "
        "| “nothing is worth pruning” | “cannot tell” | power foretold |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        shares = (row.chosen, row.wrong, row.confirmed, row.wrongly_confirmed, row.nothing, row.untold, row.forecast)
        cells = " | ".join(f"{share:.2f}" for share in shares)
        lines.append(f"| {row.kind} | {row.world} | {row.n} | {cells} |")
    return "\n".join(lines)


def render(rows: Sequence[Row], page: Path) -> None:
    """Write the table into the page, between its two marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Simulate, write the rows down, and the table into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--render", action="store_true", help="only write the table again")
    options = parser.parse_args()
    if not options.render:
        rows = simulate(options.runs)
        RESULTS.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    render([Row(**row) for row in json.loads(RESULTS.read_text(encoding="utf-8"))], PAGE)


if __name__ == "__main__":
    main()
