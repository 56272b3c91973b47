"""`s3lora scan`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from s3lora.choose.rules import Outlier
from s3lora.cli.options import (
    GATING,
    adapter_option,
    base_options,
    format_option,
    given_options,
    is_written,
    module_filter,
    refuse_idle,
    refuse_rules,
    rule_options,
    scan_options,
    selector,
)
from s3lora.cli.output import check_output, complain, emit, show
from s3lora.cli.policies import PolicyCommand, policy_allows, policy_options
from s3lora.cli.scan_formats import FORMATS, ScanOutcome, document_of
from s3lora.cli.scan_measuring import Measuring
from s3lora.cli.steps import next_steps
from s3lora.compat.results import LoaderVerdict
from s3lora.compat.rules import loader_rule
from s3lora.errors import UsageError
from s3lora.gate.allow import allowances, allowed_names
from s3lora.gate.audit import Audit, Terms, audit, gravest
from s3lora.gate.baseline import read_baseline
from s3lora.gate.findings import PERCENTILES, Gate, gates_of
from s3lora.gate.places import names_for
from s3lora.measure.against import Against
from s3lora.measure.delta import CHECKPOINT
from s3lora.measure.published import among_published
from s3lora.measure.scan import Scan
from s3lora.spectrum.indices import any_costly

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Modules that one rule names on standard error, for one adapter.
TOLD = 10
#: What `--reference` says where an adapter is to be compared with nothing.
NO_REFERENCE = "none"


@click.command("scan", cls=PolicyCommand)
@click.argument("paths", nargs=-1, metavar="PATH...")
@adapter_option
@scan_options
@base_options
@click.option("--delta", metavar="FOLDER", help="Instead of PATH: a whole model, held against --base-weights.")
@rule_options
@click.option(
    "--fail-on",
    multiple=True,
    metavar="RULE",
    help="Exit 1 if this holds, e.g. 'ssi > 0.8', or loader:NAME; of the modules that the filters let pass.",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="NAME[: REASON]",
    help=f"Accept this where --fail-on would find it: {', '.join(allowed_names())}.",
)
@click.option("--baseline", metavar="FILE", help="An earlier result in SARIF; only what is new counts.")
@click.option(
    "--reference",
    metavar="FILE",
    help="A population that says where the adapter stands, or none  [default: published adapters].",
)
@policy_options
@format_option(*FORMATS)
@click.option("--evaluation", metavar="FILE", help="A sweep.json of the adapter, whose curve --format html shows.")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file.")
@click.option("--sarif", metavar="FILE", help="Also write the result as SARIF, whatever --format is.")
@click.option("-q", "--quiet", is_flag=True, help="Print no report; findings and errors are told all the same.")
def scan_command(
    paths: tuple[str, ...],
    fail_on: tuple[str, ...],
    allow: tuple[str, ...],
    baseline: str | None,
    reference: str | None,
    form: str,
    output: str | None,
    sarif: str | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Score every module of one or more LoRA adapters, and show what a rule would prune.

    PATH is an adapter folder or a weights file. With --format json one PATH gives an object, several an array. Exit
    status: 0 done, 1 a --fail-on rule holds, 2 an error, 3 nothing to audit.

    \b
    s3lora scan my-adapter
    s3lora scan my-adapter --method svd --rule outlier
    s3lora scan my-adapter --reference ref.parquet
    s3lora scan my-adapter --base-weights base-model
    s3lora scan --delta merged-model --base-weights base-model
    s3lora scan my-adapter --format json --output scan.json
    """
    quiet = quiet and output is None  # a report in a file is quiet
    _check_outputs(form, output, sarif, options["evaluation"], quiet=quiet)
    if form in ("svg", "png") and len(paths) > 1:
        raise UsageError("a picture shows one adapter", fix="give one PATH, or --format html for several")
    paths = _meant(paths, options["delta"], options["base_weights"])
    whole = options["delta"] is not None
    allowed = allowances((*policy_allows(click.get_current_context()), *allow))
    gates = gates_of(fail_on, allowed)
    metrics = {gate.metric for gate in gates}
    if allowed and not fail_on and is_written(click.get_current_context(), "allow"):
        raise UsageError("--allow does nothing without --fail-on RULE")
    written, reference = reference, None if reference == NO_REFERENCE else reference
    gated = next((gate for gate in gates if gate.metric in PERCENTILES), None)
    if gated is not None and reference is None:
        raise UsageError(f"the rule {gated} needs a reference", fix="give --reference FILE")
    compare = _comparison(reference, form, quiet=quiet, gated=gated is not None)
    shown = not quiet and (form == "text" or FORMATS[form].publishes)
    asked = [gate.loader for gate in gates if gate.loader is not None]
    if asked and whole:
        raise UsageError(f"the rule {loader_rule(asked[0])} needs an adapter", fix="a whole model is none")
    others = form in FORMATS and FORMATS[form].methods
    measure = Measuring(options, asked, nonfinite="nonfinite" in metrics, others=others)
    terms = _terms(gates, allowed if fail_on else {}, baseline, compare, measure.verdicts.__getitem__, options)
    publish = among_published if shown and written is None and not whole else None
    terms = replace(terms, names=names_for(paths), publish=publish)
    refuse_idle(click.get_current_context(), besides=("z",) if "outliers" in metrics else ())
    options["kurtosis"] = options["kurtosis"] or any_costly(PERCENTILES.get(metric, metric) for metric in metrics)

    audits: list[Audit] = []
    for path in paths:
        one = audit(path, measure, terms)
        # Of a whole model there is nothing to choose.
        audits.append(replace(one, plan=None) if whole else one)
        _tell(audits[-1])
        if form == "text" and output is None and not quiet:
            _show(audits[-1:], None, first=sum(one.scan is not None for one in audits) == 1)
    _tell_known(audits, baseline)
    outcome = ScanOutcome(audits, terms, options, measure.scans)
    if form == "text":
        if output is not None:
            _show(audits, output)
        elif len(audits) > 1 and not quiet:
            show(_overview(audits), None)
    elif any(one.scan is not None for one in audits) or FORMATS[form].of_failures:
        emit(FORMATS[form].render(outcome), output)
    if sarif is not None:
        emit(FORMATS["sarif"].render(outcome), sarif)
    status = gravest(audits)
    if quiet and not fail_on and sarif is None and status == 0:
        complain("no rule was given, here or in a policy: all that was asked is whether the files can be read", 0)
    return status


