"""Evaluate: the base, each adapter and each pruned adapter on the same prompts, compared item by item."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from s3lora.adapter.digest import Source
from s3lora.adapter.model import Adapter
from s3lora.adapter.open import names_for, open_adapter
from s3lora.choose.select import Plan, select
from s3lora.errors import AdapterFileError, UsageError
from s3lora.evaluate.aggregate import allow_for_many, told_apart
from s3lora.evaluate.attach import Attached, State
from s3lora.evaluate.base_model import BaseToLoad, loaded
from s3lora.evaluate.bench import Advance, Bench, Outcomes
from s3lora.evaluate.chat import Prompt, ServedModel, digest_of
from s3lora.evaluate.cost import MergeState, measure_costs
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.results import Cost, Evaluation, LearnedShare, PairedComparison, Setup, Variant
from s3lora.evaluate.shares import collapse_sentence, unseen
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suite import Suite
from s3lora.evaluate.together import alone_and_groups
from s3lora.measure.scan import Scan, scan
from s3lora.rewrite.provenance import Recorded, read_provenance
from s3lora.rewrite.repair_record import RepairProvenance

AdapterPath = str | os.PathLike[str]
#: Chooses what to prune from an open adapter: → (its scan, the plan).
Chooser = Callable[[Adapter], tuple[Scan, Plan]]
#: Called with a variant's name and what the suites found for it.
Keep = Callable[[str, Outcomes], None]
#: The name of the base alone, and what follows an adapter's name where modules were taken out of it.
BASE, PRUNED = "base", ", pruned"


@dataclass(frozen=True)
class _MeasuredState:
    """A state to be measured, and the names of what it is compared with."""

    variant: Variant
    state: State
    references: tuple[str, ...] = ()


def choose_default(adapter: Adapter) -> tuple[Scan, Plan]:
    """Return the scan and plan of `s3lora prune` without options."""
    measured = scan(adapter)
    return measured, select(measured)


def evaluate(
    adapters: Sequence[AdapterPath],
    base: str | BaseToLoad | LocalModel,
    suites: Sequence[Suite],
    *,
    choose: Chooser | None = choose_default,
    store: AnswerStore | None = None,
    seed: int = 0,
    limit: int | None = None,
    costs: Sequence[Prompt] = (),
    advance: Advance | None = None,
    keep: Keep | None = None,
    adapter: Sequence[str] = (),
) -> Evaluation:
    """Measure the base alone, each adapter, and each adapter without the modules that `choose` takes out.

    Parameters:
        adapters: PEFT folders. One that s3lora pruned is compared with its original where that is given too, and is
            not pruned again. `A+B` measures adapters active together, beside each of them alone.
        base: the base model (see `LocalModel`), or one that is loaded already. Before its weights are read, all
            adapters are opened, scanned and held against its modules.
        suites: what to measure.
        choose: what to prune; None evaluates the adapters as they are.
        store: answers kept on disk.
        seed: of every bootstrap.
        limit: of the suites, for the record only.
        costs: prompts to time generation on; none times nothing.
        advance: told how far the work is.
        keep: called with every variant's outcomes.
        adapter: which of several in a file or folder, as for `open_adapter`: one name for all, or one for each adapter.

    Raises the errors of `LocalModel`, of `attach` and of the suites.
    """
    if not adapters:
        raise UsageError("give at least one adapter")
    with ExitStack() as opened:
        alone, groups = alone_and_groups([str(path) for path in adapters])
        given = _opened(opened, alone, choose, adapter)
        model = loaded(base, [one.adapter for one in given], advance)
        entries, notes = _entries(model, given, groups)
    bench = Bench(suites, store, seed=seed, expected=len(entries) + bool(costs), advance=advance)
    outcomes: dict[str, Outcomes] = {}
    for entry in entries:
        model.adapters.use(entry.state)
        name = entry.variant.name
        outcomes[name] = bench.measure(model, name)
        entry = replace(entry, variant=replace(entry.variant, loaded=model.loaded()))
        entries[_position(entries, name)] = entry
        notes += bench.warnings(name, outcomes[name])
        if keep is not None:
            keep(name, outcomes[name])
    timed = _costs(model, entries, costs, seed, bench) if costs else {}
    setup = setup_of(model, seed, limit)
    pairs = [(entry.variant.name, reference) for entry in entries for reference in entry.references]
    variants = [replace(e.variant, costs=tuple(timed.get(e.variant.name, ()))) for e in entries]
    return _finish(bench, setup, variants, pairs, outcomes, [*model.notes, *notes])


def evaluate_served(
    models: Sequence[ServedModel],
    suites: Sequence[Suite],
    *,
    store: AnswerStore | None = None,
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
    outcomes: dict[str, Outcomes] = {}
    notes: list[str] = []
    for model in models:
        outcomes[model.name] = bench.measure(model, model.name)
        notes += [*model.notes, *bench.warnings(model.name, outcomes[model.name])]
        if keep is not None:
            keep(model.name, outcomes[model.name])
    digest = digest_of([model.identity for model in models])
    setup = Setup(names[0], digest, models[0].backend, "unknown", "unknown", seed, limit, models[0].chat)
    variants = [Variant(name=name, kind="served") for name in names]
    pairs = [(name, names[0]) for name in names[1:]]
    return _finish(bench, setup, variants, pairs, outcomes, notes)


def setup_of(model: LocalModel, seed: int, limit: int | None) -> Setup:
    """Return how a model in this process was run."""
    run = (model.backend, model.device.type, model.dtype)
    return Setup(model.name, model.base_identity, *run, seed, limit, model.chat)


def _finish(
    bench: Bench,
    setup: Setup,
    variants: Sequence[Variant],
    pairs: Sequence[tuple[str, str]],
    outcomes: dict[str, Outcomes],
    notes: Sequence[str],
) -> Evaluation:
    compared = {
        (name, reference): bench.compare(name, outcomes[name], reference, outcomes[reference])
        for name, reference in pairs
    }
    shares = _shares(bench, variants, pairs, outcomes)
    lost = [share for found in shares.values() for share in found]
    warnings = [*notes, *(text for share in lost if (text := collapse_sentence(share))), *unseen(lost)]
    measured = tuple(
        replace(
            variant,
            metrics=bench.metrics(outcomes[variant.name]),
            counts=_counts(outcomes[variant.name]),
            shares=shares.get(variant.name, ()),
        )
        for variant in variants
    )
    return Evaluation(
        setup=setup,
        suites=tuple(bench.infos.values()),
        variants=measured,
        comparisons=told_apart(_allowed(bench, variants, compared)),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _shares(
    bench: Bench,
    variants: Sequence[Variant],
    pairs: Sequence[tuple[str, str]],
    outcomes: Mapping[str, Outcomes],
) -> dict[str, tuple[LearnedShare, ...]]:
    """Return what each variant has lost of what its adapters learned; behind a server no base is known."""
    base = next((variant.name for variant in variants if variant.kind == "base"), None)
    found: dict[str, tuple[LearnedShare, ...]] = {}
    for name, adapter in pairs:
        if base not in (None, adapter):
            shares = bench.shares(name, outcomes[name], adapter, outcomes[adapter], outcomes[str(base)])
            found[name] = (*found.get(name, ()), *shares)
    return found


def _allowed(
    bench: Bench, variants: Sequence[Variant], compared: Mapping[tuple[str, str], tuple[PairedComparison, ...]]
) -> tuple[PairedComparison, ...]:
    """Return the comparisons, allowing for how many of one kind of variant there are."""
    kinds = {variant.name: variant.kind for variant in variants}
    found = dict(compared)
    for kind in dict.fromkeys(kinds.values()):
        pairs = [pair for pair in compared if kinds[pair[0]] == kind]
        allowed = allow_for_many([(pair, compared[pair]) for pair in pairs], bench.all_measures)
        found |= zip(pairs, allowed, strict=True)
    return tuple(comparison for comparisons in found.values() for comparison in comparisons)


def _counts(outcomes: Outcomes) -> dict[str, int]:
    return {f"{suite}.{name}": n for suite, outcome in outcomes.items() for name, n in outcome.counts.items()}


def _position(entries: Sequence[_MeasuredState], name: str) -> int:
    return next(i for i, entry in enumerate(entries) if entry.variant.name == name)


@dataclass(frozen=True)
class _Given:
    """An adapter as it was given, open: its name, its record if there is one, else what is to be pruned."""

    name: str
    adapter: Adapter
    original: Recorded | None
    chosen: tuple[Scan, Plan] | None

    def attach(self, model: LocalModel) -> Attached:
        """Load it: the files that were hashed and scanned."""
        return model.attach(self.adapter, None if self.chosen is None else self.chosen[0].source)


def _opened(stack: ExitStack, paths: Sequence[str], choose: Chooser | None, picked: Sequence[str]) -> list[_Given]:
    """Open every adapter, once and until the stack is closed, and choose what to prune from it."""
    given = []
    for path, name, key in zip(paths, _names(paths), names_for(picked, len(paths)), strict=True):
        adapter = stack.enter_context(open_adapter(path, key))
        original = _original(str(adapter.path))
        chosen = choose(adapter) if choose is not None and original is None else None
        given.append(_Given(name, adapter, original, chosen))
    return given


def _entries(
    model: LocalModel, given: Sequence[_Given], groups: Sequence[Sequence[int]]
) -> tuple[list[_MeasuredState], list[str]]:
    """Attach every adapter, and list all states with what they are compared with."""
    entries = [_MeasuredState(Variant(name=BASE, kind="base"), State())]
    notes: list[str] = []
    attached = [item.attach(model) for item in given]
    originals = {(one.source.sha256, one.source.adapter): item.name for item, one in zip(given, attached, strict=True)}
    for item, one in zip(given, attached, strict=True):
        name, source, state = item.name, one.source, State(one)
        if item.original is not None:
            variant = _recorded(name, source, item.original)
            made_from = item.original.source
            reference = originals.get((made_from.sha256, made_from.adapter), BASE)
            entries.append(_MeasuredState(variant, state, (BASE if reference == name else reference,)))
            continue
        entries.append(_MeasuredState(Variant(name=name, kind="adapter", adapter=source), state, (BASE,)))
        if item.chosen is not None:
            entries.append(_pruned(name, one, *item.chosen))
            notes += [f"{name}: {text}" for text in item.chosen[1].warnings]
    taken = {entry.variant.name for entry in entries}
    entries += [_together([(given[i].name, attached[i]) for i in group], taken) for group in groups]
    return entries, notes


def _together(parts: Sequence[tuple[str, Attached]], taken: Collection[str]) -> _MeasuredState:
    """Return the state in which several adapters, each with its name, add up, compared with each of them."""
    names, (first, *others) = [name for name, _ in parts], [attached for _, attached in parts]
    name = " + ".join(names)
    variant = Variant(
        name=f"{name} (together)" if name in taken else name,
        kind="together",
        adapters=tuple(attached.source for _, attached in parts),
    )
    return _MeasuredState(variant, State(first, beside=tuple(others)), tuple(names))


def _recorded(name: str, source: Source, original: Recorded) -> Variant:
    if isinstance(original, RepairProvenance):
        return Variant(name=name, kind="adapter", adapter=source)
    gone = tuple(m.path for m in original.modules if m.action in ("removed", "zeroed"))
    return Variant(
        name=name,
        kind="pruned",
        adapter=source,
        rule=original.plan.rule,
        ranking=f"{original.plan.index} ({original.configuration.method})",
        pruned=gone,
        share=original.plan.share if gone else None,
    )


def _pruned(name: str, item: Attached, measured: Scan, plan: Plan) -> _MeasuredState:
    variant = Variant(
        name=f"{name}{PRUNED}",
        kind="pruned",
        adapter=item.source,
        rule=plan.rule,
        ranking=f"{plan.index} ({measured.configuration.method})",
        pruned=plan.paths,
        share=plan.share,
    )
    return _MeasuredState(variant, State(item, frozenset(plan.paths)), (name,))


def _names(paths: Sequence[str]) -> list[str]:
    """Return a short name for each adapter: that of its folder, with a number where two are called the same."""
    names: list[str] = []
    taken = {BASE}
    for path in paths:
        short = Path(os.path.realpath(path)).name  # resolve() raises on a loop of links
        numbered = (short, *(f"{short} ({n})" for n in range(2, len(paths) + len(taken) + 2)))
        name = next(name for name in numbered if taken.isdisjoint((name, f"{name}{PRUNED}")))
        names.append(name)
        taken |= {name, f"{name}{PRUNED}"}
    return names


def _original(path: str) -> Recorded | None:
    """Return the record of what a pruned or repaired adapter was made from and how, None for any other."""
    try:
        return read_provenance(path)
    except AdapterFileError:
        return None


def _costs(
    model: LocalModel, entries: Sequence[_MeasuredState], prompts: Sequence[Prompt], seed: int, bench: Bench
) -> dict[str, list[Cost]]:
    """Time every adapter with what is compared with it, and the base, in one interleaved group."""
    costs: dict[str, list[Cost]] = {}
    for first in [entry for entry in entries if entry.references == (BASE,)]:
        name = first.variant.name
        bench.tell(f"timing {name}")
        group = [first, *(e for e in entries if name in e.references), entries[0]]
        states = [(entry.variant.name, entry.state) for entry in group]
        modes: tuple[MergeState, ...] = ("unmerged", "merged")
        for mode in modes:
            for (label, _), cost in zip(
                states, measure_costs(model, states, prompts, mode=mode, seed=seed), strict=True
            ):
                known = costs.setdefault(label, [])
                if all(other.mode != mode for other in known):
                    known.append(cost)
    return costs


__all__ = ["Chooser", "Keep", "choose_default", "evaluate", "evaluate_served", "setup_of"]
