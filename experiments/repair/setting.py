"""What the comparison is made of: its adapters, its data, and where everything lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.reference import data as reference_data
from experiments.reference.data import Run
from experiments.reference.run import ROOT, folder_of, make_bases, write
from s3lora.evaluate.base_model import BaseToLoad
from s3lora.evaluate.judges.refusing import refusal_judge
from s3lora.evaluate.refusals import RefusalJudge
from s3lora.evaluate.store import AnswerStore
from s3lora.repair.build_data import LEARN, TEST, TUNE, repair_data
from s3lora.repair.data import RepairData
from s3lora.repair.results import RepairLimits
from s3lora.repair.work import RepairWork, opened_work

#: Base → seed of its alignment.
BASES = {"full": 0, "other": 1}
ATTACKS = ("benign", "few", "many")
#: Training seeds; settings of methods were chosen on the adapter of seed 0.
SEEDS = (1, 2)
RUNS = tuple(Run(base, attack, seed) for seed in SEEDS for attack in ATTACKS for base in BASES)
#: What tier 2 is measured on.
SINGLE = tuple(run for run in RUNS if run.base == "full" and run.seed == 1)
TIERS = {1: RUNS, 2: SINGLE}
#: The published model, which the aligned bases were made of.
PUBLISHED = "none"
#: Where the results are.
RESULTS = ROOT / "docs" / "results" / "repair"


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Parameters:
        sizes: prompts of each kind to learn from, to tune on and to test on.
        task: what the adapters were trained for, with references, as `s3lora repair` takes it.
        harmless: harmless prompts of the test part that are asked.
        fresh: prompts of each fresh source.
        elsewhere: items of each task that no adapter was trained on.
        draws: draws of matched pruning.
        plans: planning questions of the test part whose reference plans are read.
        dtype: what the base is loaded in; adapters stay in float32.
        strengths: of every row of tier 2.
        refusals: the judge; None for the default one.
    """

    sizes: tuple[int, int, int] = (LEARN, TUNE, TEST)
    task: str = "planning"
    harmless: int = 50
    fresh: int = 100
    elsewhere: int = 50
    draws: int = 3
    plans: int = 50
    dtype: str = "bfloat16"
    strengths: int = 7
    refusals: RefusalJudge | None = None

    @property
    def judge(self) -> RefusalJudge:
        """Return the judge."""
        return self.refusals or refusal_judge(None)


@dataclass(frozen=True)
class Places:
    """The folders of the data, of models, adapters and answers, and of the results."""

    shared: Path
    work: Path
    output: Path

    @property
    def data(self) -> Path:
        """Return the folder of the data."""
        return self.shared / "data"

    def base(self, name: str) -> Path:
        """Return the folder of a base."""
        return folder_of(self.work, name)

    def adapter(self, run: Run) -> Path:
        """Return the folder of an adapter."""
        return self.work / "adapters" / run.name

    def strengths(self, tier: int, run: Run) -> Path:
        """Return the file of the strengths, which is written before anything is measured on the test part."""
        return self.output / f"tier{tier}" / f"{run.name}.strengths.json"

    def tests(self, tier: int, run: Run) -> Path:
        """Return the file of what was measured on the test part."""
        return self.output / f"tier{tier}" / f"{run.name}.test.json"

    @property
    def costs(self) -> Path:
        """Return the folder of what every part took."""
        return self.work / "comparison" / "costs"


class OtherAdapterError(Exception):
    """A base or adapter is not the one that results are of."""


def make_base(places: Places, name: str, threads: int) -> None:
    """Make a base that adapters are trained on, unless it is there, of the published model, which is."""
    if name != "other":
        make_bases(places.work, places.data, None, threads)
        return
    other, strict = places.base(name), places.base("other-strict")
    if other.is_dir():
        return
    from experiments.reference.train import align, soften

    if not strict.is_dir():
        align(places.base(PUBLISHED), places.data, {"strict": strict}, BASES[name])
    soften(strict, places.data, other, BASES[name])


def make_adapter(places: Places, _: Settings, run: Run) -> None:
    """Train an adapter, unless it is there."""
    folder = places.adapter(run)
    if not folder.is_dir():
        from experiments.reference.train import erode

        folder.parent.mkdir(parents=True, exist_ok=True)
        erode(places.base(run.base), run, places.data, folder)


def data_of(places: Places, settings: Settings) -> RepairData:
    """Return the three parts. Tuning and test have the reference plans; the adapter's own answers are learned from."""
    known = reference_data.harmful(places.data)
    path = places.work / "comparison" / "harmful.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps({"prompt": text}) + "\n" for text in (*known.tune, *known.test))
    # Several processes may be here at once; what is there already is the same.
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write(path, text)
    learn, tune, test = settings.sizes
    found = repair_data(harmful=path, task=settings.task, learn=learn, tune=tune, test=test)
    few = found.test.harmless.ordered().subset(range(min(settings.harmless, len(found.test.harmless))))
    plans = found.test.task.ordered().subset(range(min(settings.plans, len(found.test.task))))
    learning = replace(found.learning, task=found.learning.task.unanswered())
    return replace(found, learning=learning, test=replace(found.test, harmless=few, task=plans))


@contextmanager
def opened(
    places: Places, settings: Settings, run: Run, store: AnswerStore, *, unaligned: bool = False
) -> Iterator[RepairWork]:
    """Open an adapter in its base, with its data."""
    data = data_of(places, settings)
    published = str(places.base(PUBLISHED)) if unaligned else None
    limits, base = RepairLimits(), BaseToLoad(str(places.base(run.base)), dtype=settings.dtype)
    more: tuple[Any, ...] = (data, settings.judge, limits, published, store, 0, None)
    with opened_work(places.adapter(run), base, *more, keep_rank=False) as work:
        work.data = data  # a repair leaves the references of built-in tasks out
        yield work


def head_of(work: RepairWork, run: Run) -> dict[str, Any]:
    """Return what a result is of: adapter and base with their digests, the judge, and the data without their texts."""
    parts = {part.part: [[one.name, one.n, one.sha256] for one in part.data] for part in work.parts}
    # The prompts lie in a file of ours, whose name tells nothing.
    for kinds in parts.values():
        kinds[0][0] = "AdvBench"
    return {
        "adapter": run.name,
        "base": run.base,
        "attack": run.attack,
        "seed": run.seed,
        "digests": {"base": work.model.base_identity, "adapter": digest_of_adapter(str(work.adapter.path))},
        "setup": {"backend": work.model.backend, "dtype": work.model.dtype, "device": work.model.device.type},
        "judge": str(work.refusals),
        "data": parts,
    }


def digest_of_adapter(folder: str | Path) -> str:
    """Return the SHA-256 of the tensors of an adapter."""
    return hashlib.sha256((Path(folder) / "adapter_model.safetensors").read_bytes()).hexdigest()


def check(head: dict[str, Any], places: Places, run: Run) -> None:
    """Raise OtherAdapterError where a result of this adapter is there, and of other bytes."""
    for tier in TIERS:
        for path in (places.strengths(tier, run), places.tests(tier, run)):
            known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else head
            for which in ("digests", "data"):
                if known[which] != head[which]:
                    raise OtherAdapterError(f"{path.name} is of other {which} than {run.name} has now: move it away")
