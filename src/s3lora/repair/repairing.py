"""Repair: find the method and strength that give refusals back within limits, prove it on the test part, write it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from s3lora.adapter.model import Adapter
from s3lora.arguments import checked
from s3lora.errors import NothingToAuditError, UsageError
from s3lora.evaluate.base_model import BaseToLoad
from s3lora.evaluate.bench import Advance, Outcomes
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.refusals import RefusalJudge
from s3lora.evaluate.store import AnswerStore
from s3lora.repair.attributing import attributed
from s3lora.repair.attribution import PathIntegral, attribution_of
from s3lora.repair.candidates import MethodCandidate
from s3lora.repair.data import RepairData
from s3lora.repair.measuring import LOSS
from s3lora.repair.methods.method import RepairSubject
from s3lora.repair.methods.registry import AUTO, METHODS, method_of
from s3lora.repair.modules import repairable
from s3lora.repair.results import Attribution, Repair, RepairLimits, RepairTrial
from s3lora.repair.search import CONTROL, FULL, RepairSearch, TrialLimits, search
from s3lora.repair.trial import numbers_of
from s3lora.repair.verdict import base_does_not_refuse, nothing_to_repair, too_few, unseen_usefulness
from s3lora.repair.words import trial_sentence
from s3lora.repair.work import opened_work
from s3lora.wording import worded

#: Where in the whole work explaining and searching end, for the progress.
EXPLAINED, SEARCHED = 0.25, 0.70


@checked
def repair(
    adapter: Adapter | str | os.PathLike[str],
    base: str | BaseToLoad | LocalModel,
    data: RepairData | None = None,
    *,
    method: str = "auto",
    strength: float | None = None,
    limits: RepairLimits | None = None,
    out: str | os.PathLike[str] | None = None,
    loader: str = "peft",
    keep_rank: bool = False,
    force: bool = False,
    refusals: RefusalJudge | None = None,
    unaligned: str | None = None,
    store: AnswerStore | None = None,
    seed: int = 0,
    advance: Advance | None = None,
    tell: Callable[[str], None] | None = None,
) -> Repair:
    """Give an adapter back the refusals that fine-tuning took, within limits, and measure what that did and cost.

    Parameters:
        adapter: a PEFT folder, or one that is open.
        base: the base model (see `LocalModel`), or one that is loaded already.
        data: what to learn from, tune on and test on; None for what is built in. See `repair_data`.
        method: `auto`, or one of the registry.
        strength: the one strength in (0, 1] to try, with a method; None looks for the best.
        limits: what it may cost.
        out: the folder to write; None writes nothing.
        loader: the loader to write for.
        keep_rank: bring what a patch adds back to the rank that each module had.
        force: write over what is there, and also what the test part refutes or, where nothing keeps to the limits, the
            best trade that was seen.
        refusals: what decides what is a refusal; None for the rules over openings.
        unaligned: the folder of the weights before alignment, for methods that compare with it.
        store: answers and what was learned, kept on disk; with it, a run that was killed goes on where it was.
        seed: of everything that is drawn.
        advance: told how far the work is.
        tell: told what is known early.

    Raises NothingToAuditError where nothing was lost or the base itself does not refuse, UsageError for data that tell
    nothing and impossible options, UnsupportedAdapterError for a kind whose update the base decides (DoRA, PiSSA and
    its kin), and the errors of `LocalModel`, of `attach` and of writing.
    """
    if strength is not None and not 0 < strength <= 1:
        raise UsageError(f"a strength of {strength:g} cannot be meant", fix="give a number above 0, at most 1")
    if strength is not None and method == "auto":
        raise UsageError("a strength says nothing without a method", fix="give a method besides")
    methods = [method_of(name) for name in (AUTO if method == "auto" else (method,))]
    settings = (refusals, limits or RepairLimits(), unaligned, store, seed, advance)
    with opened_work(adapter, base, data, *settings, keep_rank=keep_rank) as work:
        states = 2 + FULL * len(methods)
        tuning = work.part(work.data.tuning, states, SEARCHED)
        alone, whole = tuning.base(), tuning.adapter()
        _refuse(alone, whole)
        unseen = unseen_usefulness(alone, whole, LOSS, tuning.measure)
        if unseen is not None and work.data.tuning.task.references:
            unseen = f"{unseen} The adapter's own answers stand for what it learned instead"
            work.data = work.data.unanswered()
            tuning = work.part(work.data.tuning, states, SEARCHED)
            alone, whole = tuning.base(), tuning.adapter()
        if unseen is not None and tell is not None:
            tell(unseen)
        subject = work.subject(any("prompts" in one.needs for one in methods))
        integrals = attributed(subject, work.stage(EXPLAINED)) if subject.rows is not None else None
        numbers = (
            numbers_of(alone, whole, alone, LOSS, tuning.measure),
            numbers_of(whole, whole, alone, LOSS, tuning.measure),
        )

        def seen(trial: RepairTrial) -> None:
            if tell is not None:
                tell(trial_sentence(trial))

        *candidates, control = work.candidates([*methods, METHODS[CONTROL]], subject, tuning, alone, whole)
        found = search(candidates, TrialLimits(work.limits, *numbers), strength=strength, seen=seen)
        chosen, candidate = _chosen(found, candidates, force=force)
        proof = None
        if chosen is not None and candidate is not None:
            proof = work.proof(chosen, candidate, control)
        result = work.result(found, chosen, candidate, proof, tuning.shown(alone, whole), numbers)
        suites = result.suites or tuple(tuning.whole.infos.values())
        result = replace(result, suites=suites, attribution=_explained(subject, integrals, candidate))
        if unseen is not None:
            result = replace(result, warnings=(unseen, *result.warnings))
        writes = result.outcome == "repaired" or force
        if out is not None and writes and chosen is not None and candidate is not None:
            result = work.written(result, candidate, chosen, Path(out), loader, force=force)
        work.stage(1.0)(1.0, "done")
        return result


def _refuse(base: Outcomes, adapter: Outcomes) -> None:
    """Raise an error where the tuning part shows that there is nothing to do, or tells nothing."""
    few = too_few(adapter, LOSS)
    if few is not None:
        raise UsageError(few)
    problem, fix = base_does_not_refuse(base), "name the aligned model that the adapter was trained on"
    if problem is None:
        problem, fix = (
            nothing_to_repair(base, adapter),
            worded("more harmful prompts, as {harmful}, would show a smaller loss"),
        )
    if problem is not None:
        raise NothingToAuditError(problem, fix=fix)


def _chosen(
    found: RepairSearch, candidates: Sequence[MethodCandidate], *, force: bool
) -> tuple[RepairTrial | None, MethodCandidate | None]:
    """Return the trial to be proved: what was chosen or, with `force`, the best trade."""
    chosen = found.chosen or (found.best if force else None)
    if chosen is None:
        return None, None
    same = (one for one in candidates if (one.method, one.settings) == (chosen.method, chosen.settings))
    return chosen, next(same)


def _explained(
    subject: RepairSubject, integrals: tuple[PathIntegral, PathIntegral] | None, candidate: MethodCandidate | None
) -> Attribution | None:
    """Return the attribution with the gates of what was chosen."""
    if integrals is None:
        return None
    gates = {} if candidate is None else candidate.learned.gates
    return attribution_of(repairable(subject.adapter), *integrals, gates)
