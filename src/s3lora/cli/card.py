"""`s3lora card`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from s3lora.adapter.digest import Source
from s3lora.adapter.weights import folder_of
from s3lora.choose.ranking import usual_index
from s3lora.cli.command import Command
from s3lora.cli.options import (
    INDEX_NAMES,
    RankingName,
    adapter_option,
    given_options,
    refuse_idle,
    scan_options,
    scan_with,
)
from s3lora.cli.output import check_output, complain, emit
from s3lora.errors import OutputError, UsageError, printable
from s3lora.report.card import card_section, front_matter
from s3lora.report.card_file import card_in, has_section, read_card, with_section
from s3lora.rewrite.provenance import Recorded, Remade, provenance_of

if TYPE_CHECKING:
    from s3lora.evaluate.figures import AdapterFigures

evaluation_option = click.option(
    "--evaluation", metavar="FILE", help="Result of eval, sweep or tune, as JSON: what was measured of this adapter."
)


@click.command("card", cls=Command, writes="Markdown")
@click.argument("path", metavar="ADAPTER")
@adapter_option
@click.option(
    "--index",
    type=RankingName(INDEX_NAMES),
    help="Index to name the sharpest modules by  [default: ssi; normalised-ssi where ranks differ].",
)
@scan_options
@evaluation_option
@click.option("-o", "--output", metavar="FILE", help="The card  [default: README.md in the adapter's folder].")
@click.option("--check", is_flag=True, help="Write nothing, and exit with 1 if the card is not up to date.")
@click.option("--print", "printed", is_flag=True, help="Write nothing, and print the card as it would be.")
def card_command(
    path: str, output: str | None, check: bool, printed: bool, evaluation: str | None, **options: Any
) -> int:
    """Write a section on the scan, and on pruning and measurements, into the adapter's model card.

    The section stands between two comments, and is replaced at every run; all else in the card stays as it is, byte
    for byte. Where there is no card, one is made.

    \b
    s3lora card my-adapter
    s3lora card pruned --evaluation results/evaluation.json
    s3lora card my-adapter --check
    """
    if check and printed:
        raise UsageError("--check and --print exclude each other")
    context = click.get_current_context()
    refuse_idle(context)
    given, adapter = Path(path), options["adapter"]
    if adapter is not None and (inner := folder_of(given, adapter)) is not None:  # its card lies in its own folder
        given, path, options = inner, str(inner), {**options, "adapter": None}
    folder = given if given.is_dir() else given.parent
    target = card_in(folder) if output is None else Path(output)
    if not printed and not check:
        check_output(str(target) if output is None else output)
    before = read_card(target)
    measured = scan_with(path, {**options, "match": "ssi"}, path)
    index = (options["index"] or usual_index(measured.modules)).replace("-", "_")
    record = provenance_of(measured.source, folder)
    figures = attached(evaluation, measured.source, record)
    again = ["s3lora", "card", "." if given.is_dir() else given.name]
    again += given_options(context, besides=("adapter", "output", "check", "printed", "evaluation"))
    again += [] if options["adapter"] is None else ["--adapter", options["adapter"]]
    again += [] if evaluation is None else ["--evaluation", "EVALUATION.json"]
    section = card_section(measured, index, record, figures, [*again, "--check"])
    after = with_section(before, section, front_matter(measured), target)
    if printed:
        emit(after, None)
    elif check:
        return _checked(before, after, target)
    elif before == after:
        emit(f"{printable(target)} is up to date\n", None)
    else:
        if read_card(target) != before:  # what somebody has written since must not get lost
            raise OutputError("has changed meanwhile", file=target, fix="run the command again")
        emit(after, str(target))
        done = "made" if not before else "section replaced" if has_section(before) else "section added"
        emit(f"wrote {printable(target)}: {done}\n", None)
    return 0


def attached(evaluation: str | None, source: Source, record: Recorded | Remade | None) -> AdapterFigures | None:
    """Return what the file of `--evaluation` says of an adapter, None without one."""
    if evaluation is None:
        return None
    from s3lora.evaluate.figures import figures_of
    from s3lora.evaluate.reading import read_measurement

    undone = None if isinstance(record, Remade) else record
    return figures_of(read_measurement(evaluation), source, undone, evaluation)


def _checked(before: str | None, after: str, target: Path) -> int:
    if before == after:
        return 0
    what = "there is no card" if before is None else "differs" if has_section(before) else "has no section of s3lora"
    return complain(f"{target}: {what}; write it with the same command without --check", 1)
