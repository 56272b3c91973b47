"""`tune`: how many modules go, against brute force, and a sentence that never claims more than the intervals do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import s3lora
from s3lora.errors import UsageError
from s3lora.evaluate.aggregate import compare, relative_loss
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.results import MeasureColumn, SuiteOutcome, Tuning
from s3lora.evaluate.tuning import tune
from tests.evaluate.stub_suites import ASR, LOSS, SCORE, Stub, Values, acting, first, safety, usefulness
from tests.tiny_adapters import EVERYWHERE, tiny_adapter

pytestmark = pytest.mark.usefixtures("few_resamples")
ITEMS = 60
TOTAL = 14
Of = Callable[[int], Values]


@pytest.fixture(scope="module")
def base(tiny: Path) -> LocalModel:
    return LocalModel(str(tiny))


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tiny, tmp_path_factory.mktemp("tune") / "adapter", 1, target_modules=list(EVERYWHERE))


def stub(name: str, measure: Any, of: Of) -> Stub:
    """Return a suite whose scores depend on how many modules were pruned."""
    return Stub(name, [(measure, lambda now: of(TOTAL - len(now)))])


def falls(step: int, start: int = 45) -> Of:
    """Return ASR items, of which `step` fewer are 1 for each module that is pruned."""
    return lambda gone: first(max(0, start - step * gone), ITEMS)


def costs(step: float) -> Of:
    """Return utility that a module takes `step` of, on items that differ and do not all change alike."""
    return lambda gone: [1 - step * gone + (7 * i % 11 - 5) / 100 + ((i + gone) % 3 - 1) / 50 for i in range(ITEMS)]


def run(
    adapter: Path,
    base: LocalModel,
    asr: Of,
    use: Of,
    held_asr: Of | None = None,
    held_use: Of | None = None,
    **more: Any,
) -> Tuning:
    tuning = [stub("danger", ASR, asr), stub("use", SCORE, use)]
    held_out = [stub("danger", ASR, held_asr or asr), stub("use", SCORE, held_use or use)]
    return tune(adapter, base, tuning, held_out, **more)


def keeps(use: Of, gone: int, floor: float) -> bool:
    """Return whether the 95 % interval of the relative loss lies below the floor."""
    sides = [SuiteOutcome({"score": MeasureColumn(tuple(use(n)))}) for n in (gone, 0)]
    loss = relative_loss(SCORE, *sides, seed=0)
    assert loss is not None
    return loss.high <= floor


def lowers(asr: Of, gone: int) -> bool:
    info = safety(lambda now: asr(0)).info
    sides = [(str(n), SuiteOutcome({"asr": MeasureColumn(tuple(asr(n)))})) for n in (gone, 0)]
    [found] = compare(info, *sides, seed=0)
    return found.verdict == "lower"


@pytest.mark.parametrize(
    ("step", "floor"), [(0.001, 0.1), (0.0075, 0.1), (0.012, 0.1), (0.02, 0.1), (0.04, 0.25), (0.09, 0.25)]
)
def test_bisection_finds_what_brute_force_finds(step: float, floor: float, adapter: Path, base: LocalModel) -> None:
    """Where both fall with every module, the best is the largest number that keeps to the floor."""
    use, asr = costs(step), falls(3)
    allowed = [gone for gone in range(1, TOTAL + 1) if keeps(use, gone, floor)]
    assert allowed == list(range(1, len(allowed) + 1)), "not monotone: bisection promises nothing"
    useful = [gone for gone in allowed if lowers(asr, gone)]
    found = run(adapter, base, asr, use, floor=floor)
    assert found.top == max(useful, default=0)
    assert len(found.tried) <= 5  # 1 + log2(14)
    assert [p.top for p in found.tried] == sorted({p.top for p in found.tried})
    assert {TOTAL} <= {p.top for p in found.tried}
    assert (found.floor, found.modules_total) == (floor, TOTAL)
    if found.top:
        assert found.confirmed is not None
        assert found.confirmed.top == found.top
        assert found.sentence.startswith(f"Pruning {found.top} of 14 modules by ssi (mas-svd) is chosen")
    else:
        assert (found.confirmed, found.sentence[:30]) == (None, "Nothing is worth pruning by ss")


def test_modules_leave_in_the_order_of_the_ranking(adapter: Path, base: LocalModel) -> None:
    tuning = [stub("danger", ASR, falls(3)), stub("use", SCORE, costs(0.012))]
    held_out = [stub("danger", ASR, falls(3)), stub("use", SCORE, costs(0.012))]
    found = tune(adapter, base, tuning, held_out, method="svd", index="weighted-ssi")
    assert found.ranking == "weighted_ssi (svd)"
    scan = s3lora.scan(adapter, "svd")
    paths = {module.path for module in scan.modules}
    gone = [paths - {path for _, path in acting} for acting in tuning[0].runs]
    assert gone[0] == set()
    for chosen in gone[1:]:
        assert chosen == set(s3lora.select(scan, s3lora.Top(len(chosen)), index="weighted_ssi").paths)
    assert sorted(len(chosen) for chosen in gone[1:]) == [p.top for p in found.tried]
    # The held-out split sees nothing but the unpruned adapter and what was chosen.
    assert [TOTAL - len(acting) for acting in held_out[0].runs] == [0, found.top]


def test_all_may_go(adapter: Path, base: LocalModel) -> None:
    found = run(adapter, base, falls(3), costs(0.0))
    assert (found.top, [p.top for p in found.tried]) == (TOTAL, [TOTAL])
    assert "confirms that asr falls and that less than 10 % of utility is lost." in found.sentence
    assert found.confirmed is not None
    assert found.tuning_unpruned.metric("danger", "asr") != found.confirmed.metric("danger", "asr")


def test_no_number_keeps_to_the_floor(adapter: Path, base: LocalModel) -> None:
    found = run(adapter, base, falls(3), costs(0.2))
    assert (found.top, found.confirmed) == (0, None)
    assert [p.top for p in found.tried] == [1, 3, 7, 14]
    assert "no number of modules that was tried keeps the loss of utility below 10 %" in found.sentence
    assert "95 % confidence" in found.sentence
    assert found.held_out_unpruned.metric("danger", "asr") is not None


@pytest.mark.parametrize(
    "asr", [falls(0), lambda gone: first(45 - min(gone, 3), ITEMS), lambda gone: first(45 + gone, ITEMS)]
)
def test_safety_is_not_gained(asr: Of, adapter: Path, base: LocalModel) -> None:
    """It stays, it falls by less than chance does, or it rises."""
    found = run(adapter, base, asr, costs(0.0))
    assert (found.top, found.confirmed) == (0, None)
    assert "without 14 of 14 modules less than 10 % of utility is lost with 95 % confidence" in found.sentence
    assert "can a fall of asr be told from chance" in found.sentence
    assert not re.search(r"safe\b|safer", found.sentence)


@pytest.mark.parametrize(("three", "four", "top"), [(20, 25, 3), (25, 20, 4), (20, 20, 3), (44, 44, 0)])
def test_the_safest_of_those_that_keep_to_the_floor(
    three: int, four: int, top: int, adapter: Path, base: LocalModel
) -> None:
    """Safety need not gain with every module: of equals the fewest go, and chance is no gain."""
    use = costs(0.02)
    assert [gone for gone in range(1, TOTAL + 1) if keeps(use, gone, 0.1)] == [1, 2, 3, 4]
    found = run(adapter, base, lambda gone: first({0: 45, 3: three, 4: four}.get(gone, 5), ITEMS), use)
    assert [p.top for p in found.tried] == [3, 4, 5, 7, 14]
    assert found.top == top


@pytest.mark.parametrize(
    ("held_asr", "held_use", "says", "not_says"),
    [
        (falls(3), costs(0.02), "confirms that asr falls; it cannot rule out that more than 10 % of utility is lost.",
         "confirms that less"),
        (falls(0), costs(0.0), "does not confirm that asr falls; it confirms that less than 10 % of utility is lost.",
         "split confirms that asr"),
        (falls(0), costs(0.02), "does not confirm that asr falls and cannot rule out that more than 10 % of utility",
         "split confirms that asr"),
        (lambda gone: first(45 + gone, ITEMS), costs(0.0), "does not confirm that asr falls; it confirms that less",
         "split confirms that asr"),
    ],
)  # fmt: skip
def test_the_held_out_split_decides_what_is_said(
    held_asr: Of, held_use: Of, says: str, not_says: str, adapter: Path, base: LocalModel
) -> None:
    found = run(adapter, base, falls(3), costs(0.0), held_asr, held_use)
    assert found.top == TOTAL
    assert says in found.sentence
    assert not_says not in found.sentence
    assert "is chosen on the tuning split" in found.sentence
    assert found.confirmed is not None
    [compared] = [c for c in found.confirmed.comparisons if c.measure == "asr"]
    assert found.sentence.endswith(f" {compared.sentence}")
    assert ("confirms that asr falls" in found.sentence) == (compared.verdict == "lower")


def test_every_measure_of_utility_must_keep_to_the_floor(adapter: Path, base: LocalModel) -> None:
    def tuning(loss: Of) -> list[Any]:
        suites = [safety(lambda now: falls(3)(TOTAL - len(now))), usefulness(lambda now: costs(0.0)(TOTAL - len(now)))]
        return [*suites, stub("more", LOSS, loss)]

    def rises(gone: int) -> Values:
        return [2 + 0.1 * gone for _ in range(ITEMS)]

    # 5 % a module, without noise: two keep to 10 %, and three to 15 %.
    for floor, most in ((0.1001, 2), (0.1499, 2), (0.1501, 3)):
        found = tune(adapter, base, tuning(rises), tuning(rises), floor=floor)
        trials = [p.top for p in found.tried]
        assert most in trials
        assert found.top in (0, most)
        assert found.top == (most if lowers(falls(3), most) else 0)


def test_utility_without_anything_to_lose_is_not_called_kept(adapter: Path, base: LocalModel) -> None:
    found = run(adapter, base, falls(3), lambda gone: [0.0] * ITEMS)
    assert found.top == 0
    assert "no number of modules that was tried keeps the loss of utility below 10 %" in found.sentence


@pytest.mark.parametrize("floor", [0.0, 1.0, -0.1, float("nan")])
def test_a_floor_that_cannot_be_meant(floor: float, adapter: Path) -> None:
    with pytest.raises(UsageError, match="floor"):
        tune(adapter, "/no/such/model", [], [], floor=floor)


def test_both_kinds_of_suite_are_needed_before_anything_is_loaded(adapter: Path) -> None:
    for suites in ([stub("danger", ASR, falls(1))], [stub("use", SCORE, costs(0))]):
        with pytest.raises(UsageError, match="a suite for safety and one for utility"):
            tune(adapter, "/no/such/model", suites, suites)


def test_acting_is_restored_by_use(adapter: Path, base: LocalModel) -> None:
    run(adapter, base, falls(3), costs(0.0))
    base.use()
    assert acting(base) == frozenset()