def _check_outputs(form: str, output: str | None, sarif: str | None, evaluation: str | None, *, quiet: bool) -> None:
    """Raise where an output cannot be written, or an option about outputs would do nothing."""
    check_output(output)
    check_output(sarif, "--sarif")
    if sarif is not None and output is not None and os.path.realpath(sarif) == os.path.realpath(output):
        raise UsageError("--sarif and --output name one file", fix="give it a place of its own")
    if quiet and form != "text":
        raise UsageError(f"--quiet does nothing with --format {form}")
    if evaluation is not None and form != "html":
        raise UsageError("--evaluation does nothing without --format html")


def _meant(paths: tuple[str, ...], delta: str | None, base_weights: str | None) -> tuple[str, ...]:
    """Return what is to be measured: the paths, or the whole model of --delta in their place."""
    if delta is None:
        if not paths:
            raise click.MissingParameter(param_hint="'PATH...'", param_type="argument")
        return paths
    if paths:
        raise UsageError("--delta and PATH exclude each other", fix="scan the adapter by itself")
    if base_weights is None:
        raise UsageError("--delta does nothing without --base-weights FOLDER")
    refuse_rules(click.get_current_context(), "--delta")
    return (delta,)


def _comparison(reference: str | None, form: str, *, quiet: bool, gated: bool) -> Callable[[Scan], Against] | None:
    """Return what holds a scan against the reference, None where there is none or nothing that needs it.

    A report shows it, or it is `gated`: a rule is about a percentile.

    Raises UsageError where the option was written and no report would show it; a policy's reference is passed over.
    """
    if reference is None:
        return None
    if not gated and (quiet or not (form == "text" or FORMATS[form].compares)):
        if is_written(click.get_current_context(), "reference"):
            raise UsageError(f"--reference does nothing with {'--quiet' if quiet else f'--format {form}'}")
        return None
    from s3lora.fleet.populations.standing import Reference

    return Reference(Path(reference)).compare


