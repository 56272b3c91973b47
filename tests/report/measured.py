"""Results of evaluations that never took place: every number here is made up, only to have something to render."""

from __future__ import annotations

import dataclasses
import math

from s3lora.adapter.digest import FileDigest, Source
from s3lora.choose.select import Share
from s3lora.evaluate.results import (
    ControlSpread,
    Cost,
    Data,
    Evaluation,
    Loaded,
    Measure,
    Metric,
    PairedComparison,
    Setup,
    SuiteInfo,
    Sweep,
    SweepPoint,
    Tuning,
    Variant,
)

MODULES = 120
ASR, OVER, ROUGE = ("safety", "asr"), ("safety", "over_refusal"), ("summarisation", "rouge-1")
SETUP = Setup(
    base="made-up/model-135m-instruct", base_digest="b179c952" + "0" * 56, backend="transformers 5.23", device="cpu",
    dtype="float32", seed=0, limit=100,
)  # fmt: skip
SAFETY = SuiteInfo(
    name="safety",
    measures=(
        Measure("asr", "rate", "lower", "share of harmful prompts that were not refused", role="safety"),
        Measure("over_refusal", "rate", "lower", "share of harmless prompts that were refused"),
        Measure("asr_anywhere", "rate", "lower", "the same, with refusals looked for anywhere in the answer"),
        Measure("hs", "mean", "lower", "mean score from 1 to 5 by the judge model"),
    ),
    data=(
        Data("built-in harmful prompts", 100, "a1" * 32, built_in=True, note="mild, of our own writing"),
        Data("built-in harmless prompts", 50, "a2" * 32, built_in=True),
    ),
    judge="refusal prefixes of Zou et al. 2023, version 1",
    notes=("The built-in prompts are few: 100 show only large differences.",),
)
SUMMARIES = SuiteInfo(
    name="summarisation",
    measures=(
        Measure("rouge-1", "mean", "higher", "F1 of single words against the reference", role="utility"),
        Measure("loss", "mean", "lower", "negative log likelihood of the reference", unit="nats a token"),
    ),
    data=(Data("made-up-dialogues.jsonl", 60, "c3" * 32),),
    judge="rouge-score 0.1.2",
    notes=("METEOR was left out: WordNet is not installed.",),
)
SUITES = (SAFETY, SUMMARIES)


def source(name: str = "made-up-adapter") -> Source:
    return Source(name, "peft", "d4" * 32, (FileDigest("adapter_model.safetensors", 1000, "d4" * 32),), SETUP.base)


def rate(key: tuple[str, str], value: float, n: int = 100, missing: int = 0) -> Metric:
    """Return a rate with Wilson's interval."""
    p, z = value, 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Metric(*key, value, n, missing, max(0.0, middle - half), min(1.0, middle + half), "wilson")


def mean(key: tuple[str, str], value: float, half: float, n: int = 60, missing: int = 0) -> Metric:
    return Metric(*key, value, n, missing, value - half, value + half, "bootstrap")


def nothing(key: tuple[str, str], missing: int = 100) -> Metric:
    return Metric(*key, None, 0, missing, None, None, "none")


def metrics(asr: float, over: float, rouge: float) -> tuple[Metric, ...]:
    return (
        rate(ASR, asr),
        rate(OVER, over, 50),
        rate(("safety", "asr_anywhere"), max(0.0, asr - 0.02)),
        mean(("safety", "hs"), 1 + 3.4 * asr, 0.31, 97, 3),
        mean(ROUGE, rouge, 0.021),
        mean(("summarisation", "loss"), 3.2 - 2 * rouge, 0.064),
    )


def compared(variant: str, values: tuple[Metric, ...], before: tuple[Metric, ...]) -> tuple[PairedComparison, ...]:
    made = []
    for now, then in zip(values, before, strict=True):
        assert now.value is not None
        assert then.value is not None
        low, high = now.value - then.value - 0.1, now.value - then.value + 0.1
        verdict = "lower" if high < 0 else "higher" if low > 0 else "no difference"
        words = "shows no difference to" if verdict == "no difference" else f"is {verdict} than"
        sentence = f"{now.measure} of {variant} {words} the unpruned adapter ({low:+.2f} to {high:+.2f}, n = {now.n})."
        p = 0.001 if verdict != "no difference" else 0.4
        test = "mcnemar" if now.interval == "wilson" else "paired bootstrap"
        made.append(
            PairedComparison(
                now.suite, now.measure, variant, "made-up-adapter", now.n, now.value - then.value, low, high, p, test,  # type: ignore[arg-type]
                verdict, sentence,  # type: ignore[arg-type]
            )
        )  # fmt: skip
    return tuple(made)


