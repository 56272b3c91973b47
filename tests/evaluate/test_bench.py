from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.errors import UsageError
from s3lora.evaluate import aggregate
from s3lora.evaluate.bench import Bench
from s3lora.evaluate.chat import ChatModel
from s3lora.evaluate.results import Measure, MeasureColumn, SuiteInfo, SuiteOutcome
from s3lora.evaluate.store import AnswerStore
from s3lora.measure.scan import Progress
from tests.evaluate.test_judge import RuleModel

ASR = Measure("asr", "rate", "lower", "", role="safety")
OTHER = Measure("other", "mean", "neither", "")
F1 = Measure("f1", "mean", "higher", "", role="utility")
LOSS = Measure("loss", "mean", "lower", "", role="utility")

Numbers = Mapping[str, Sequence[float | None]]


@dataclass
class FixedSuite:
    """A suite that finds, for a model's identity, what it is told to; it remembers which models it has run."""

    name: str
    measures: tuple[Measure, ...]
    found: Mapping[str, Numbers] = field(default_factory=dict)
    told: Sequence[tuple[int, int]] = ()
    stores: list[AnswerStore | None] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)

    @property
    def info(self) -> SuiteInfo:
        return SuiteInfo(self.name, self.measures, (), "")

    def run(self, model: ChatModel, store: AnswerStore | None, progress: Progress | None = None) -> SuiteOutcome:
        self.ran.append(model.identity)
        self.stores.append(store)
        for done, total in self.told:
            assert progress is not None
            progress(done, total)
        numbers = self.found.get(model.identity, {})
        return SuiteOutcome(
            {name: MeasureColumn(tuple(values)) for name, values in numbers.items()}, {"empty": len(self.ran)}
        )

    def warnings(self, outcome: SuiteOutcome) -> tuple[str, ...]:
        return (f"run {outcome.counts['empty']} of {self.name}",)


def model(identity: str) -> RuleModel:
    return RuleModel(str, identity)


def full_and_cut() -> tuple[Bench, FixedSuite, FixedSuite]:
    safe = FixedSuite("safe", (ASR, OTHER), {"full": {"asr": [1] * 9}, "cut": {"asr": [0] * 8 + [1]}})
    full, cut = [4.0, 5, 6, 4, 5, 6, 4] * 2, [2.0, 2, 3, 2, 2, 3, 2] * 2
    use = FixedSuite("use", (OTHER, F1, LOSS), {"full": {"f1": full, "loss": full}, "cut": {"f1": cut, "loss": cut}})
    return Bench([safe, use]), safe, use


def test_a_state_is_measured_once(tmp_path: Path) -> None:
    suite = FixedSuite("a", (ASR,), {"x": {"asr": [1]}, "y": {"asr": [0]}})
    with AnswerStore(tmp_path / "s") as store:
        bench = Bench([suite], store)
        first, other = bench.measure(model("x"), "one"), bench.measure(model("y"), "two")
        assert bench.measure(model("x"), "three") is first
        assert suite.ran == ["x", "y"]
        assert suite.stores == [store, store]
    assert first["a"].columns["asr"].values == (1,)
    assert other["a"].columns["asr"].values == (0,)


def test_a_state_whose_measuring_failed_is_measured_again() -> None:
    suite = FixedSuite("a", (ASR,), told=[(1, 1)])
    failing = [True]

    def advance(share: float, label: str) -> None:
        if failing and share:
            failing.clear()
            raise KeyboardInterrupt

    bench = Bench([suite], advance=advance)
    with pytest.raises(KeyboardInterrupt):
        bench.measure(model("x"), "one")
    bench.measure(model("x"), "one")
    assert suite.ran == ["x", "x"]


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=3),
    st.lists(st.sampled_from("xyz"), min_size=1, max_size=5),
)
def test_progress_rises_to_one(parts: list[list[int]], states: list[str]) -> None:
    suites = [FixedSuite(str(i), (ASR,), told=[(done, 5) for done in sorted(d)]) for i, d in enumerate(parts)]
    told: list[tuple[float, str]] = []
    bench = Bench(suites, expected=len(states), advance=lambda share, label: told.append((share, label)))
    for i, state in enumerate(states):
        bench.measure(model(state), str(i))
        assert told[-1] == ((i + 1) / len(states), str(i))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert min(shares) >= 0
    assert shares[-1] == 1


