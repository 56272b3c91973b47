"""A repair while it is being made: the open adapter in the loaded model, its data, and what is put together of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from s3lora.adapter.model import Adapter
from s3lora.adapter.open import opening
from s3lora.evaluate.attach import Attached
from s3lora.evaluate.base_model import BaseToLoad, loaded
from s3lora.evaluate.bench import Advance, Outcomes
from s3lora.evaluate.evaluation import setup_of
from s3lora.evaluate.judges.refusing import refusal_judge
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.refusals import RefusalJudge
from s3lora.evaluate.results import Variant
from s3lora.evaluate.store import AnswerStore
from s3lora.repair.build_data import repair_data
from s3lora.repair.candidates import MethodCandidate
from s3lora.repair.data import RepairData, RepairPart
from s3lora.repair.learning import learning_rows
from s3lora.repair.measuring import ASR, LOSS, PartBench
from s3lora.repair.methods.method import RepairMethod, RepairSubject
from s3lora.repair.modules import left_alone, refuse_non_finite, repairable
from s3lora.repair.proof import STATES, Proof, prove
from s3lora.repair.results import PartName, Repair, RepairLimits, RepairOutcome, RepairPartInfo, RepairTrial
from s3lora.repair.search import RepairSearch
from s3lora.repair.targets import build_targets
from s3lora.repair.trial import TrialNumbers
from s3lora.repair.verdict import outcome_of
from s3lora.repair.words import outcome_sentence
from s3lora.rewrite.factors import NewFactors
from s3lora.rewrite.repair_record import RecordedAnswer, RecordedData, RepairFields
from s3lora.rewrite.repaired import write_repaired
from s3lora.rewrite.truncate import truncate


@dataclass
class RepairWork:
    """What one call of `repair` works with; see there."""

    adapter: Adapter
    model: LocalModel
    attached: Attached
    data: RepairData
    refusals: RefusalJudge
    limits: RepairLimits
    base: str | None
    unaligned: str | None
    store: AnswerStore | None
    seed: int
    advance: Advance | None
    keep_rank: bool
    notes: tuple[str, ...] = ()
    lost_energy: float | None = None
    _done: float = 0.0

    def stage(self, end: float) -> Advance:
        """Return the progress of a part of the work that ends at this share of it."""
        start = self._done

        def tell(share: float, label: str) -> None:
            self._done = max(self._done, start + (end - start) * share)
            if self.advance is not None:
                self.advance(self._done, label)

        return tell

    def part(self, part: RepairPart, states: int, end: float) -> PartBench:
        """Return what measures so many states of the model on a part."""
        return PartBench.of(
            self.model,
            self.attached,
            part,
            self.refusals,
            store=self.store,
            seed=self.seed,
            advance=self.stage(end),
            expected=states,
        )

    def subject(self, prompts: bool) -> RepairSubject:
        """Return what methods look at; with `prompts`, what they learn from is made."""
        rows = None
        if prompts:
            targets = build_targets(self.model, self.attached, self.data.learning, self.refusals)
            self.notes = (*self.notes, *targets.notes)
            rows = learning_rows(self.model, self.attached, targets)
        more = {"base": self.base, "unaligned": self.unaligned, "seed": self.seed, "store": self.store}
        return RepairSubject(self.adapter, self.model, self.attached, rows, **more)  # type: ignore[arg-type]

    def candidates(
        self,
        methods: Sequence[RepairMethod],
        subject: RepairSubject,
        tuning: PartBench,
        base: Outcomes,
        adapter: Outcomes,
    ) -> list[MethodCandidate]:
        """Return every method with each of its settings."""
        tell = self.stage(1.0)
        return [
            MethodCandidate(method, settings, subject, tuning, base, adapter, tell, self.finish)
            for method in methods
            for settings in method.settings
        ]

    def finish(self, factors: NewFactors) -> NewFactors:
        """Bring factors back to the ranks of the file if that is asked for."""
        if not self.keep_rank:
            return factors
        kept, self.lost_energy = truncate(factors, self.adapter)
        return kept

    def proof(self, chosen: RepairTrial, candidate: MethodCandidate, control: MethodCandidate) -> Proof:
        """Measure the test part."""
        test = self.part(self.data.test, STATES, 0.98)
        return prove(chosen, candidate, control, self.data, test, self.limits)

    def result(
        self,
        found: RepairSearch,
        chosen: RepairTrial | None,
        candidate: MethodCandidate | None,
        proof: Proof | None,
        tuned: tuple[Variant, Variant],
        numbers: tuple[TrialNumbers, TrialNumbers],
    ) -> Repair:
        """Put together what is told; without a proof, base and adapter are those of the tuning part."""
        outcome: RepairOutcome = "nothing"
        if proof is not None and found.chosen is not None:
            outcome = outcome_of(proof.constraints)
        verdicts = () if proof is None else proof.constraints
        factors = NewFactors() if chosen is None or candidate is None else candidate.factors(chosen.strength)
        modules = repairable(self.adapter)
        ranks = [module.rank for module in modules]
        after = [factors.modules[m.path].rank if m.path in factors.modules else m.rank for m in modules]
        warnings = [*self.model.notes, *self.data.notes, *left_alone(self.adapter), *self.notes]
        warnings += [] if proof is None else proof.warnings
        warnings += [] if candidate is None else candidate.learned.notes
        base, adapter = tuned if proof is None else (proof.base, proof.adapter)
        return Repair(
            setup=setup_of(self.model, self.seed, None),
            source=self.attached.source,
            outcome=outcome,
            sentence=outcome_sentence(outcome, chosen, verdicts, *numbers, found.best),
            method="" if chosen is None else chosen.method,
            settings={} if chosen is None else chosen.settings,
            strength=0.0 if chosen is None else chosen.strength,
            limits=self.limits,
            safety=ASR,
            utility=LOSS,
            suites=() if proof is None else proof.suites,
            parts=self.parts,
            trials=found.trials,
            best=found.best,
            tuning_asr={
                name: one.asr for name, one in zip(("base", "adapter"), numbers, strict=True) if one.asr is not None
            },
            base=base,
            adapter=adapter,
            repaired=None if proof is None else proof.repaired,
            shrunk=None if proof is None else proof.shrunk,
            measured_on="tuning" if proof is None else "test",
            comparisons=() if proof is None else proof.comparisons,
            constraints=verdicts,
            card=() if proof is None else proof.card,
            rank_before=max(ranks),
            rank_after=max(after),
            lost_energy=self.lost_energy if chosen is not None else None,
            warnings=tuple(dict.fromkeys(warnings)),
        )

    def written(
        self, result: Repair, candidate: MethodCandidate, chosen: RepairTrial, out: Path, loader: str, *, force: bool
    ) -> Repair:
        """Write the folder, and say so."""
        fields = RepairFields(
            method=chosen.method,
            settings=chosen.settings,
            strength=chosen.strength,
            gates=candidate.learned.gates,
            data={
                part.part: tuple(RecordedData(one.name, one.n, one.sha256) for one in part.data) for part in self.parts
            },
            limits=asdict(self.limits),
            lost_energy=result.lost_energy,
            warnings=result.warnings,
            card=tuple(RecordedAnswer(one.question, one.asked, one.passed, one.sentence) for one in result.card),
        )
        factors = candidate.factors(chosen.strength)
        record, written = write_repaired(self.adapter, factors, fields, out, loader=loader, force=force)
        left = [f"stayed behind: {name}" for name in written.left_behind]
        more = [text for text in (*record.warnings, *left) if text not in result.warnings]
        return replace(result, written=True, warnings=(*result.warnings, *more))

    @property
    def parts(self) -> tuple[RepairPartInfo, ...]:
        """Return the data of all parts, without their texts."""
        named: tuple[tuple[PartName, RepairPart], ...] = (
            ("learning", self.data.learning),
            ("tuning", self.data.tuning),
            ("test", self.data.test),
        )
        return tuple(RepairPartInfo(part=name, data=part.data) for name, part in named)


@contextmanager
def opened_work(
    adapter: Adapter | str | os.PathLike[str],
    base: str | BaseToLoad | LocalModel,
    data: RepairData | None,
    refusals: RefusalJudge | None,
    limits: RepairLimits,
    unaligned: str | None,
    store: AnswerStore | None,
    seed: int,
    advance: Advance | None,
    *,
    keep_rank: bool,
) -> Iterator[RepairWork]:
    """Open the adapter, refuse what cannot be repaired, make the data, and load the model, in this order."""
    with opening(adapter) as opened:
        repairable(opened)
        refuse_non_finite(opened)
        data = repair_data(seed=seed) if data is None else data
        if data.tuning.task.built_in:  # which tell nothing of what this adapter was taught to answer
            data = data.unanswered()
        model = loaded(base, [opened], advance)
        named = base if isinstance(base, str) else base.base if isinstance(base, BaseToLoad) else None
        attached = model.attach(opened)
        judge = refusals or refusal_judge(None)
        yield RepairWork(
            opened, model, attached, data, judge, limits, named, unaligned, store, seed, advance, keep_rank
        )
