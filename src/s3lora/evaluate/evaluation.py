"""Evaluate: the base, each adapter and each pruned adapter on the same prompts, compared item by item."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s3lora.choose.select import Plan, select
from s3lora.errors import AdapterFileError, UsageError
from s3lora.evaluate.attach import Attached, State
from s3lora.evaluate.bench import Advance, Bench, Outcomes
from s3lora.evaluate.chat import Model, Prompt, digest_of
from s3lora.evaluate.cost import Mode, measure_costs
from s3lora.evaluate.endpoint import EndpointModel
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.results import Comparison, Cost, Evaluation, Setup, Variant
from s3lora.evaluate.store import Store
from s3lora.evaluate.suite import Suite
from s3lora.measure.scan import Scan, scan
from s3lora.rewrite.provenance import Provenance, read_provenance

AdapterPath = str | os.PathLike[str]
#: Chooses what to prune from an adapter: (its path) → (its scan, the plan).
Chooser = Callable[[str], tuple[Scan, Plan]]
#: Called with a variant's name and what the suites found for it.
Keep = Callable[[str, Outcomes], None]
#: The name of the base alone, and what follows an adapter's name where modules were taken out of it.
BASE, PRUNED = "base", ", pruned"


@dataclass(frozen=True)
class _Entry:
    """A state to be measured, and the name of what it is compared with."""

    variant: Variant
    state: State
    reference: str | None


def choose_default(path: str) -> tuple[Scan, Plan]:
    """Return the scan and plan of `s3lora prune` without options."""
    measured = scan(path)
    return measured, select(measured)


def evaluate(
    adapters: Sequence[AdapterPath],
    base: str | LocalModel,
    suites: Sequence[Suite],
    *,
    choose: Chooser | None = choose_default,
    store: Store | None = None,
    seed: int = 0,
    limit: int | None = None,
    costs: Sequence[Prompt] = (),
    advance: Advance | None = None,
    keep: Keep | None = None,
) -> Evaluation:
    """Measure the base alone, each adapter, and each adapter without the modules that `choose` takes out.

    Parameters:
        adapters: PEFT folders. One that s3lora pruned is compared with its original where that is given too, and is
            not pruned again.
        base: the base model (see `LocalModel`), or one that is loaded already.
        suites: what to measure.
        choose: what to prune; None evaluates the adapters as they are.
        store: answers kept on disk.
        seed: of every bootstrap.
        limit: of the suites, for the record only.
        costs: prompts to time generation on; none times nothing.
        advance: told how far the work is.
        keep: called with every variant's outcomes.

    Raises the errors of `LocalModel`, of `attach` and of the suites.
    """
    if not adapters:
        raise UsageError("give at least one adapter")
    model = base if isinstance(base, LocalModel) else LocalModel(base)
    entries, notes = _entries(model, [str(path) for path in adapters], choose)
    bench = Bench(suites, store, seed=seed, expected=len(entries), advance=advance)
    found: dict[str, Outcomes] = {}
    for entry in entries:
        model.adapters.use(entry.state)
        name = entry.variant.name
        found[name] = bench.measure(model, name)
        entry = replace(entry, variant=replace(entry.variant, loaded=model.loaded()))
        entries[_position(entries, name)] = entry
        notes += bench.warnings(name, found[name])
        if keep is not None:
            keep(name, found[name])
    timed = _costs(model, entries, costs, seed) if costs else {}
    setup = setup_of(model, seed, limit)
    pairs = [(entry.variant.name, entry.reference) for entry in entries]
    variants = [replace(e.variant, costs=tuple(timed.get(e.variant.name, ()))) for e in entries]
    return _finish(bench, setup, variants, pairs, found, [*model.base.notes, *notes])


def evaluate_served(
    models: Sequence[EndpointModel],
    suites: Sequence[Suite],
    *,
    store: Store | None = None,
    seed: int = 0,
    limit: int | None = None,
    advance: Advance | None = None,
    keep: Keep | None = None,
) -> Evaluation:
    """Measure models behind servers, such as an adapter and its pruned version; the first is the reference.

    Raises EndpointError where a server does not answer.
    """
    if not models:
        raise UsageError("give at least one model")
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise UsageError("the same model is named twice")
    bench = Bench(suites, store, seed=seed, expected=len(models), advance=advance)
    found: dict[str, Outcomes] = {}
    notes: list[str] = []
    for model in models:
        found[model.name] = bench.measure(model, model.name)
        notes += [*model.notes, *bench.warnings(model.name, found[model.name])]
        if keep is not None:
            keep(model.name, found[model.name])
    digest = digest_of([model.identity for model in models])
    setup = Setup(names[0], digest, "OpenAI-compatible server", "unknown", "unknown", seed, limit)
    variants = [Variant(name=name, kind="served") for name in names]
    pairs = [(name, None if i == 0 else names[0]) for i, name in enumerate(names)]
    return _finish(bench, setup, variants, pairs, found, notes)


def setup_of(model: LocalModel, seed: int, limit: int | None) -> Setup:
    """Return how a model in this process was run."""
    return Setup(model.name, model.base_identity, model.backend, model.device.type, model.dtype, seed, limit)


def _finish(
    bench: Bench,
    setup: Setup,
    variants: Sequence[Variant],
    pairs: Sequence[tuple[str, str | None]],
    found: dict[str, Outcomes],
    notes: Sequence[str],
) -> Evaluation:
    comparisons: list[Comparison] = []
    warnings = list(notes)
    for name, reference in pairs:
        if reference is None:
            continue
        comparisons += bench.compare(name, found[name], reference, found[reference])
        lost = bench.collapses(name, found[name], reference, found[reference])
        warnings += [loss.sentence for loss in lost.values() if loss.sentence]
    measured = tuple(
        replace(variant, metrics=bench.metrics(found[variant.name]), counts=_counts(found[variant.name]))
        for variant in variants
    )
    return Evaluation(
        setup=setup,
        suites=tuple(bench.infos.values()),
        variants=measured,
        comparisons=tuple(comparisons),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _counts(outcomes: Outcomes) -> dict[str, int]:
    return {f"{suite}.{name}": n for suite, outcome in outcomes.items() for name, n in outcome.counts.items()}


def _position(entries: Sequence[_Entry], name: str) -> int:
    return next(i for i, entry in enumerate(entries) if entry.variant.name == name)


def _entries(model: LocalModel, paths: Sequence[str], choose: Chooser | None) -> tuple[list[_Entry], list[str]]:
    """Attach every adapter, and list all states with what they are compared with."""
    entries = [_Entry(Variant(name=BASE, kind="base"), State(), None)]
    notes: list[str] = []
    attached = [(path, model.attach(path)) for path in paths]
    names = _names(paths)
    originals = {item.source.sha256: name for (_, item), name in zip(attached, names, strict=True)}
    for (path, item), name in zip(attached, names, strict=True):
        original = _original(path)
        if original is not None:
            gone = tuple(m.path for m in original.modules if m.action in ("removed", "zeroed"))
            ranking = f"{original.plan.index} ({original.configuration.method})"
            variant = Variant(
                name=name,
                kind="pruned",
                adapter=item.source,
                rule=original.plan.rule,
                ranking=ranking,
                pruned=gone,
                share=original.plan.share if gone else None,
            )
            reference = originals.get(original.source.sha256, BASE)
            entries.append(_Entry(variant, State(item), BASE if reference == name else reference))
            continue
        entries.append(_Entry(Variant(name=name, kind="adapter", adapter=item.source), State(item), BASE))
        if choose is not None:
            measured, plan = choose(path)
            entries.append(_pruned(name, item, measured, plan))
            notes += [f"{name}: {text}" for text in plan.warnings]
    return entries, notes


def _pruned(name: str, item: Attached, measured: Scan, plan: Plan) -> _Entry:
    variant = Variant(
        name=f"{name}{PRUNED}",
        kind="pruned",
        adapter=item.source,
        rule=plan.rule,
        ranking=f"{plan.index} ({measured.configuration.method})",
        pruned=plan.paths,
        share=plan.share,
    )
    return _Entry(variant, State(item, frozenset(plan.paths)), name)


def _names(paths: Sequence[str]) -> list[str]:
    """Return a short name for each adapter: that of its folder, with a number where two are called the same."""
    names: list[str] = []
    taken = {BASE}
    for path in paths:
        short = Path(path).resolve().name
        numbered = (short, *(f"{short} ({n})" for n in range(2, len(paths) + len(taken) + 2)))
        name = next(name for name in numbered if taken.isdisjoint((name, f"{name}{PRUNED}")))
        names.append(name)
        taken |= {name, f"{name}{PRUNED}"}
    return names


def _original(path: str) -> Provenance | None:
    """Return the record of what a pruned adapter was made from and how, None for any other."""
    try:
        return read_provenance(path)
    except AdapterFileError:
        return None


def _costs(model: LocalModel, entries: Sequence[_Entry], prompts: Sequence[Prompt], seed: int) -> dict[str, list[Cost]]:
    """Time every adapter with what is compared with it, and the base, in one interleaved group."""
    found: dict[str, list[Cost]] = {}
    for first in [entry for entry in entries if entry.variant.kind != "base" and entry.reference in (None, BASE)]:
        name = first.variant.name
        group = [first, *(e for e in entries if e.reference == name), entries[0]]
        states = [(entry.variant.name, entry.state) for entry in group]
        modes: tuple[Mode, ...] = ("unmerged", "merged")
        for mode in modes:
            for (label, _), cost in zip(
                states, measure_costs(model, states, prompts, mode=mode, seed=seed), strict=True
            ):
                known = found.setdefault(label, [])
                if all(other.mode != mode for other in known):
                    known.append(cost)
    return found


__all__ = ["Chooser", "Keep", "Model", "choose_default", "evaluate", "evaluate_served", "setup_of"]
