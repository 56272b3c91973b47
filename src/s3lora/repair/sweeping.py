"""Methods of repair in a sweep: each at several strengths, measured beside prunings on the same data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from s3lora.adapter.model import Adapter
from s3lora.choose.units import CONTROLS
from s3lora.errors import UsageError, printable
from s3lora.evaluate.asked import asked_by, own_data
from s3lora.evaluate.attach import Attached
from s3lora.evaluate.chat import Prompt
from s3lora.evaluate.factors_task import FactorsTask
from s3lora.evaluate.judges.refusing import refusal_judge
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.refusals import RefusalJudge
from s3lora.evaluate.store import AnswerStore
from s3lora.evaluate.suite import Suite
from s3lora.repair.build_data import repair_data
from s3lora.repair.data import RepairData, RepairPart
from s3lora.repair.geometry import moved
from s3lora.repair.learning import learning_rows
from s3lora.repair.methods.method import RepairMethod, RepairSubject
from s3lora.repair.methods.registry import METHODS, method_of
from s3lora.repair.modules import left_alone, refuse_non_finite, repairable
from s3lora.repair.targets import build_targets
from s3lora.spectrum.methods import METHODS as SPECTRAL
from s3lora.wording import worded

#: The strengths that are tried if nothing else is asked for.
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
#: Methods that carry no information, as controls of the others.
UNINFORMED = ("shrink", "random-subspace")


@dataclass(frozen=True)
class RepairTasks:
    """See `repair_tasks`; this is what `sweep` takes as `others`."""

    methods: tuple[RepairMethod, ...]
    strengths: tuple[float, ...]
    learning: RepairPart
    refusals: RefusalJudge
    base: str | None = None
    unaligned: str | None = None
    store: AnswerStore | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def learns(self) -> bool:
        """Return whether any method learns from prompts."""
        return any("prompts" in method.needs for method in self.methods)

    def __len__(self) -> int:
        """Return how many tasks there are."""
        return len(self.methods) * len(self.strengths)

    def __call__(
        self, adapter: Adapter, model: LocalModel, attached: Attached, tell: Callable[[str], None]
    ) -> Iterator[FactorsTask]:
        """Return the tasks; raises at once for an adapter that cannot be repaired, and a base that does not refuse."""
        repairable(adapter)
        refuse_non_finite(adapter)
        rows, notes = None, [*self.notes, *left_alone(adapter)]
        if self.learns:
            tell("answers to learn from")
            targets = build_targets(model, attached, self.learning, self.refusals)
            rows = learning_rows(model, attached, targets)
            notes += targets.notes
        more = {"base": self.base, "unaligned": self.unaligned, "seed": self.seed, "store": self.store}
        subject = RepairSubject(adapter, model, attached, rows, **more)  # type: ignore[arg-type]
        return self._made(subject, tuple(notes), tell)

    def _made(
        self, subject: RepairSubject, notes: tuple[str, ...], tell: Callable[[str], None]
    ) -> Iterator[FactorsTask]:
        for method in self.methods:

            def advance(_: float, label: str, name: str = method.name) -> None:
                tell(f"{name}: {label}")

            learned = method.learn(subject, method.settings[0], advance)
            told = (*notes, *(f"{method.name}: {note}" for note in learned.notes))
            for strength in self.strengths:
                subject.adapter.check_unchanged()
                factors = learned.at(strength)
                ratio = moved(subject.adapter.modules, factors).norm_ratio
                gone = 0.0 if ratio is None else 1 - ratio**2
                yield FactorsTask(method.name, strength, method.name in UNINFORMED, factors, gone, told)


def repair_tasks(
    names: Sequence[str],
    strengths: Sequence[float] = STRENGTHS,
    data: RepairData | None = None,
    *,
    seed: int = 0,
    store: AnswerStore | None = None,
    refusals: RefusalJudge | None = None,
    unaligned: str | None = None,
    base: str | None = None,
    measured: Sequence[Suite] = (),
) -> RepairTasks:
    """Return methods of repair, each at all strengths, as `sweep` takes them (`others`).

    Parameters:
        names: methods of the registry; each is tried with its first settings.
        strengths: numbers in (0, 1].
        data: the learning part is learned from; None for what is built in.
        seed: of everything that is drawn.
        store: what was learned is kept there.
        refusals: what decides what is a refusal; None for the rules over openings.
        unaligned: the folder of the weights before alignment, for methods that compare with it.
        base: the folder of the base's own weights, for the same methods.
        measured: the suites of the sweep; nothing that they ask is learned from, and a note says so of your own data.

    Raises UsageError for an unknown method, an impossible strength, a method whose weights are not given, and where
    nothing is left to learn from.

    >>> len(repair_tasks(["shrink", "gates"], [0.5, 1.0]))
    4
    """
    methods = tuple(method_of(name) for name in dict.fromkeys(names))
    for strength in strengths:
        if not 0 < strength <= 1:
            raise UsageError(f"a strength of {strength:g} cannot be meant", fix="give numbers above 0, at most 1")
    for method in methods:
        if "unaligned" in method.needs and not unaligned:
            fix = "name the base before its alignment"
            raise UsageError(worded("the method {name} needs {unaligned} MODEL", name=method.name), fix=fix)
    tasks = RepairTasks(
        methods,
        tuple(sorted(set(strengths))),
        (repair_data(seed=seed) if data is None else data).learning,
        refusals or refusal_judge(None),
        base,
        unaligned,
        store,
        seed,
    )
    if not tasks.learns:
        return tasks
    own = own_data(measured)
    note = f"nothing is learned from {', '.join(own)}, which is measured: repairs learn from other prompts"
    return replace(tasks, learning=_apart(tasks.learning, asked_by(measured)), notes=(note,) if own else ())


def split_methods(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the spectral methods and controls of a sweep, and its methods of repair; raise UsageError for others.

    >>> split_methods(["gates", "random", "mas-svd"])
    (('random', 'mas-svd'), ('gates',))
    """
    given = tuple(names)
    ranking = (*SPECTRAL, *CONTROLS)
    for name in given:
        if name not in ranking and name not in METHODS:
            known = ", ".join((*ranking, *METHODS))
            raise UsageError(f"no method or index {printable(name, 40)}", fix=f"choose from {known}")
    return tuple(n for n in given if n in ranking), tuple(n for n in given if n not in ranking)


