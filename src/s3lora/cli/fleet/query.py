"""`s3lora fleet query`."""

from __future__ import annotations

from pathlib import Path

import click

from s3lora.cli.command import Command, OneOf
from s3lora.cli.options import format_option
from s3lora.cli.output import check_output, emit, show
from s3lora.errors import UsageError
from s3lora.fleet.results.queries import SAVED, ask, saved

_LISTED = "; ".join(f"{name}: {query.meaning}" for name, query in SAVED.items())


@click.command("query", cls=Command)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.argument("sql", required=False)
@click.option("--saved", "name", type=OneOf(list(SAVED)), help=f"A query that is kept here: {_LISTED}.")
@format_option("json", "csv")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file.")
def query_command(folder: Path, sql: str | None, name: str | None, form: str, output: str | None) -> None:
    """Ask a dataset of `fleet scan` in SQL, through DuckDB: the tables are adapters, modules and errors.

    \b
    s3lora fleet query results "SELECT base_family, count(*) FROM adapters GROUP BY 1"
    s3lora fleet query results --saved duplicates
    """
    check_output(output)
    given = [text for text in (sql, None if name is None else saved(name)) if text is not None]
    if len(given) != 1:
        raise UsageError("give either SQL or --saved NAME")
    answer = ask(folder, given[0])
    if form == "text":
        from s3lora.report.answer import answer_text

        show(answer_text(answer), output)
        return
    from s3lora.report.answer import answer_csv, answer_json

    emit(answer_json(answer) if form == "json" else answer_csv(answer), output)
