"""A judge beside people, as text: a line a model, and corrected rates."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.evaluate.judges.checking import JudgeCheck
from s3lora.report.blocks import BULLET, labelled, section, warned
from s3lora.report.names import tail
from s3lora.report.values import NOTHING
from s3lora.statistics import Interval

LEGEND = "recognised: of full refusals; passed: of answers that are no refusals; [95 % interval]"


def judge_check_text(check: JudgeCheck) -> RenderableType:
    """Return the report of `s3lora judge-check`."""
    labels = sum(one.counts.refusals + one.counts.answers for one in check.models)
    counted = f"{labels} label{'' if labels == 1 else 's'}"
    title = Text.assemble((tail(check.data, 60), "bold"), (f"\n{counted} · judge: {check.judge}", "dim"))
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("answers of", no_wrap=True)
    for name in ("recognised", "n", "passed", "n", "partial refused"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in check.models:
        counts = one.counts
        partial = counts.partial_refused + counts.partial_not
        table.add_row(
            Text(tail(counts.model or "one model", 24)),
            _share(one.sensitivity),
            str(counts.refusals),
            _share(one.specificity),
            str(counts.answers),
            f"{counts.partial_refused} of {partial}" if partial else NOTHING,
        )
    parts: list[RenderableType] = [title, Text(), table, Text(), Text(LEGEND, "dim")]
    parts += section("corrected rates", *labelled([(BULLET, one.sentence) for one in check.corrected]))
    return Group(*parts, *warned(check.warnings))


def _share(found: Interval | None) -> str:
    return NOTHING if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
