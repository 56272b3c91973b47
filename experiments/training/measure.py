"""The numbers of one arm on one part."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from experiments.comparing import ComparingModel
from experiments.repair.measured import number, state
from experiments.repair.setting import Places, data_of, digest_of_adapter
from experiments.training.arms import adapter_of, seen_of, warned_at
from experiments.training.setting import Arm, Scale
from s3lora.evaluate.bench import Bench
from s3lora.evaluate.chat import Decoding
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.planning.questions import built_in
from s3lora.evaluate.planning.suite import NAME as PLANNING
from s3lora.evaluate.planning.suite import PlanningSuite
from s3lora.evaluate.store import AnswerStore
from s3lora.repair.measuring import PartBench


def measured(places: Places, scale: Scale, arm: Arm, part: str, seconds: dict[str, float]) -> dict[str, Any]:
    """Return what an adapter and its base do on the `tuning` or the `test` part."""
    data = data_of(places, scale.settings)
    chosen = {"tuning": data.tuning, "test": data.test}[part]
    folder = adapter_of(places, arm)
    with ExitStack() as stack:
        store = stack.enter_context(AnswerStore(places.work / "training.sqlite"))
        model = LocalModel(str(places.base(arm.run.base)), dtype=scale.settings.dtype)
        attached = model.attach(str(folder))
        judge = scale.settings.judge
        bench = PartBench.of(model, attached, chosen, judge, store=store, seed=0, advance=None, expected=2)
        found = {"base_state": state(bench, bench.base()), "state": state(bench, bench.adapter(), items=True)}
        if part == "test":
            plans = Bench([_plans(scale)], store, seed=0)
            found["plans"] = _metric(plans, bench.adapter(bench=plans))
    names = (chosen.harmful, chosen.harmless, chosen.task)
    return {
        "arm": arm.name,
        "attack": arm.attack,
        "seed": arm.seed,
        "weights": arm.weights,
        "part": part,
        "data": [[len(one), one.data.sha256 if hasattr(one, "data") else one.sha256] for one in names],
        "digests": {"base": model.base_identity, "adapter": digest_of_adapter(folder)},
        "setup": {"backend": model.backend, "dtype": model.dtype, "device": model.device.type},
        "judge": str(judge),
        **found,
        "looks": seen_of(folder),
        "warned_at": warned_at(seen_of(folder)),
        "seconds": seconds,
    }


def _plans(scale: Scale) -> PlanningSuite:
    """Return the suite that generates plans; a rule answers their comparisons."""
    decoding = Decoding(max_new_tokens=scale.plan_tokens)
    return PlanningSuite(built_in(scale.plans), decoding, helper=ComparingModel(), losses=False)


def _metric(bench: Bench, outcomes: Any) -> dict[str, Any]:
    found = {metric.measure: number(metric) for metric in bench.metrics(outcomes) if metric.suite == PLANNING}
    return {name: found[name] for name in ("well_formed", "exact_match")}
