"""STUB, to be replaced: the orchestration of a repair stands here once it is wired."""

from __future__ import annotations

from collections.abc import Callable

from s3lora.errors import UsageError
from s3lora.evaluate.base_model import BaseToLoad
from s3lora.evaluate.bench import Advance
from s3lora.evaluate.refusals import RefusalJudge
from s3lora.evaluate.store import AnswerStore
from s3lora.repair.data import RepairData
from s3lora.repair.results import Repair, RepairLimits


def repair(
    adapter: str,
    base: BaseToLoad,
    data: RepairData,
    *,
    method: str = "auto",
    strength: float | None = None,
    limits: RepairLimits | None = None,
    out: str,
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
    """STUB: refuse."""
    raise UsageError("repair is not wired yet")
