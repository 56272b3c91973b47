"""What a page shows of an adapter besides its scan: other methods and rankings, and the words of the commands in it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from s3lora.choose.ranking import usual_index
from s3lora.choose.rankings import Ranked, survey
from s3lora.cli.options import GATING, RULE_OPTIONS, given_options, module_filter
from s3lora.cli.steps import base_steps, clean_steps
from s3lora.errors import UsageError, printable
from s3lora.measure.scan import Scan
from s3lora.report.documents import ScanDocument
from s3lora.spectrum.indices import INDICES

if TYPE_CHECKING:
    from s3lora.evaluate.results import Sweep
    from s3lora.report.scan_page import Reported

#: Characters of a word that a command shows.
LONGEST = 10_000
#: Options that a command in the page does not repeat.
_ASIDE = (*GATING, "force", "force_flat")
#: Options that measure by one method only.
_OWN = ("fit", "sample")
#: Options that the reader of a page chooses anew.
_CHOSEN = ("preset", "method", "index", "match", "kurtosis", *RULE_OPTIONS)


def rankings_of(scans: Sequence[Scan], options: dict[str, Any]) -> tuple[Ranked, ...]:
    """Return the rankings of an adapter by its first scan, and by the SSI of its scans by other methods."""
    index = (options["index"] or usual_index(scans[0].modules)).replace("-", "_")
    return survey(
        scans,
        index=index if index in INDICES else "ssi",
        only=module_filter(options),
        unit=options["unit"],
        combine=options["combine"],
    )


def reported(
    document: ScanDocument,
    scans: Sequence[Scan],
    path: str,
    options: dict[str, Any],
    *,
    sweep: Sweep | None = None,
) -> Reported:
    """Return an adapter for its page, from its scan and those by other methods.

    A path from the root is shown by its last part, that of a base model too: a page is passed on.
    """
    from s3lora.report.scan_page import Reported

    context = click.get_current_context()
    shown = _passed_on(path)
    names = {option.name or "" for option in context.command.params}
    # --z may be that of a --fail-on rule, which prune has not.
    idle = () if options["rule"] == "outlier" else ("z",)
    plan = document.plan
    prunable = plan is not None and 0 < len(plan.chosen) < len(document.modules) and not plan.flat

    def words(besides: Container[str]) -> list[str]:
        return [_passed_on(word) for word in given_options(context, besides)]

    given = ["s3lora", "prune", shown, *words((*_ASIDE, *idle)), "-o", "PRUNED"]
    return Reported(
        document=document,
        ranked=rankings_of(scans, options),
        path=shown,
        command=shlex.join(given) if prunable else None,
        shared=words((*_ASIDE, *_CHOSEN, *_OWN)),
        own=words(names - set(_OWN)),
        steps=[*clean_steps(document, shown), *base_steps(document, shown)],
        sweep=sweep,
    )


def _passed_on(word: str) -> str:
    """Return a word of a command as text that is passed on: the name of a folder need not be text."""
    return printable(Path(word).name if os.path.isabs(word) else word, LONGEST)


def read_sweep(path: str | None) -> Sweep | None:
    """Return the sweep in a file; raise UsageError if there is none in it."""
    if path is None:
        return None
    from s3lora.evaluate.reading import read_measurement
    from s3lora.evaluate.results import Sweep

    found = read_measurement(path)
    if not isinstance(found, Sweep):
        raise UsageError("is no sweep, and only a sweep has a curve", file=path, fix="give the sweep.json of a sweep")
    return found
