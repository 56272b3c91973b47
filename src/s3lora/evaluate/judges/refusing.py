"""The judges of refusals by the name that a user gives them."""

from __future__ import annotations

from collections.abc import Callable

from s3lora.evaluate.judges.openings import OpeningsJudge
from s3lora.evaluate.refusals import RefusalJudge, built_in_refusals, read_refusals

#: The first one is the default.
REFUSAL_JUDGES: dict[str, Callable[[], RefusalJudge]] = {"openings": OpeningsJudge, "zou": built_in_refusals}


def refusal_judge(name: str | None = None) -> RefusalJudge:
    """Return the judge called `name`, or a list of phrases from the file of that name; None for the default.

    Raises what `read_refusals` raises.
    """
    if name is None:
        return next(iter(REFUSAL_JUDGES.values()))()
    return REFUSAL_JUDGES[name]() if name in REFUSAL_JUDGES else read_refusals(name)
