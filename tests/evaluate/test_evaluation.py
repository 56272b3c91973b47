"""`evaluate`: which states are measured, against what they are compared, and what is said about them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

import s3lora
from s3lora import Adapter, read_provenance
from s3lora.adapter.digest import source_of
from s3lora.errors import UsageError
from s3lora.evaluate.chat import Decoding, Prompt
from s3lora.evaluate.cost import measure_costs
from s3lora.evaluate.evaluation import evaluate, evaluate_served
from s3lora.evaluate.figures import figures_of
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.results import ChatFacts, Evaluation, Loaded, PairedComparison
from s3lora.measure.scan import Scan
from s3lora.rewrite.factors import NewFactors, rounded
from s3lora.rewrite.repair_record import RepairFields
from s3lora.rewrite.repaired import write_repaired
from s3lora.statistics import paired_rate_difference, wilson
from tests.evaluate.stub_suites import SCORE, Acting, Logits, Stub, first, logits, safety, usefulness
from tests.evaluate.test_store import Beside
from tests.peft_models import warnings_as_errors
from tests.tiny_adapters import MODULES, peft, tiny_adapter
from tests.tiny_model import transformers

pytestmark = pytest.mark.usefixtures("few_resamples")
ITEMS = 40


@pytest.fixture
def base(tiny: Path) -> LocalModel:
    return LocalModel(str(tiny))


@pytest.fixture
def adapter(tiny: Path, tmp_path: Path) -> Path:
    return tiny_adapter(tiny, tmp_path / "adapter", 1)


def write_pruned(adapter: Path, out: Path, top: int, mode: s3lora.Mode | None = None) -> tuple[str, ...]:
    """Prune with s3lora, and return what was chosen."""
    with s3lora.open_adapter(adapter) as opened:
        scan = s3lora.scan(opened)
        plan = s3lora.select(scan, s3lora.Top(top))
        s3lora.write_pruned(s3lora.prune(opened, plan, mode or s3lora.Remove()), scan, out)
    return plan.paths


def choose(top: int) -> Any:
    def chosen(adapter: Adapter) -> tuple[Scan, Any]:
        scan = s3lora.scan(adapter)
        return scan, s3lora.select(scan, s3lora.Top(top))

    return chosen


def danger(acting: Acting) -> list[float]:
    """Five more requests of 40 are answered for each module that acts."""
    return first(5 + 5 * len(acting), ITEMS)


def comparison(found: Evaluation, variant: str, measure: str = "asr") -> PairedComparison:
    [one] = [c for c in found.comparisons if (c.variant, c.measure) == (variant, measure)]
    return one


def scores(found: Evaluation) -> dict[str, float | None]:
    return {v.name: v.metrics[0].value for v in found.variants}


def test_base_adapter_and_pruned(base: LocalModel, adapter: Path) -> None:
    suite = safety(danger)
    found = evaluate([adapter], base, [suite], choose=choose(2), limit=7)
    alone, whole, pruned = found.variants
    assert [(v.name, v.kind) for v in found.variants] == [
        ("base", "base"),
        ("adapter", "adapter"),
        ("adapter, pruned", "pruned"),
    ]
    assert (alone.adapter, whole.adapter) == (None, s3lora.scan(adapter).source)
    assert suite.runs == [frozenset(), acting_of("a0"), acting_of("a0", without=pruned.pruned)]
    assert [v.loaded and v.loaded.modules for v in found.variants] == [0, 6, 4]
    for variant, rate in zip(found.variants, (5, 35, 25), strict=True):
        metric = variant.metric("danger", "asr")
        assert metric is not None
        assert (metric.value, metric.low, metric.high) == wilson(rate, ITEMS)
        assert (metric.n, metric.missing, metric.interval) == (ITEMS, 0, "wilson")
        assert variant.metric("danger", "hs") is None
    assert (pruned.rule, pruned.ranking) == ("top 2", "ssi (mas-svd)")
    assert pruned.pruned == s3lora.select(s3lora.scan(adapter), s3lora.Top(2)).paths
    assert pruned.share is not None
    assert (pruned.share.modules, pruned.share.modules_total) == (2, 6)
    assert found.setup.base == "base"
    assert (found.setup.dtype, found.setup.device, found.setup.limit) == ("float32", "cpu", 7)


def acting_of(key: str, without: tuple[str, ...] = ()) -> Acting:
    return frozenset((key, path) for path in MODULES if path not in without)


def test_each_is_compared_with_what_it_came_from(base: LocalModel, adapter: Path) -> None:
    found = evaluate([adapter], base, [safety(danger)], choose=choose(2))
    assert [(c.variant, c.reference) for c in found.comparisons] == [
        ("adapter", "base"),
        ("adapter, pruned", "adapter"),
    ]
    after = comparison(found, "adapter, pruned")
    expected = paired_rate_difference(first(35, ITEMS), first(25, ITEMS))
    assert (after.difference, after.low, after.high) == tuple(expected)
    assert (after.n, after.test, after.verdict) == (ITEMS, "mcnemar mid-p", "lower")
    assert after.p == pytest.approx(1 / 2**10)  # ten discordant pairs, all of them one way
    assert comparison(found, "adapter").verdict == "higher"


def test_what_comes_out_is_that_of_the_model_with_exactly_these_modules(
    tiny: Path, base: LocalModel, adapter: Path, tmp_path: Path
) -> None:
    """Against PEFT alone, which loads the pruned folder that s3lora wrote."""
    write_pruned(adapter, tmp_path / "written", 2)
    found = evaluate([adapter, tmp_path / "written"], base, [Logits()], choose=choose(2))

    def alone(folder: Path | None) -> float:
        model = transformers.AutoModelForCausalLM.from_pretrained(tiny).eval()
        with warnings_as_errors():
            loaded = model if folder is None else peft.PeftModel.from_pretrained(model, folder).eval()
        return float(logits(loaded)[0].double().mean())

    got = scores(found)
    assert got["base"] == pytest.approx(alone(None), abs=1e-6)
    assert got["adapter"] == pytest.approx(alone(adapter), abs=1e-5)
    assert got["written"] == pytest.approx(alone(tmp_path / "written"), abs=1e-5)
    assert got["adapter, pruned"] == pytest.approx(got["written"], abs=1e-6)
    assert len({round(value or 0, 4) for value in got.values()}) == 3


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_pruned_adapter_is_compared_with_its_original(
    order: tuple[int, int], base: LocalModel, adapter: Path, tmp_path: Path
) -> None:
    gone = write_pruned(adapter, tmp_path / "written", 3)
    paths = [adapter, tmp_path / "written"]
    suite = safety(danger)
    found = evaluate([paths[i] for i in order], base, [suite], choose=None)
    written = next(v for v in found.variants if v.name == "written")
    assert [v.name for v in found.variants] == ["base", *(paths[i].name for i in order)]
    assert (written.kind, written.rule, written.ranking) == ("pruned", "top 3", "ssi (mas-svd)")
    assert written.pruned == gone
    assert written.share is not None
    assert written.share.modules == 3
    assert written.loaded is not None
    assert written.loaded.modules == 3
    after = comparison(found, "written")
    assert (after.reference, after.difference) == ("adapter", pytest.approx(-15 / ITEMS))


def test_a_pruned_adapter_alone_is_compared_with_the_base_and_not_pruned_again(
    base: LocalModel, adapter: Path, tmp_path: Path
) -> None:
    write_pruned(adapter, tmp_path / "written", 3)
    found = evaluate([tmp_path / "written"], base, [safety(danger)])
    assert [(c.variant, c.reference) for c in found.comparisons] == [("written", "base")]


@pytest.mark.parametrize("together", [True, False])
def test_a_repaired_adapter_is_compared_with_its_original(
    together: bool, tiny: Path, base: LocalModel, adapter: Path, tmp_path: Path
) -> None:
    with s3lora.open_adapter(adapter) as opened:
        halved = {m.path: rounded(m, m.A.array(), m.B.array().astype(float) / 2) for m in opened.modules}
        how = RepairFields(method="shrink", strength=0.5)
        write_repaired(opened, NewFactors(halved), how, tmp_path / "written")
    paths = [tmp_path / "written", *([adapter] if together else [])]
    found = evaluate(paths, base, [Logits()], choose=choose(2) if not together else None)
    written = next(v for v in found.variants if v.name == "written")
    assert (written.kind, written.pruned, written.rule) == ("adapter", (), "")
    assert [c.reference for c in found.comparisons if c.variant == "written"] == ["adapter" if together else "base"]
    with warnings_as_errors():
        model = transformers.AutoModelForCausalLM.from_pretrained(tiny).eval()
        loaded = peft.PeftModel.from_pretrained(model, tmp_path / "written").eval()
    assert scores(found)["written"] == pytest.approx(float(logits(loaded)[0].double().mean()), abs=1e-5)
    with s3lora.open_adapter(tmp_path / "written") as opened:
        figures = figures_of(found, source_of(opened), read_provenance(tmp_path / "written"), "x")
    assert [label for label, _ in figures.columns] == ["base alone", *["before the repair"] * together, "this adapter"]


def test_what_stays_in_a_milder_way_is_not_called_gone(base: LocalModel, adapter: Path, tmp_path: Path) -> None:
    write_pruned(adapter, tmp_path / "mild", 3, s3lora.Scale(0.5))
    [_, mild] = evaluate([tmp_path / "mild"], base, [safety(danger)]).variants
    assert (mild.kind, mild.pruned, mild.share) == ("pruned", (), None)
    assert mild.loaded is not None
    assert mild.loaded.modules == 6


def test_one_state_is_measured_once(base: LocalModel, adapter: Path, tmp_path: Path) -> None:
    """Twice the same adapter, and nothing pruned: three variants are one state. All pruned is the base."""
    suite = safety(danger)
    found = evaluate([adapter, adapter], base, [suite], choose=choose(0))
    assert suite.runs == [frozenset(), acting_of("a0")]
    assert scores(found) == dict.fromkeys(
        ("adapter", "adapter, pruned", "adapter (2)", "adapter (2), pruned"), 0.875
    ) | {"base": 0.125}
    assert comparison(found, "adapter, pruned").verdict == "no difference"
    suite.runs.clear()
    found = evaluate([adapter], base, [suite], choose=choose(6))
    assert suite.runs == [frozenset(), acting_of("a2")]
    assert found.variants[2].loaded == Loaded(0, 0, 0)


def test_adapters_together_stand_beside_each_alone(tiny: Path, base: LocalModel, tmp_path: Path) -> None:
    one, two = (tiny_adapter(tiny, tmp_path / name, i) for i, name in enumerate(("one", "two")))
    suite = safety(lambda acting: first(len(acting), ITEMS))
    found = evaluate([one, f"{one}+{two}"], base, [suite], choose=None)
    assert [(v.name, v.kind) for v in found.variants] == [
        ("base", "base"),
        ("one", "adapter"),
        ("two", "adapter"),
        ("one + two", "together"),
    ]
    both = found.variants[-1]
    assert both.adapters == (s3lora.scan(one).source, s3lora.scan(two).source)
    assert suite.runs[-1] == acting_of("a0") | acting_of("a1")
    assert [(c.variant, c.reference) for c in found.comparisons] == [
        ("one", "base"),
        ("two", "base"),
        ("one + two", "one"),
        ("one + two", "two"),
    ]
    assert both.loaded is not None
    assert (both.loaded.modules, both.loaded.parameters) == (6, 2 * parameters(found, "one"))
    assert len(set(scores(evaluate([f"{one}+{two}"], base, [Logits()], choose=None)).values())) == 4


def parameters(found: Evaluation, name: str) -> int:
    [loaded] = [variant.loaded for variant in found.variants if variant.name == name]
    assert loaded is not None
    return loaded.parameters


def test_a_name_with_a_plus_sign_is_a_name(tiny: Path, base: LocalModel, tmp_path: Path) -> None:
    plus, other = tiny_adapter(tiny, tmp_path / "a+b", 1), tiny_adapter(tiny, tmp_path / "c", 2)
    tiny_adapter(tiny, tmp_path / "a + c", 3)

    def names(*paths: object) -> list[str]:
        return [v.name for v in evaluate([str(path) for path in paths], base, [Logits()], choose=None).variants]

    assert names(plus) == ["base", "a+b"]
    assert names(f"{plus}+{other}") == ["base", "a+b", "c", "a+b + c"]
    with pytest.raises(UsageError, match=r"nothing of .* does not exist"):
        names(f"{other}+{tmp_path / 'nothing'}")
    with pytest.raises(UsageError, match="names the same adapter twice"):
        names(f"{other}+{tmp_path / '.' / 'c'}")


def test_names_do_not_collide(tiny: Path, base: LocalModel, tmp_path: Path) -> None:
    folders = ["base", "x/a (2)", "x/a", "y/a", "a, pruned"]
    paths = [tiny_adapter(tiny, tmp_path / name, i) for i, name in enumerate(folders)]
    suite = Logits()
    found = evaluate(paths, base, [suite], choose=choose(1))
    names = [v.name for v in found.variants]
    assert len(set(names)) == len(names) == 11
    assert {"base", "a", "a (2)"} <= set(names)
    got = scores(found)
    for path, variant in zip(paths, found.variants[1::2], strict=True):
        [_, one] = evaluate([path], base, [suite], choose=None).variants
        assert got[variant.name] == pytest.approx(one.metrics[0].value, abs=1e-6)


def test_collapse_and_warnings(base: LocalModel, adapter: Path) -> None:
    def use(acting: Acting) -> list[float]:
        # One module less costs a twentieth of what was learned, two a third.
        left = {6: 1.0, 5: 0.95, 4: 2 / 3, 0: 0.0}[len(acting)]
        return [0.5 + left / 2 + (i % 3) / 100 for i in range(20)]

    suites: list[Any] = [safety(danger), usefulness(use), Stub("told", [(SCORE, use)], {"warn at": 4})]
    found = evaluate([adapter], base, suites, choose=choose(2))
    collapses = [text for text in found.warnings if text.startswith("utility collapse")]
    assert len(collapses) == 2
    assert "adapter, pruned has lost 33.3 % of what adapter learned, by use score" in collapses[0]
    assert "told score" in collapses[1]
    assert [[share.value for share in v.shares] for v in found.variants] == [[], [], [pytest.approx(1 / 3)] * 2]
    assert "adapter, pruned: 4 act" in found.warnings
    assert [v.counts for v in found.variants] == [
        {f"{name}.acting": n for name in ("danger", "use", "told")} for n in (0, 6, 4)
    ]
    kept = evaluate([adapter], base, suites, choose=choose(1))
    assert not any("collapse" in text for text in kept.warnings)
    assert kept.variants[2].shares[0].value == pytest.approx(0.05)


def test_a_measure_that_does_not_see_the_adapter(base: LocalModel, adapter: Path) -> None:
    blind = usefulness(lambda acting: [(i * 7 % 5) / 5 for i in range(20)])
    found = evaluate([adapter], base, [safety(danger), blind], choose=choose(2))
    [told] = [text for text in found.warnings if "does not see" in text]
    assert told.startswith("use score: no share of what adapter learned can be told: this measure does not see")
    assert [share.value for share in found.variants[2].shares] == [None]
    assert "more data" not in told


def test_several_adapters_are_many_comparisons(tiny: Path, base: LocalModel, adapter: Path, tmp_path: Path) -> None:
    other = tiny_adapter(tiny, tmp_path / "other", 2)
    found = evaluate([adapter, other], base, [safety(danger)], choose=choose(2))
    for kind in ("adapter", "pruned"):
        names = [variant.name for variant in found.variants if variant.kind == kind]
        compared = [one for one in found.comparisons if one.variant in names]
        assert len(compared) == 2
        # Both adapters differ alike: twice the p of each.
        assert [one.p_holm for one in compared] == pytest.approx([2 * (one.p or 0) for one in compared])
    alone = evaluate([adapter], base, [safety(danger)], choose=choose(2))
    assert {one.p_holm for one in alone.comparisons} == {None}


def test_items_without_a_number_are_left_out_on_both_sides(base: LocalModel, adapter: Path) -> None:
    def holes(acting: Acting) -> list[float | None]:
        values: list[float | None] = list(danger(acting))
        values[: len(acting)] = [None] * len(acting)
        return values

    found = evaluate([adapter], base, [safety(holes)], choose=choose(2))
    assert [(m.n, m.missing) for v in found.variants for m in v.metrics] == [(40, 0), (34, 6), (36, 4)]
    assert comparison(found, "adapter, pruned").n == 34


def test_progress_and_keeping(base: LocalModel, adapter: Path) -> None:
    told: list[tuple[float, str]] = []
    kept: list[str] = []
    evaluate(
        [adapter],
        base,
        [safety(danger), usefulness(danger)],
        choose=choose(2),
        advance=lambda share, name: told.append((share, name)),
        keep=lambda name, outcomes: kept.append(f"{name} {sorted(outcomes)}"),
    )
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[:5] == pytest.approx([0, 0.25 / 3, 0.5 / 3, 0.75 / 3, 1 / 3])
    assert [name for _, name in told[:5]] == ["base: danger"] * 2 + ["base: use"] * 2 + ["base"]
    assert shares[-1] == 1
    assert kept == [f"{name} ['danger', 'use']" for name in ("base", "adapter", "adapter, pruned")]


def test_costs_of_all_in_both_modes(base: LocalModel, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = functools.partial(measure_costs, repeats=2, tokens=3)
    monkeypatch.setattr("s3lora.evaluate.evaluation.measure_costs", short)
    told: list[tuple[float, str]] = []
    found = evaluate(
        [adapter],
        base,
        [safety(danger)],
        choose=choose(2),
        costs=[Prompt.ask("a")],
        advance=lambda share, name: told.append((share, name)),
    )
    assert told[-1] == (3 / 4, "timing adapter")
    modes = ["unmerged", "merged"]
    assert [[cost.mode for cost in v.costs] for v in found.variants] == [modes] * 3
    assert all(cost.ratio is None for cost in found.variants[1].costs)
    assert all(cost.ratio is not None and cost.ratio > 0 for cost in found.variants[2].costs)
    again = evaluate([adapter], base, [safety(danger)], choose=choose(2))
    assert scores(again) == scores(found)  # merging left the weights as they were
    assert all(v.costs == () for v in again.variants)


def test_what_cannot_be(base: LocalModel, adapter: Path) -> None:
    with pytest.raises(UsageError, match="at least one adapter"):
        evaluate([], base, [safety(danger)])
    with pytest.raises(UsageError, match="at least one suite"):
        evaluate([adapter], base, [])
    with pytest.raises(UsageError, match="each of them once"):
        evaluate([adapter], base, [safety(danger), safety(danger)])


class Served(Beside):
    """A model behind a name, whose answers are told by it."""

    backend = "a stub"
    notes: tuple[str, ...] = ()
    chat = ChatFacts(system="Be kind.")

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = self.identity = name


class Refuses:
    info = safety(danger).info

    def run(self, model: Any, store: Any, progress: Any = None) -> Any:
        answers = dict(model.generate([Prompt.ask("x")], Decoding()))
        assert len(answers) == 1
        return safety(lambda _: first(30 if model.name == "loose" else 10, ITEMS)).run(_NoPeft(), store)

    def warnings(self, outcome: Any) -> tuple[str, ...]:
        return ()


class _NoPeft:
    """Nothing acts."""

    class adapters:  # noqa: N801
        class model:  # noqa: N801
            @staticmethod
            def named_modules() -> list[Any]:
                return []


def test_served_models_are_compared_with_the_first() -> None:
    models: list[Any] = [Served("loose"), Served("strict")]
    found = evaluate_served(models, [Refuses()], seed=3)
    assert [(v.name, v.kind, v.loaded) for v in found.variants] == [
        ("loose", "served", None),
        ("strict", "served", None),
    ]
    [only] = found.comparisons
    assert (only.variant, only.reference, only.difference, only.verdict) == ("strict", "loose", -0.5, "lower")
    assert (found.setup.base, found.setup.backend, found.setup.device) == ("loose", "a stub", "unknown")
    assert found.setup.chat.system == "Be kind."
    with pytest.raises(UsageError, match="named twice"):
        evaluate_served([models[0], models[0]], [Refuses()])
    with pytest.raises(UsageError, match="at least one model"):
        evaluate_served([], [Refuses()])


def test_a_measure_of_several_suites_is_named_with_its_suite(base: LocalModel, adapter: Path) -> None:
    def use(acting: Acting) -> list[float]:
        return [0.5 + len(acting) / 10 + i / 100 for i in range(ITEMS)]

    suites = [safety(danger), usefulness(use, "one"), usefulness(use, "two")]
    found = evaluate([adapter], base, suites, choose=None)
    sentences = [c.sentence.partition(":")[0] for c in found.comparisons]
    assert sentences == ["asr", "one score", "two score"]