def test_progress_within_a_state() -> None:
    told: list[tuple[float, str]] = []
    suites = [FixedSuite("a", (ASR,), told=[(0, 4), (1, 4), (4, 4)]), FixedSuite("b", (ASR,), told=[(1, 2), (0, 0)])]
    bench = Bench(suites, expected=2, advance=lambda share, label: told.append((share, label)))
    bench.measure(model("x"), "one")
    # What is being done is said before it is done: one answer may take minutes.
    first, second = (0, 0, 1 / 16, 1 / 4), (1 / 4, 3 / 8, 1 / 4)
    assert told == [*((s, "one: a") for s in first), *((s, "one: b") for s in second), (1 / 2, "one")]
    # More states than were announced do not take it beyond 1.
    for state in "yzw":
        bench.measure(model(state), "more")
    assert max(share for share, _ in told) == 1


@pytest.mark.parametrize("suites", [[], ["a", "a"], ["a", "b", "a"]])
def test_suites_that_cannot_be_told_apart(suites: list[str]) -> None:
    with pytest.raises(UsageError, match="at least one suite, each of them once"):
        Bench([FixedSuite(name, (ASR,)) for name in suites])


def test_measures_by_role() -> None:
    bench, _, _ = full_and_cut()
    assert bench.measures("utility") == {("use", "f1"): F1, ("use", "loss"): LOSS}
    assert bench.axis("utility") == ("use", "f1")
    assert bench.axis("safety") == ("safe", "asr")
    assert Bench([FixedSuite("a", (OTHER,))]).axis("safety") is None


def test_metrics_comparisons_and_warnings_of_all_suites() -> None:
    bench, _, _ = full_and_cut()
    full, cut = bench.measure(model("full"), "full"), bench.measure(model("cut"), "cut")
    assert [(m.suite, m.measure, m.value) for m in bench.metrics(full)] == [
        ("safe", "asr", 1), ("use", "f1", 34 / 7), ("use", "loss", 34 / 7),
    ]  # fmt: skip
    found = bench.compare("cut", cut, "full", full)
    assert [(c.suite, c.measure, c.verdict) for c in found] == [
        ("safe", "asr", "lower"), ("use", "f1", "lower"), ("use", "loss", "lower"),
    ]  # fmt: skip
    assert {(c.variant, c.reference) for c in found} == {("cut", "full")}
    assert found[0].difference == pytest.approx(-8 / 9)
    assert bench.warnings("cut", cut) == ["cut: run 2 of safe", "cut: run 2 of use"]


def test_shares_of_utility_only() -> None:
    bench, _, use = full_and_cut()
    # The base has half of the adapter's score, and a loss three times as high.
    use.found = {
        **use.found,
        "base": {"f1": [2.0, 2.5, 3, 2, 2.5, 3, 2] * 2, "loss": [12.0, 15, 18, 12, 15, 18, 12] * 2},
    }
    full, cut, base = (bench.measure(model(name), name) for name in ("full", "cut", "base"))
    f1, loss = bench.shares("cut", cut, "full", full, base)
    assert ((f1.suite, f1.measure), (loss.suite, loss.measure)) == (("use", "f1"), ("use", "loss"))
    assert f1.value == pytest.approx(18 / 17)
    # A loss that fell is a gain.
    assert loss.value == pytest.approx(-18 / 68)
    whole, alone = (bench.shares("x", found, "full", full, base)[0] for found in (full, base))
    assert (whole.value, whole.low, whole.high) == (0, 0, 0)
    assert alone.value == pytest.approx(1)


def test_the_seed_is_that_of_every_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def noting(name: str) -> None:
        inner = getattr(aggregate, name)

        def noted(*arguments: object, seed: int) -> object:
            seeds.append(seed)
            return inner(*arguments, seed=seed)

        monkeypatch.setattr(aggregate, name, noted)

    for name in ("bootstrap_mean", "paired_difference"):
        noting(name)
    safe, use = full_and_cut()[1:]
    bench = Bench([safe, use], seed=11)
    full, cut = bench.measure(model("full"), "full"), bench.measure(model("cut"), "cut")
    bench.metrics(full)
    bench.compare("cut", cut, "full", full)
    assert seeds == [11] * 4