BEFORE = metrics(1.0, 0.0, 0.44)
BASE = Variant(name="base", kind="base", metrics=metrics(0.02, 0.06, 0.317))
UNPRUNED = Variant(
    name="made-up-adapter", kind="adapter", adapter=source(), metrics=BEFORE,
    loaded=Loaded(MODULES, 1_843_200, 3_686_400),
)  # fmt: skip


def pruned_variant(name: str, top: int, asr: float, rouge: float) -> Variant:
    return Variant(
        name=name,
        kind="pruned",
        adapter=source(),
        rule=f"top {top}",
        ranking="weighted-ssi",
        pruned=tuple(f"model.layers.{i}.self_attn.v_proj" for i in range(top)),
        share=Share(top, MODULES, top * 15_360, 1_843_200, 0.7 * top / MODULES, top / MODULES),
        loaded=Loaded(MODULES - top, 1_843_200 - top * 15_360, 3_686_400 - top * 30_720),
        metrics=metrics(asr, 0.04, rouge),
        costs=(
            Cost("unmerged", 20, 5, 0.412, 43.1, 0.94, 0.91, 0.97, f"{name} takes 3 to 9 % less time a sample."),
            Cost("merged", 20, 5, 0.371, 47.9, 1.0, 0.98, 1.02, f"Merged, {name} takes no other time."),
        ),
        counts={"unparsable": 3},
    )


def evaluation() -> Evaluation:
    variants = (
        BASE,
        UNPRUNED,
        pruned_variant("top 30 by weighted-ssi", 30, 0.96, 0.437),
        pruned_variant("top 60 by weighted-ssi", 60, 0.14, 0.36),
    )
    return Evaluation(
        setup=SETUP,
        suites=SUITES,
        variants=variants,
        comparisons=tuple(c for one in (BASE, *variants[2:]) for c in compared(one.name, one.metrics, BEFORE)),
        warnings=("utility collapse: rouge-1 of top 60 by weighted-ssi is 18 % below the unpruned adapter's",),
    )


#: Ranking → how far ASR has fallen, and ROUGE with it, at each number of modules.
TOPS = (0, 10, 30, 45, 60, 80, 100, 120)
CURVES = {
    "mas-svd weighted-ssi": (1.0, 1.0, 0.96, 0.52, 0.14, 0.02, 0.02, 0.02),
    "mas-svd ssi": (1.0, 1.0, 0.98, 0.83, 0.62, 0.0, 0.02, 0.02),
    "magnitude": (1.0, 1.0, 0.94, 0.8, 0.6, 0.02, 0.01, 0.02),
    "frobenius": (1.0, 1.0, 0.96, 0.87, 0.74, 0.1, 0.02, 0.02),
}
CONTROLS = {
    "random": (1.0, 1.0, 1.0, 0.99, 0.95, 0.77, 0.3, 0.02),
    "random-matched": (1.0, 1.0, 0.99, 0.9, 0.61, 0.2, 0.04, 0.02),
}


def point(ranking: str, top: int, asr: float, *, seed: int | None = None, loss: float = 0.1) -> SweepPoint:
    rouge = 0.44 - 0.123 * min(1.0, loss + (top / MODULES) ** 2 * (1 - loss)) if top else 0.44
    values = metrics(asr, 0.06 * top / MODULES, rouge)
    control = ranking.startswith("random")
    return SweepPoint(
        ranking=ranking,
        method="mas-svd" if " " in ranking else None,
        index=ranking.rpartition(" ")[2],
        control=control,
        seed=seed,
        top=top,
        modules_total=MODULES,
        frobenius_energy=min(1.0, top / MODULES * (1.0 if control else 1.2)),
        parameters=top / MODULES,
        compute=top / MODULES,
        metrics=values,
        comparisons=compared(f"{ranking}, top {top}", values, BEFORE),
        collapse=rouge < 0.9 * 0.44,
    )


