"""`s3lora scan`."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from s3lora.cli.options import format_option, rule_options, run_select, scan_options, scan_with
from s3lora.cli.output import complain, emit, show
from s3lora.errors import NothingToAuditError, S3LoRAError
from s3lora.gate import Gate
from s3lora.report.documents import ScanDocument, scan_csv, scan_document, to_json
from s3lora.scan import Scan
from s3lora.select import Plan


@click.command("scan", short_help="Score every module of an adapter.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@scan_options
@rule_options
@click.option("--fail-on", multiple=True, metavar="RULE", help="Exit 1 if this holds, e.g. 'ssi > 0.8'.")
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
    gates = [Gate.parse(rule) for rule in fail_on]
    documents: list[ScanDocument] = []
    statuses = [0]
    for path in paths:
        try:
            measured = scan_with(path, options, path)
            plan = _plan(measured, options)
        except S3LoRAError as error:
            statuses.append(complain(str(error), error.exit_status))
            continue
        documents.append(scan_document(measured, plan))
        if plan is not None:
            for finding in (text for gate in gates for text in gate.findings(measured, plan)):
                statuses.append(complain(f"{measured.source.name}: finding: {finding}", 1))
        if form == "text" and output is None:
            _show(documents[-1:], [path], None)
    if documents:
        _emit(documents, paths, form, output)
    # An error outranks nothing to audit, which outranks a finding: an incomplete scan never looks like a verdict.
    return max(statuses, key=lambda status: (0, 1, 3, 2).index(status))


def _plan(measured: Scan, options: dict[str, Any]) -> Plan | None:
    """Return the plan; None for an adapter of zero updates only, which is a complete scan with nothing to choose."""
    try:
        return run_select(measured, options)
    except NothingToAuditError:
        if all(module.zero for module in measured.modules):
            return None
        raise


def _emit(documents: list[ScanDocument], paths: tuple[str, ...], form: str, output: str | None) -> None:
    if form == "csv":
        emit(scan_csv(documents), output)
    elif form == "json":
        emit(to_json(documents[0] if len(paths) == 1 else documents), output)
    elif output is not None:
        _show(documents, [document.source.name for document in documents], output)


def _show(documents: list[ScanDocument], paths: list[str], output: str | None) -> None:
    from rich.console import Group

    from s3lora.report.text import console_for, scan_text

    console = None if output is not None else console_for(sys.stdout)
    shown = [
        scan_text(document, f"s3lora prune {shlex.quote(path)} -o PRUNED", console)
        for document, path in zip(documents, paths, strict=True)
    ]
    show(Group(*shown), output)