def strengths_of(text: Sequence[str] | None) -> tuple[float, ...]:
    """Return the strengths of `0.25` and `25%`, `STRENGTHS` for None; raise UsageError for anything else.

    >>> strengths_of(["25%", "1"])
    (0.25, 1.0)
    """
    if text is None:
        return STRENGTHS
    if not text:
        raise UsageError(worded("{strengths} names no strength"), fix="write for example 0.25,0.5,1")
    found = []
    for part in text:
        read = re.fullmatch(r"(\d{1,3}(?:\.\d{0,12})?|\.\d{1,12})(%?)", part, re.ASCII)
        if read is None:
            raise UsageError(
                worded("{strengths} {part} is no strength", part=printable(part, 40)), fix="write 0.5 or 50%"
            )
        strength = float(read[1]) / (100 if read[2] else 1)
        if not 0 < strength <= 1:
            raise UsageError(
                worded("{strengths} {part} is out of range", part=part), fix="give numbers above 0, at most 1 or 100%"
            )
        found.append(strength)
    return tuple(found)


def _apart(part: RepairPart, asked: frozenset[str]) -> RepairPart:
    """Return a part without prompts that are measured."""

    def left(prompts: Sequence[Prompt]) -> list[int]:
        found = [i for i, prompt in enumerate(prompts) if prompt.digest not in asked]
        if not found:
            raise UsageError(
                "all prompts to learn from are measured", fix=worded("measure other prompts, or fewer by {limit}")
            )
        return found

    task = part.task.at(left(part.task.prompts))
    if task.built_in:  # whose references tell nothing of what this adapter was taught to answer
        task = task.unanswered()
    harmful, harmless = (one.subset(left(one.prompts)) for one in (part.harmful, part.harmless))
    return RepairPart(harmful, harmless, task)


__all__ = ["STRENGTHS", "UNINFORMED", "RepairTasks", "repair_tasks", "split_methods", "strengths_of"]