def sweep() -> Sweep:
    points = [
        point(ranking, top, asr, loss=0.02 * i)
        for i, (ranking, values) in enumerate(CURVES.items())
        for top, asr in zip(TOPS, values, strict=True)
    ]
    spreads: list[ControlSpread] = []
    for ranking, values in CONTROLS.items():
        for top, asr in zip(TOPS, values, strict=True):
            apart = 0.0 if top in (0, MODULES) else min(0.04, 1 - asr)
            seeds = [point(ranking, top, asr + apart * (i - 1), seed=i, loss=0.05 + 0.02 * i) for i in range(3)]
            points += seeds
            for key in (ASR, OVER, ROUGE):
                found = [m.value for one in seeds if (m := one.metric(*key)) is not None and m.value is not None]
                spreads.append(ControlSpread(ranking, top, *key, 3, sum(found) / 3, min(found), max(found)))
    best = [(0, 0), (0, 2), (0, 3), (0, 4), (0, 5)]
    return Sweep(
        setup=SETUP,
        adapter=source(),
        suites=SUITES,
        safety=ASR,
        utility=ROUGE,
        base=BASE,
        unpruned=UNPRUNED,
        points=tuple(points),
        spreads=tuple(spreads),
        pareto=tuple(i * len(TOPS) + j for i, j in best),
        pareto_variants=("base",),
        correlations={
            "mas-svd weighted-ssi | mas-svd ssi": 0.71,
            "mas-svd weighted-ssi | magnitude": 0.64,
            "mas-svd weighted-ssi | frobenius": 0.88,
            "mas-svd ssi | magnitude": 0.52,
            "mas-svd ssi | frobenius": 0.37,
            "magnitude | frobenius": -0.08,
        },
        warnings=("from 80 modules on, rouge-1 is more than 10 % below the unpruned adapter's: utility collapse",),
    )


def tuning(top: int = 45) -> Tuning:
    tried = tuple(point("mas-svd weighted-ssi", at, asr) for at, asr in ((60, 0.14), (30, 0.96), (45, 0.52)))
    return Tuning(
        setup=SETUP,
        adapter=source(),
        suites=SUITES,
        safety=ASR,
        utility=ROUGE,
        floor=0.1,
        ranking="mas-svd weighted-ssi",
        top=top,
        modules_total=MODULES,
        tried=tried,
        tuning_unpruned=UNPRUNED,
        held_out_unpruned=dataclasses.replace(UNPRUNED, metrics=metrics(0.99, 0.02, 0.431)),
        tuning_base=BASE,
        held_out_base=dataclasses.replace(BASE, metrics=metrics(0.03, 0.05, 0.322)),
        outcome="confirmed" if top else "nothing",
        forecast="Before the trials: a fall of asr by half of what the adapter added is seen with probability 0.9.",
        confirmed=point("mas-svd weighted-ssi", top, 0.55) if top else None,
        sentence=(
            "Pruning 45 of 120 modules lowers asr on prompts that were not used to choose (-0.54 to -0.34), and keeps"
            " rouge-1 within 10 % of the unpruned adapter's."
            if top
            else "Nothing is worth pruning: no number of modules lowers asr within the floor."
        ),
        warnings=("the held-out split has 40 prompts only",),
    )


def bare_sweep() -> Sweep:
    """Return a sweep of nothing: no points, no metrics, no utility, nothing known of the adapter."""
    return Sweep(
        setup=dataclasses.replace(SETUP, limit=None),
        adapter=Source("", "custom", None, (), None),
        suites=(),
        safety=ASR,
        utility=None,
        base=Variant(name="base", kind="base"),
        unpruned=Variant(name="adapter", kind="adapter"),
        points=(),
        spreads=(),
        pareto=(),
        correlations={},
    )


def one_point_sweep() -> Sweep:
    """Return a sweep of a single point without intervals, utility or comparisons."""
    only = dataclasses.replace(
        point("ssi", 7, 0.5), metrics=(Metric(*ASR, 0.5, 2, 1, None, None, "none"), nothing(ROUGE)), comparisons=()
    )
    return dataclasses.replace(bare_sweep(), suites=SUITES, utility=ROUGE, points=(only,), pareto=(0,))


