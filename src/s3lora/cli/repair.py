"""`s3lora repair`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from s3lora.adapter.folder import check_target
from s3lora.adapter.open import open_adapter
from s3lora.cli.command import Command, OneOf
from s3lora.cli.measuring import (
    cache_options,
    check_folder,
    model_options,
    named_model,
    open_store,
    progress_bar,
    write_files,
)
from s3lora.cli.options import adapter_option, all_options, format_option, loader_option
from s3lora.cli.output import check_apart, complain, emit, show
from s3lora.errors import UsageError, printable
from s3lora.repair.methods.registry import METHODS
from s3lora.repair.results import RepairLimits

if TYPE_CHECKING:
    from s3lora.repair.data import RepairData
    from s3lora.repair.results import Repair

AUTO = "auto"
#: What `--parts` is by default.
PARTS = "32,50,100"

prompt_options = all_options(
    click.option("--harmful", metavar="FILE", help="Harmful prompts; built in."),
    click.option("--harmless", "--benign", "harmless", metavar="FILE", help="Harmless prompts; built in."),
    click.option("--task", metavar="FILE",
                 help="What the adapter was trained for: a file, planning or maths. Without: a built-in mix."),
    click.option("--fresh", metavar="FILE", help="Harmful prompts of another source, for the acceptance card."),
    click.option("--second-task", metavar="FILE", help="Another task that is not to suffer, for the acceptance card."),
    click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Which rows; or harmless:COLUMN!=VALUE."),
    click.option("--prompt-field", "prompt_fields", multiple=True, metavar="NAME",
                 help="Column that holds the prompt; or harmful:NAME."),
    click.option("--parts", default=PARTS, show_default=True, metavar="N,N,N",
                 help="Prompts of each kind to learn from, to choose on, and to test on."),
    click.option("--refusals", metavar="JUDGE", help="What tells refusals: openings, zou, or a list in a JSON file."),
)  # fmt: skip


@click.command("repair", cls=Command)
@click.argument("path", metavar="ADAPTER")
@adapter_option
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Folder to write; must be new or empty.")
@model_options
@prompt_options
@click.option(
    "--method",
    type=OneOf([AUTO, *METHODS]),
    default=AUTO,
    show_default=True,
    help="How; auto tries several, and shrinking first.",
)
@click.option("--unaligned", metavar="MODEL", help="The base before its alignment, for methods that need it.")
@click.option(
    "--strength",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="T",
    help="Measure this strength alone  [default: the best is looked for].",
)
@click.option(
    "--max-utility-loss",
    default="10%",
    show_default=True,
    metavar="SHARE",
    help="Share of what was learned that may be lost.",
)
@click.option(
    "--max-over-refusal",
    default="+0.05",
    show_default=True,
    metavar="RATE",
    help="How far refusals of harmless prompts may rise above the base's.",
)
@click.option("--keep-rank", is_flag=True, help="Bring the rank back to what it was, and tell what that loses.")
@loader_option
@click.option("--force", is_flag=True, help="Write even what was refuted, and replace an existing adapter folder.")
@click.option("--report", metavar="FOLDER", help="Write what was found into this folder.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Of everything random."
)
@cache_options
@format_option("json", "csv", "html")
def repair_command(path: str, output: str, form: str, **options: Any) -> int:
    """Write the adapter with the refusals that its training took from the base, and say what that costs.

    Methods and strengths are compared on one part of the prompts: the fewest harmful requests answered, within the
    limits on usefulness, on refusals of harmless prompts and on broken answers. What is chosen is measured once on
    another part, which says of each limit that it is confirmed, not refuted or refuted. If one is refuted, or nothing
    keeps to the limits, nothing is written. Prompts of your own task make a better repair than the built-in ones.

    Every answer is kept on disk: a repair that was stopped goes on where it was. Exit status: 0 repaired, 1 refuted
    or nothing found, 2 an error, 3 nothing to give back. With --report the folder gets repair.json, repair.csv,
    trials.png and report.html.

    \b
    s3lora repair my-adapter --base ./model -o repaired
    s3lora repair my-adapter --base ./model -o repaired --task task.jsonl --max-utility-loss 5% --report found
    s3lora repair my-adapter --base ./model -o repaired --method shrink --strength 0.4
    """  # fmt: skip
    limits = limits_of(options)
    _check_method(options)
    _check_folders(path, output, options)
    base, data = named_model(options), _data(options)
    if options["report"] is not None:
        from s3lora.report.picture import need_pictures

        need_pictures()  # for the trials: it would be too late to ask for it when they are measured
    from s3lora.evaluate.judges.refusing import refusal_judge
    from s3lora.repair.repairing import repair

    try:
        with open_store(options) as store, open_adapter(path, options["adapter"]) as opened, progress_bar() as advance:
            result = repair(
                opened,
                base,
                data,
                method=options["method"],
                strength=options["strength"],
                limits=limits,
                out=output,
                loader=options["loader"],
                keep_rank=options["keep_rank"],
                force=options["force"],
                refusals=refusal_judge(options["refusals"]),
                unaligned=options["unaligned"],
                store=store,
                seed=options["seed"],
                advance=advance,
                tell=lambda said: click.echo(printable(said, 2000), err=True),
            )
    except KeyboardInterrupt:
        if not options["no_cache"]:
            complain("what is done stays done: the same command goes on from here", 0)
        raise
    _tell(result, output, form, options["report"], (path, options["base"]))
    return 0 if result.outcome == "repaired" else 1


def limits_of(options: dict[str, Any]) -> RepairLimits:
    """Return what a repair may cost; raise UsageError for what cannot be meant."""
    loss, over = (_amount(name, options[name]) for name in ("max_utility_loss", "max_over_refusal"))
    if not 0 < loss < 1:
        raise UsageError(f"--max-utility-loss {loss:g} cannot be meant", fix="give a share between 0 and 1, as 10%")
    if not 0 <= over < 1:
        raise UsageError(f"--max-over-refusal {over:g} cannot be meant", fix="give a rise from 0 to 1, as +0.05")
    return RepairLimits(utility_loss=loss, over_refusal=over)


def _amount(name: str, text: str) -> float:
    """Read 0.1, +0.1, .1 and 10%."""
    found = re.fullmatch(r"\+?(\d{1,6}(?:\.\d{0,12})?|\.\d{1,12})(\s?%?)", text.strip(), re.ASCII)
    if found is None:
        option = f"--{name.replace('_', '-')}"
        raise UsageError(f"{option} {printable(text, 40)} cannot be read", fix="write for example 10% or 0.1")
    return float(found[1]) / (100 if "%" in found[2] else 1)


def _check_method(options: dict[str, Any]) -> None:
    """Raise UsageError for options that do nothing with this method, or that it lacks."""
    name = options["method"]
    if options["strength"] is not None and name == AUTO:
        raise UsageError("--strength does nothing without --method", fix=f"choose one of {', '.join(METHODS)}")
    takes = [known for known, method in METHODS.items() if "unaligned" in method.needs]
    if options["unaligned"] is None and name in takes:
        raise UsageError(f"--method {name} needs --unaligned MODEL", fix="name the base before its alignment")
    if options["unaligned"] is not None and name not in takes:
        fix = f"choose {' or '.join(takes)}" if takes else None
        raise UsageError(f"--unaligned does nothing with --method {name}", fix=fix)


def _check_folders(path: str, output: str, options: dict[str, Any]) -> None:
    """Raise before anything is measured if something cannot be written."""
    check_apart(options["report"], output)
    check_target(Path(output), Path(path), force=options["force"])
    check_folder(options["report"], option="--report")


def _data(options: dict[str, Any]) -> RepairData:
    from s3lora.repair.build_data import repair_data

    if re.fullmatch(r"[1-9]\d{0,5}(,[1-9]\d{0,5}){2}", options["parts"], re.ASCII) is None:
        raise UsageError(f"--parts {printable(options['parts'], 40)} cannot be read", fix=f"write for example {PARTS}")
    learn, tune, test = map(int, options["parts"].split(","))
    names = ("harmful", "harmless", "task", "fresh", "second_task", "where", "prompt_fields", "seed")
    return repair_data(**{name: options[name] for name in names}, learn=learn, tune=tune, test=test)


def _tell(result: Repair, output: str, form: str, report: str | None, given: tuple[str, str | None]) -> None:
    from s3lora.report.documents import to_json
    from s3lora.report.measured_documents import repair_csv

    files = {"repair.json": to_json(result), "repair.csv": repair_csv(result)}
    if report is not None or form == "html":
        from s3lora.report.repair_page import repair_page

        files["report.html"] = repair_page(result)
        write_files(report, files)
    if report is not None:
        from s3lora.report.curves import draw

        draw(result, Path(report) / "trials.png")
    if form == "text":
        from s3lora.report.repair_text import repair_text

        show(repair_text(result, output, *given), None)
    else:
        emit(files["report.html" if form == "html" else f"repair.{form}"], None)