def _terms(
    gates: tuple[Gate, ...],
    allow: Mapping[str, str],
    baseline: str | None,
    compare: Callable[[Scan], Against] | None,
    loaders: Callable[[str], tuple[LoaderVerdict, ...]],
    options: dict[str, Any],
) -> Terms:
    if baseline is not None and not (gates or allow):
        raise UsageError("--baseline does nothing without --fail-on RULE")
    return Terms(
        choose=selector(options),
        gates=gates,
        allow=allow,
        only=module_filter(options),
        outlier=Outlier(options["z"]),
        baseline=None if baseline is None else read_baseline(baseline),
        compare=compare,
        loaders=loaders,
    )


def _tell(one: Audit) -> None:
    """Print on standard error what was found in one adapter, and what was wrong with it."""
    if one.error is not None:
        complain(one.error.located(), one.error.exit_status)
    for verdict in one.verdicts:
        for found in verdict.new[:TOLD]:
            complain(f"{one.path}: finding: {found.message}", 1)
        if more := len(verdict.new[TOLD:]):
            complain(f"{one.path}: finding: {more} more module{'s' if more > 1 else ''}, rule {verdict.gate}", 1)
    for allowed in one.allowed:
        complain(f"{one.path}: {allowed}", 0)
    if (
        one.scan is not None
        and one.scan.inventory.alone
        and {"code", "pickles"} & {v.gate.metric for v in one.verdicts}
    ):
        complain(
            f"{one.path}: is one file, and no code or pickle beside it was looked for; give the folder for that", 0
        )
    if one.incomplete:
        complain(f"{one.path}: {one.incomplete}", 2)


def _tell_known(audits: Sequence[Audit], baseline: str | None) -> None:
    known = sum(len(verdict.known) for one in audits for verdict in one.verdicts)
    if known:
        complain(f"{baseline}: {known} finding{'s are' if known > 1 else ' is'} known and not counted", 0)


def _show(audits: Sequence[Audit], output: str | None, *, first: bool = True) -> None:
    """Print the reports, each after a blank line but the first, or write them."""
    from rich.console import Group
    from rich.text import Text

    from s3lora.report.text import console_for, scan_text

    console = None if output is not None else console_for(sys.stdout)
    parts: list[RenderableType] = []
    for one in audits:
        if one.scan is None:
            continue
        if parts or not first:
            parts.append(Text())
        steps = next_steps(one.scan, one.path)
        parts.append(scan_text(document_of(one, one.scan), _pruning(one, one.scan), console, steps=steps))
    if output is not None and len(parts) > 1:
        parts.append(_overview(audits))
    if parts:
        show(Group(*parts), output)


def _overview(audits: Sequence[Audit]) -> RenderableType:
    """Return all adapters in one table, below an empty line."""
    from rich.console import Group
    from rich.text import Text

    from s3lora.report.overview_text import overview_text

    found = [(one.path, document_of(one, one.scan)) for one in audits if one.scan is not None]
    return Group(Text(), overview_text(found, len(audits) - len(found))) if found else Group()


def _pruning(one: Audit, scan: Scan) -> str | None:
    """Return the command that prunes what the report marks, None where `prune` would refuse the adapter."""
    if (
        scan.source.format == CHECKPOINT
        or (scan.inventory.base_changed and not scan.true_updates)
        or any(module.nonfinite for module in scan.modules)
    ):
        return None
    context = click.get_current_context()
    # --z may be that of a --fail-on rule, which prune has not.
    unused = () if context.params["rule"] == "outlier" else ("z",)
    return shlex.join(["s3lora", "prune", one.path, *given_options(context, (*GATING, *unused)), "-o", "PRUNED"])