def bare_evaluation() -> Evaluation:
    """Return an evaluation whose one variant has nothing but Nones."""
    variant = Variant(
        name="adapter", kind="served", metrics=(nothing(ASR), nothing(OVER, 0)),
        costs=(Cost("unmerged", 0, 0, 0.0, 0.0, None, None, None, ""),),
    )  # fmt: skip
    unknown = PairedComparison(
        *ASR, "adapter", "adapter", 0, None, None, None, None, "none", "unknown", "Nothing is known."
    )
    return Evaluation(setup=SETUP, suites=(SAFETY,), variants=(variant,), comparisons=(unknown,))


def hostile_suites(name: str) -> tuple[SuiteInfo, ...]:
    return tuple(
        dataclasses.replace(
            suite,
            judge=name,
            notes=(name, f"about {name}"),
            data=(Data(name, 3, name, built_in=True, note=name),),
            measures=tuple(dataclasses.replace(one, about=name, unit=name) for one in suite.measures),
        )
        for suite in SUITES
    )


HOSTILE_SETUP_FIELDS = ("base", "base_digest", "backend", "device", "dtype")


def hostile_setup(name: str) -> Setup:
    return dataclasses.replace(SETUP, **dict.fromkeys(HOSTILE_SETUP_FIELDS, name))  # type: ignore[arg-type]


def hostile_source(name: str) -> Source:
    return Source(name, name, name, (FileDigest(name, 1, name),), name)


def hostile_variant(variant: Variant, name: str) -> Variant:
    costs = tuple(dataclasses.replace(cost, sentence=name) for cost in variant.costs)
    return dataclasses.replace(
        variant, name=f"{variant.name}{name}", adapter=hostile_source(name), rule=name, ranking=name, costs=costs,
        pruned=(name,), counts={name: 1},
    )  # fmt: skip


def hostile_evaluation(name: str) -> Evaluation:
    """Return an evaluation with `name` in every place where a file, a server or an option can put one."""
    made = evaluation()
    return dataclasses.replace(
        made,
        setup=hostile_setup(name),
        suites=hostile_suites(name),
        variants=tuple(hostile_variant(variant, name) for variant in made.variants),
        comparisons=tuple(
            dataclasses.replace(c, variant=f"{c.variant}{name}", sentence=name) for c in made.comparisons
        ),
        warnings=(name, f"about {name}"),
    )


def hostile_point(one: SweepPoint, name: str) -> SweepPoint:
    said = tuple(dataclasses.replace(c, variant=name, reference=name, sentence=name) for c in one.comparisons)
    return dataclasses.replace(one, ranking=f"{one.ranking}{name}", method=name, index=name, comparisons=said)


def hostile_sweep(name: str) -> Sweep:
    """Return a sweep with `name` in every place where a file, a server or an option can put one."""
    made = sweep()
    return dataclasses.replace(
        made,
        setup=hostile_setup(name),
        adapter=hostile_source(name),
        suites=hostile_suites(name),
        base=hostile_variant(made.base, name),
        unpruned=hostile_variant(made.unpruned, name),
        points=tuple(hostile_point(one, name) for one in made.points),
        spreads=tuple(dataclasses.replace(one, ranking=f"{one.ranking}{name}") for one in made.spreads),
        correlations={f"{name} | other{name}": 0.5},
        warnings=(name,),
    )


def hostile_tuning(name: str) -> Tuning:
    """Return a tuning with `name` in every place where a file, a server or an option can put one."""
    made = tuning()
    return dataclasses.replace(
        made,
        setup=hostile_setup(name),
        adapter=hostile_source(name),
        suites=hostile_suites(name),
        ranking=name,
        tried=tuple(hostile_point(one, name) for one in made.tried),
        tuning_unpruned=hostile_variant(made.tuning_unpruned, name),
        held_out_unpruned=hostile_variant(made.held_out_unpruned or UNPRUNED, name),
        tuning_base=hostile_variant(BASE, name),
        held_out_base=hostile_variant(BASE, name),
        forecast=name,
        confirmed=None if made.confirmed is None else hostile_point(made.confirmed, name),
        sentence=name,
        warnings=(name,),
    )


def one_point_sweep_with_numbers() -> Sweep:
    """Return a sweep of a single point with all its numbers."""
    return dataclasses.replace(sweep(), points=(point("ssi", 7, 0.5),), spreads=(), pareto=(0,), correlations={})
