"""`s3lora scan`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from s3lora.cli.options import (
    format_option,
    given_options,
    module_filter,
    refuse_idle,
    rule_options,
    scan_options,
    scan_with,
    selector,
)
from s3lora.cli.output import check_output, complain, emit, show
from s3lora.errors import NothingToAuditError, S3LoRAError, UsageError
from s3lora.gate import Gate
from s3lora.report.documents import ScanDocument, scan_csv, scan_document, to_json
from s3lora.rules import Outlier
from s3lora.scan import Scan
from s3lora.select import Filter, Plan

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command("scan", short_help="Score every module of an adapter.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@scan_options
@rule_options
@click.option(
    "--fail-on",
    multiple=True,
    metavar="RULE",
    help="Exit 1 if this holds, e.g. 'ssi > 0.8'; of the modules that the filters let pass.",
)
@format_option
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file.")
def scan_command(
    paths: tuple[str, ...], fail_on: tuple[str, ...], form: str, output: str | None, **options: Any
) -> int:
    """Score every module of one or more LoRA adapters, and show what a rule would prune.

    PATH is an adapter folder or a weights file. With --format json one PATH gives an object, several an array. Exit
    status: 0 done, 1 a --fail-on rule holds, 2 an error, 3 nothing to audit.

    \b
    s3lora scan my-adapter
    s3lora scan my-adapter --method svd --rule outlier
    s3lora scan my-adapter --format json --output scan.json
    """
    check_output(output)
    context = click.get_current_context()
    gates = [Gate.parse(rule) for rule in fail_on]
    refuse_idle(context, besides=("z",) if any(gate.metric == "outliers" for gate in gates) else ())
    choose, only, outlier = selector(options), module_filter(options), Outlier(options["z"])
    options["kurtosis"] = options["kurtosis"] or any(gate.metric == "kurtosis" for gate in gates)
    unused = () if options["rule"] == "outlier" else ("z",)  # of --fail-on, which prune has not
    repeated = given_options(context, besides=("fail_on", "form", "output", *unused))
    documents: list[ScanDocument] = []
    commands: list[str] = []
    statuses = [0]
    for path in paths:
        try:
            measured = scan_with(path, options, path)
            plan = _plan(measured, choose, only)
            findings = [text for gate in gates for text in gate.findings(measured, plan, only, outlier)]
        except UsageError:
            raise  # it is the same for every path
        except S3LoRAError as error:
            error.adapter = path
            statuses.append(complain(error.located(), error.exit_status))
            continue
        documents.append(scan_document(measured, plan))
        commands.append(shlex.join(["s3lora", "prune", path, *repeated, "-o", "PRUNED"]))
        statuses += [complain(f"{path}: finding: {text}", 1) for text in findings]
        if missing := sum(not (module.zero or module.sigma) for module in measured.modules):
            statuses.append(
                complain(
                    f"{path}: the scan is incomplete: {missing} of {len(measured.modules)} modules have no index", 2
                )
            )
        if form == "text" and output is None:
            _show(documents[-1:], commands[-1:], None, first=len(documents) == 1)
    if documents and form == "json":
        emit(to_json(documents[0] if len(paths) == 1 else documents), output)
    elif documents and form == "csv":
        emit(scan_csv(documents), output)
    elif documents and output is not None:
        _show(documents, commands, output)
    # An error outranks nothing to audit, which outranks a finding: an incomplete scan never looks like a verdict.
    return max(statuses, key=lambda status: (0, 1, 3, 2).index(status))


def _plan(measured: Scan, choose: Callable[[Scan], Plan], only: Filter) -> Plan | None:
    """Return the plan; None for an adapter of zero updates only, which is a complete scan with nothing to choose."""
    try:
        return choose(measured)
    except NothingToAuditError:
        if all(module.zero for module in measured.modules) and any(map(only.allows, measured.modules)):
            return None
        raise


def _show(documents: list[ScanDocument], commands: list[str], output: str | None, *, first: bool = True) -> None:
    from rich.console import Group
    from rich.text import Text

    from s3lora.report.text import console_for, scan_text

    console = None if output is not None else console_for(sys.stdout)
    parts: list[RenderableType] = []
    for document, command in zip(documents, commands, strict=True):
        if parts or not first:
            parts.append(Text())
        parts.append(scan_text(document, command, console))
    show(Group(*parts), output)
