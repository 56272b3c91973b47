"""`s3lora fleet report`."""

from __future__ import annotations

from pathlib import Path

import click

from s3lora.cli.command import Command, OneOf
from s3lora.cli.options import INDEX_NAMES, RankingName
from s3lora.cli.output import check_output, emit
from s3lora.errors import UsageError
from s3lora.fleet.populations.survey import MOST, survey


@click.command("report", cls=Command)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("-o", "--output", metavar="FILE", help="Write the page to a file.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare with the population of this file, made by `fleet reference build`  [default: with DIR itself].",
)
@click.option(
    "--index",
    type=RankingName(INDEX_NAMES),
    default="ssi",
    show_default=True,
    help="What adapters are ranked by.",
)
@click.option(
    "--most", type=click.IntRange(1, 1000), default=MOST, show_default=True, metavar="N", help="Adapters to name."
)
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Scan these adapters again, write the page of each into this folder, and link to it.",
)
@click.option(
    "--format", "form", type=OneOf(["html", "json"]), default="html", show_default=True, help="Output format."
)
def report_command(
    folder: Path, output: str | None, reference: Path | None, index: str, most: int, reports: Path | None, form: str
) -> None:
    """Show what a dataset of `fleet scan` holds, as one HTML page.

    It has the distribution of indices by base family and projection, the adapters that stand farthest from others of
    their kind, errors, duplicates and recipes.

    \b
    s3lora fleet report results -o population.html
    s3lora fleet report results --reference ref.parquet --reports pages -o population.html
    """
    check_output(output)
    if reports is not None and form != "html":
        raise UsageError(f"--reports does nothing with --format {form}")
    if reports is not None and output is None:
        raise UsageError("--reports needs --output", fix="give the page a file, from which its links start")
    population = survey(folder, index=index.replace("-", "_"), most=most, reference=reference)
    if form == "json":
        from s3lora.report.documents import to_json

        emit(to_json(population), output)
        return
    from s3lora.report.population_page import population_page

    own = {}
    if reports is not None and output is not None:
        from s3lora.cli.fleet.reports import write_reports

        own = write_reports(population, reports, Path(output))
    emit(population_page(population, own), output)
