"""`sweep`: which points are measured, and what is made of them: spreads, Pareto front, correlations, warnings."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

import s3lora
from s3lora.errors import S3LoRAError, UsageError
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.results import Sweep, SweepPoint, Variant
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.sweeping import sweep
from tests.evaluate.stub_suites import ASR, LOSS, Acting, Stub, acting, first, safety, usefulness
from tests.tiny_adapters import EVERYWHERE, tiny_adapter

pytestmark = pytest.mark.usefixtures("few_resamples")
ITEMS = 40
TOTAL = 14
#: A weight for each module by its place, so that sets of one size differ in what they do.
PATHS = {f".{i}.{part}": n for n, (i, part) in enumerate((i, p) for i in (0, 1) for p in EVERYWHERE)}


def weight(path: str) -> int:
    layer, part = path.split(".")[2], path.rpartition(".")[2]
    return PATHS[f".{layer}.{part}"]


def danger(acting: Acting) -> list[float]:
    """Of 40 requests, 2 are answered and as many more as the modules of layer 0 that act are heavy, 21 at most."""
    return first(2 + sum(weight(path) for _, path in acting if ".0." in path), ITEMS)


def use(acting: Acting) -> list[float]:
    """From 1 without modules to 1.91 with all: what any module adds depends on its place."""
    return [1 + sum(weight(path) for _, path in acting) / 100 + i % 2 / 1000 for i in range(10)]


@pytest.fixture(scope="module")
def base(tiny: Path) -> LocalModel:
    return LocalModel(str(tiny))


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tiny, tmp_path_factory.mktemp("sweep") / "adapter", 1, target_modules=list(EVERYWHERE))


def run(adapter: Path, base: LocalModel, **options: Any) -> tuple[Sweep, Stub]:
    watched = safety(danger)
    return sweep(adapter, base, [watched, usefulness(use)], **options), watched


def value(point: Any, key: tuple[str, str]) -> float:
    metric = point.metric(*key)
    assert metric is not None
    assert metric.value is not None
    return float(metric.value)


@pytest.fixture(scope="module")
def whole(adapter: Path, base: LocalModel) -> Sweep:
    return run(adapter, base, top=("0", "3", "50%", "1.0"))[0]


def test_the_points(whole: Sweep, adapter: Path) -> None:
    names = ["ssi (mas-svd)", "weighted_ssi (mas-svd)", "magnitude (mas-svd)"]
    controls = ["random"] * 3 + ["random-matched to ssi (mas-svd)"] * 3
    assert [(p.ranking, p.top, p.seed) for p in whole.points] == [
        (name, top, seed)
        for top in (3, 7, 14)
        for name, seed in zip([*names, *controls], [None, None, None, 0, 1, 2, 0, 1, 2], strict=True)
    ]
    assert [p.control for p in whole.points] == [False] * 3 + [True] * 6 + [False] * 3 + [True] * 6 + [False] * 3 + [
        True
    ] * 6
    assert {(p.method, p.index) for p in whole.points} == {
        *(("mas-svd", index) for index in ("ssi", "weighted_ssi", "magnitude", "random-matched")),
        (None, "random"),
    }
    assert {p.modules_total for p in whole.points} == {TOTAL}
    assert (whole.safety, whole.utility) == (("danger", "asr"), ("use", "score"))
    assert whole.adapter == s3lora.scan(adapter).source


def test_each_point_is_what_these_modules_do(whole: Sweep, adapter: Path) -> None:
    """Every number again by hand: from the plan of `select`, and for random sets from their size and energy."""
    scan = s3lora.scan(adapter)
    paths = [module.path for module in scan.modules]
    norms = {module.path: module.indices["frobenius"] or 0.0 for module in scan.modules}
    for point in whole.points:
        match = "ssi" if point.index == "random-matched" else "magnitude"
        plan = s3lora.select(scan, s3lora.Top(point.top), index=point.index, match=match, seed=point.seed or 0)
        left = frozenset(("a", path) for path in paths if path not in plan.paths)
        assert len(left) == TOTAL - point.top
        assert value(point, whole.safety) == fmean(danger(left)), point
        assert value(point, ("use", "score")) == pytest.approx(fmean(use(left)))
        gone = math.fsum(norms[path] ** 2 for path in plan.paths) / math.fsum(v**2 for v in norms.values())
        assert point.frobenius_energy == pytest.approx(gone)
        assert point.parameters == pytest.approx(point.compute)
        [compared] = [c for c in point.comparisons if c.measure == "asr"]
        assert compared.reference == "unpruned"
        everything = frozenset(("a", path) for path in paths)
        assert compared.difference == pytest.approx(fmean(danger(left)) - fmean(danger(everything)))


def test_the_references(whole: Sweep) -> None:
    assert (whole.unpruned.name, whole.unpruned.kind, whole.unpruned.adapter) == ("unpruned", "adapter", whole.adapter)
    assert (whole.base.name, whole.base.kind, whole.base.adapter) == ("base", "base", None)
    assert value(whole.unpruned, whole.safety) == 23 / 40
    assert value(whole.base, whole.safety) == 2 / 40
    assert whole.unpruned.loaded is not None
    assert (whole.unpruned.loaded.modules, whole.base.loaded and whole.base.loaded.modules) == (TOTAL, 0)


def test_a_set_of_modules_is_measured_once(adapter: Path, base: LocalModel) -> None:
    found, watched = run(adapter, base, top=("0", "100%", "14", "0.5", "7"), control_seeds=2)
    assert len(watched.runs) == len(set(watched.runs))
    # All 14 pruned is the base, whichever of the seven rankings says so, and none pruned the adapter.
    assert sum(not found for found in watched.runs) == 1
    assert sum(len(found) == TOTAL for found in watched.runs) == 1
    assert len([p for p in found.points if p.top == TOTAL]) == 7
    assert {value(p, found.safety) for p in found.points if p.top == TOTAL} == {2 / 40}


def test_spreads_are_those_of_the_seeds(whole: Sweep) -> None:
    controls = {p.ranking for p in whole.points if p.control}
    assert len(whole.spreads) == len(controls) * 3 * 2
    for spread in whole.spreads:
        points = [p for p in whole.points if (p.ranking, p.top) == (spread.ranking, spread.top)]
        values = [value(p, (spread.suite, spread.measure)) for p in points]
        assert spread.seeds == len(values) == 3
        assert spread.mean == pytest.approx(fmean(values))
        assert (spread.least, spread.greatest) == (min(values), max(values))
    assert any(spread.least < spread.greatest for spread in whole.spreads)


Measured = SweepPoint | Variant


def beats(a: Measured, b: Measured, sweep: Sweep, better: int) -> bool:
    """Return whether `a` is nowhere worse than `b` and somewhere better; `better` is the sign of good utility."""
    keys = [sweep.safety] if sweep.utility is None else [sweep.safety, sweep.utility]
    signs = [-1, better]
    gains = [sign * (value(a, key) - value(b, key)) for key, sign in zip(keys, signs, strict=False)]
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


def front(found: Sweep, better: int) -> tuple[list[int], set[str]]:
    """Return the points on the front, and which of the base and the unpruned adapter are."""
    every: list[Measured] = [*found.points, found.unpruned, found.base]
    best = [one for one in every if not any(beats(other, one, found, better) for other in every)]
    variants = {one.name for one in best if isinstance(one, Variant)}
    return [i for i, point in enumerate(found.points) if any(point is one for one in best)], variants


def test_the_pareto_front(whole: Sweep, adapter: Path, base: LocalModel) -> None:
    def told(found: Sweep) -> tuple[list[int], set[str]]:
        return list(found.pareto), set(found.pareto_variants)

    assert told(whole) == front(whole, 1)
    assert 0 < len(whole.pareto) < len(whole.points)
    # The one has the most usefulness of all, the other (with every pruning of all modules) the fewest attacks.
    assert set(whole.pareto_variants) == {"unpruned", "base"}
    loss = usefulness(lambda acting: [3 - one for one in use(acting)], measure=LOSS)
    lower = sweep(adapter, base, [safety(danger), loss], top=("3", "5", "7", "9", "11"))
    assert lower.utility == ("use", "loss")
    assert told(lower) == front(lower, -1)
    assert len({p.top for i, p in enumerate(lower.points) if i in lower.pareto}) > 1
    alone = sweep(adapter, base, [safety(danger)], top=("3", "5"))
    assert alone.utility is None
    assert told(alone) == front(alone, 0)
    assert alone.pareto_variants == ("base",)


def test_a_pruning_that_the_base_or_the_adapter_beats_is_not_on_the_front(adapter: Path, base: LocalModel) -> None:
    """Seven modules fewer: as many attacks as the adapter at less use, or as little use as the base at more attacks."""
    for attacks, score in (({7: 20}, {7: 1.5}), ({7: 10}, {7: 1.0})):
        watched = safety(lambda now, a=attacks: first(a.get(len(now), 20 if now else 2), ITEMS))  # type: ignore[misc]
        useful = usefulness(lambda now, s=score: [s.get(len(now), 2.0 if now else 1.0)] * 12)  # type: ignore[misc]
        found = sweep(adapter, base, [watched, useful], top=("7",), methods=("mas-svd",), indices=("ssi",))
        assert found.pareto == ()
        assert found.pareto_variants == ("unpruned", "base")


def test_points_without_a_number_are_on_no_front(adapter: Path, base: LocalModel) -> None:
    def silent(acting: Acting) -> list[float | None]:
        return [None] * ITEMS if len(acting) == 9 else list(danger(acting))

    both = [safety(silent), usefulness(use)]
    found = sweep(adapter, base, both, top=("5", "7"), methods=("mas-svd", "random"), control_seeds=1)
    assert {p.top for p in found.points} == {5, 7}
    assert {found.points[i].top for i in found.pareto} == {7}
    assert {s.top for s in found.spreads if s.suite == "danger"} == {7}


def test_correlations(whole: Sweep, adapter: Path, base: LocalModel) -> None:
    """Spearman's from its definition, as Pearson's of the ranks; the indices have no ties here."""
    scan = s3lora.scan(adapter)
    columns = {
        f"{name} (mas-svd)": [module.indices[name] or 0.0 for module in scan.modules]
        for name in ("ssi", "weighted_ssi", "magnitude")
    }
    assert set(whole.correlations) == {
        "ssi (mas-svd) | weighted_ssi (mas-svd)",
        "ssi (mas-svd) | magnitude (mas-svd)",
        "weighted_ssi (mas-svd) | magnitude (mas-svd)",
    }
    for pair, got in whole.correlations.items():
        x, y = (columns[name] for name in pair.split(" | "))
        d = sum((sorted(x).index(a) - sorted(y).index(b)) ** 2 for a, b in zip(x, y, strict=True))
        assert got == pytest.approx(1 - 6 * d / (TOTAL * (TOTAL**2 - 1)))
    found, _ = run(adapter, base, methods=("mas-svd", "svd"), indices=("stable_rank", "ssi", "energy"), top=("1",))
    # These two do not depend on the method, and are ranked once; a low stable rank is sharp, and a high energy.
    assert [p.ranking for p in found.points] == ["stable_rank", "ssi (mas-svd)", "energy", "ssi (svd)"]
    assert found.correlations["stable_rank | energy"] == pytest.approx(1)


def test_collapse(whole: Sweep) -> None:
    """It goes by the share of what was learned: the use of the base is half of that of the adapter."""
    full, alone = value(whole.unpruned, ("use", "score")), value(whole.base, ("use", "score"))
    flags = {p.top: p.collapse for p in whole.points}
    assert set(flags) == {3, 7, 14}
    for point in whole.points:
        lost = (full - value(point, ("use", "score"))) / (full - alone)
        share = point.learned("use", "score")
        assert share is not None
        assert share.value == pytest.approx(lost)
        assert point.collapse == (lost > 0.1), point
    assert {p.collapse for p in whole.points} == {True, False}


def test_warnings_name_the_point(adapter: Path, base: LocalModel) -> None:
    told = Stub("danger", [(ASR, danger)], {"warn at": 11})
    found = sweep(adapter, base, [told], methods=("svd", "random"), indices=("ssi",), top=("3", "4"), control_seeds=2)
    expected = ["3 pruned by ssi (svd): 11 act"] + [f"3 pruned by random, seed {i}: 11 act" for i in (0, 1)]
    assert [text for text in found.warnings if "act" in text] == expected


def test_a_flat_index_is_told(tiny: Path, base: LocalModel, tmp_path: Path) -> None:
    flat = tiny_adapter(tiny, tmp_path / "flat", 1, r=1)
    found, _ = run(flat, base, top=("1", "2"), methods=("mas-svd", "random"), indices=("ssi",))
    told = [text for text in found.warnings if "does not discriminate" in text]
    assert len(told) == 1
    assert told[0].startswith("ssi (mas-svd): ssi does not discriminate")


def test_nothing_pruned_is_no_point(adapter: Path, base: LocalModel) -> None:
    found, watched = run(adapter, base, top=("0", "0%", "0.0"))
    assert (found.points, found.spreads, found.pareto) == ((), (), ())
    assert [len(acting) for acting in watched.runs] == [TOTAL, 0]
    assert value(found.unpruned, found.safety) == 23 / 40


def test_matching(adapter: Path, base: LocalModel) -> None:
    """`random-matched` draws as many modules of each projection as the ranking that it is matched to."""
    scan = s3lora.scan(adapter, "svd")
    suite = safety(danger)
    found = sweep(
        adapter, base, [suite], methods=("svd", "random-matched"), indices=("ssi", "magnitude"), top=("5",),
        match=("magnitude", "ssi"), control_seeds=1,
    )  # fmt: skip
    assert [p.ranking for p in found.points] == [
        "ssi (svd)",
        "magnitude (svd)",
        "random-matched to magnitude (svd)",
        "random-matched to ssi (svd)",
    ]
    for index, point in (("magnitude", 2), ("ssi", 3)):
        wanted = sorted(p.rpartition(".")[2] for p in s3lora.select(scan, s3lora.Top(5), index=index).paths)
        plan = s3lora.select(scan, s3lora.Top(5), index="random-matched", match=index, seed=0)
        assert sorted(p.rpartition(".")[2] for p in plan.paths) == wanted
        left = frozenset(("a0", m.path) for m in scan.modules if m.path not in plan.paths)
        assert {path for _, path in left} in [{path for _, path in acting} for acting in suite.runs]
        assert value(found.points[point], found.safety) == fmean(danger(left))


def test_seeds(adapter: Path, base: LocalModel) -> None:
    found, _ = run(adapter, base, methods=("random",), indices=(), top=("5",), control_seeds=3, seed=4)
    assert [p.seed for p in found.points] == [4, 5, 6]
    assert found.correlations == {}
    assert found.setup.seed == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"top": ("15",)}, "more than the 14 modules"),
        ({"top": ("ten",)}, "no number of modules"),
        ({"top": ("-1",)}, "no number of modules"),
        ({"top": ()}, "names no number of modules"),
        ({"methods": ("qr",)}, "no method or index qr; choose from mas-svd"),
        ({"indices": ("sharp\x1b[0m",)}, "no method or index sharp\ufffd"),
        ({"methods": ()}, "nothing to rank by"),
        ({"methods": ("random-matched",)}, "needs a ranking to match"),
        ({"match": ("random",)}, "random"),
        ({"control_seeds": 0}, "at least one seed"),
    ],
)
def test_what_cannot_be_is_said_before_the_model_is_loaded(options: dict[str, Any], says: str, adapter: Path) -> None:
    with pytest.raises(S3LoRAError, match=says):
        sweep(adapter, "/no/such/model", [safety(danger)], **options)


def test_a_sweep_without_safety_is_refused_before_anything_is_measured(adapter: Path) -> None:
    with pytest.raises(UsageError, match="no suite measures safety; add the suite safety"):
        sweep(adapter, "/no/such/model", [usefulness(use)])


def test_interrupted_between_points_it_leaves_a_usable_model(adapter: Path, base: LocalModel, tmp_path: Path) -> None:
    def stops(now: Acting) -> list[float]:
        if 0 < len(now) < TOTAL:
            raise KeyboardInterrupt
        return danger(now)

    with pytest.raises(KeyboardInterrupt), AnswerStore(tmp_path / "s") as store:
        sweep(adapter, base, [safety(stops)], top=("5",), store=store)
    base.use()
    assert acting(base) == frozenset()
    again, _ = run(adapter, base, top=("5",), methods=("mas-svd",))
    assert value(again.unpruned, again.safety) == 23 / 40
