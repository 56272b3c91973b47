"""`s3lora tune`."""

from __future__ import annotations

from typing import Any

import click

from s3lora.adapter.open import open_adapter
from s3lora.cli.command import Command, OneOf
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
    write_files,
)
from s3lora.cli.options import INDEX_NAMES, RankingName, adapter_option, cost_option, format_option
from s3lora.cli.output import emit, show
from s3lora.errors import printable
from s3lora.spectrum.methods import METHODS


@click.command("tune", cls=Command)
@click.argument("path", metavar="ADAPTER")
@adapter_option
@model_options
@click.option("--method", type=OneOf(list(METHODS)), default="mas-svd", show_default=True, help="Spectral method.")
@click.option(
    "--index",
    type=RankingName(INDEX_NAMES),
    help="Index to rank by  [default: ssi; normalised-ssi where ranks differ].",
)
@click.option(
    "--floor",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    metavar="F",
    help="Share of what was learned that may be lost.",
)
@suite_option("safety,planning-loss")
@data_options
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Of the split and everything else random.",
)
@cost_option
@store_options
@format_option("json", "csv", "html")
def tune_command(path: str, form: str, output: str | None, **options: Any) -> None:
    """Find the number of modules whose pruning gains most safety at a bounded loss of what was learned.

    The data is cut in two: one half to choose on, the other to check the choice. Before the trials it is said how
    likely they are to find something on so many items. That nothing is worth pruning is a possible outcome, and so is
    that these data cannot tell. --limit counts the items of one half. With
    --output the folder gets tuning.json, tuning.csv and report.html.

    \b
    s3lora tune my-adapter --base ./model --index weighted-ssi --harmful advbench.csv --limit 100
    """  # fmt: skip
    check_folder(output, form)
    from s3lora.evaluate.suites import split_suites
    from s3lora.evaluate.tuning import tune
    from s3lora.report.sweep_text import OUTCOME, tuning_text

    tuning, held_out = split_suites(settings_of(options, options["seed"]))
    with open_store(options) as store, open_adapter(path, options["adapter"]) as opened, progress_bar() as advance:
        result = tune(
            opened,
            named_model(options),
            tuning,
            held_out,
            method=options["method"],
            index=options["index"],
            floor=options["floor"],
            store=store,
            seed=options["seed"],
            limit=options["limit"],
            advance=advance,
            tell=lambda said: click.echo(printable(said, OUTCOME), err=True),
            max_cost=options["max_cost"],
        )
    from s3lora.report.documents import to_json
    from s3lora.report.measured_documents import tuning_csv

    files = {"tuning.json": to_json(result), "tuning.csv": tuning_csv(result)}
    if output is not None or form == "html":
        from s3lora.report.page import tuning_page

        files["report.html"] = tuning_page(result)
        write_files(output, files, form)
    if form == "text":
        show(tuning_text(result), None)
    elif not is_page(output, form):
        emit(files["report.html" if form == "html" else f"tuning.{form}"], None)
