"""`s3lora sweep`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from s3lora.adapter.open import open_adapter
from s3lora.cli.command import Command
from s3lora.cli.measuring import (
    check_folder,
    data_options,
    is_page,
    model_options,
    named_model,
    open_store,
    progress_bar,
    settings_of,
    store_options,
    suite_option,
    words,
    write_files,
)
from s3lora.cli.options import adapter_option, cost_option, format_option
from s3lora.cli.output import emit, show
from s3lora.errors import UsageError

if TYPE_CHECKING:
    from s3lora.evaluate.store import AnswerStore
    from s3lora.evaluate.suite import Suite
    from s3lora.repair.sweeping import RepairTasks


@click.command("sweep", cls=Command)
@click.argument("path", metavar="ADAPTER")
@adapter_option
@model_options
@click.option(
    "--methods",
    default="mas-svd,random,random-matched",
    show_default=True,
    metavar="NAMES",
    help="Spectral methods, the controls random and random-matched, and methods of repair, such as gates, shrink.",
)
@click.option("--strengths", metavar="LIST", help="Of each repair, in (0, 1]; or 50%  [default: 0.25,0.5,0.75,1].")
@click.option("--unaligned", metavar="MODEL", help="The base before its alignment, for repairs that need it.")
@click.option(
    "--index",
    "indices",
    metavar="NAMES",
    help="Indices to rank by  [default: ssi,weighted-ssi,magnitude; normalised-ssi for ssi where ranks differ].",
)
@click.option(
    "--top",
    metavar="LIST",
    help="Modules to prune: numbers, or shares as 25% or 0.25  [default: 0,10,25%,40%,50%,60%,75%,100%].",
)
@click.option("--match", metavar="NAMES", help="Indices that random-matched is matched to  [default: the first].")
@click.option(
    "--control-seeds",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    metavar="N",
    help="Draws of each control.",
)
@suite_option("safety,planning")
@data_options
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Of everything random."
)
@cost_option
@store_options
@format_option("json", "csv", "html")
def sweep_command(path: str, form: str, output: str | None, **options: Any) -> None:
    """Prune an adapter further and further, by each ranking and by chance, and measure safety and usefulness.

    Methods of repair stand beside the rankings, at several strengths; what they learn from is never what is measured.
    Every answer is kept on disk: a sweep that was stopped goes on where it was, and a repeated one takes seconds.
    With --output the folder gets sweep.json, sweep.csv, curve.png and report.html.

    \b
    s3lora sweep my-adapter --base ./model --output results
    s3lora sweep my-adapter --base ./model --methods mas-svd,svd,spsvd,released,random --index ssi --top 0,5,10,15,20
    s3lora sweep my-adapter --base ./model --methods mas-svd,shrink,gates --strengths 0.25,0.5,0.75,1
    """  # fmt: skip
    from s3lora.repair.sweeping import split_methods, strengths_of

    spectral, repairs = split_methods(words(options["methods"]))
    strengths = strengths_of(None if options["strengths"] is None else words(options["strengths"]))
    for name in ("strengths", "unaligned"):
        if options[name] is not None and not repairs:
            raise UsageError(f"--{name} does nothing without a method of repair", fix="add one to --methods, as gates")
    check_folder(output, form)
    from s3lora.evaluate.suites import build_suites
    from s3lora.evaluate.sweeping import sweep
    from s3lora.report.picture import need_pictures

    drawn = output is not None and not is_page(output, form)
    if drawn:
        need_pictures()  # for the curve: hours later it would be too late to ask for it
    # A sweep is mostly waiting for answers; losses are to be had, alone and for less, by the suite planning-loss.
    suites = build_suites(settings_of(options, options["seed"], losses=False))
    base = named_model(options)
    with open_store(options) as store, open_adapter(path, options["adapter"]) as opened, progress_bar() as advance:
        result = sweep(
            opened,
            base,
            suites,
            methods=spectral,
            others=_repairs(repairs, strengths, suites, options, store) if repairs else None,
            indices=None if options["indices"] is None else words(options["indices"]),
            top=None if options["top"] is None else words(options["top"]),
            match=words(options["match"]) if options["match"] else None,
            control_seeds=options["control_seeds"],
            store=store,
            seed=options["seed"],
            limit=options["limit"],
            advance=advance,
            max_cost=options["max_cost"],
        )
    from s3lora.report.documents import to_json
    from s3lora.report.measured_documents import sweep_csv

    files = {"sweep.json": to_json(result), "sweep.csv": sweep_csv(result)}
    if output is not None or form == "html":
        from s3lora.report.page import sweep_page

        files["report.html"] = sweep_page(result)
        write_files(output, files, form)
    if drawn:
        from s3lora.report.curves import draw

        draw(result, Path(output or "") / "curve.png")
    if form == "text":
        from s3lora.report.sweep_text import sweep_text

        show(sweep_text(result), None)
    elif not is_page(output, form):
        emit(files["report.html" if form == "html" else f"sweep.{form}"], None)


def _repairs(
    names: tuple[str, ...],
    strengths: tuple[float, ...],
    suites: Sequence[Suite],
    options: dict[str, Any],
    store: AnswerStore | None,
) -> RepairTasks:
    """Return the methods of repair, which learn from built-in prompts: a file that is given is measured."""
    from s3lora.evaluate.judges.refusing import refusal_judge
    from s3lora.repair.sweeping import repair_tasks

    return repair_tasks(
        names,
        strengths,
        seed=options["seed"],
        store=store,
        refusals=refusal_judge(options["refusals"]),
        unaligned=options["unaligned"],
        base=options["base"],
        measured=suites,
    )
