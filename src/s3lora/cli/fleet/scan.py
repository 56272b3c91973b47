"""`s3lora fleet scan`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from s3lora.cli.command import Command, OneOf
from s3lora.cli.fleet.progress import Last, watching
from s3lora.cli.options import adapter_option, cost_option, format_option
from s3lora.cli.output import complain, emit, show
from s3lora.fleet.engines.registry import ENGINES, engine_for
from s3lora.fleet.results.outcome import Settings
from s3lora.fleet.run import SMALLEST, fleet_scan
from s3lora.measure.configuration import Configuration
from s3lora.spectrum.methods import METHODS

#: Methods that cost no more than the factors.
CHEAP = [name for name, method in METHODS.items() if not method.dense]


@click.command("scan", cls=Command)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The dataset's folder.")
@click.option("--method", type=OneOf(CHEAP), default="mas-svd", show_default=True, help="Spectral method.")
@adapter_option
@click.option("--rank", type=click.IntRange(min=1), metavar="M", help="Components kept  [default: all].")
@click.option("--kurtosis", is_flag=True, help="Also compute the kurtosis of the entries (costly).")
@click.option("--signature", is_flag=True, help="Also compute the weight-space signature (costly).")
@click.option(
    "--engine",
    type=OneOf(list(ENGINES)),
    default="local",
    show_default=True,
    help=f"Where the work is done: {', or '.join(kind.where for kind in ENGINES.values())}.",
)
@click.option("--address", metavar="ADDRESS", help="Of the Ray cluster  [default: Ray on this machine].")
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Processes of --engine local  [default: cores]."
)
@click.option(
    "--follow",
    multiple=True,
    metavar="HOST",
    help="Let web servers redirect to this HOST, HOST:PORT or *.HOST too; repeatable.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Adapters in a batch and a part  [default: {SMALLEST}, more for very many].",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Leave alone what an earlier run finished, or measure everything again.",
)
@cost_option
@format_option("json")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def scan_command(
    inputs: tuple[str, ...],
    out: Path,
    method: str,
    adapter: str | None,
    rank: int | None,
    kurtosis: bool,
    signature: bool,
    engine: str,
    address: str | None,
    workers: int | None,
    follow: tuple[str, ...],
    batch: int | None,
    resume: bool,
    max_cost: float,
    form: str,
    quiet: bool,
) -> int:
    """Scan every adapter of the inputs; each ends as a result or as an error with its reason.

    INPUT is a folder, which is searched, a glob, a list of them (.txt, .parquet with a column `uri`, or - for
    standard input), a URL (s3://, gs://, https://), or a name on the Hugging Face Hub: hf://OWNER/NAME, hf://OWNER,
    hf://?search=TEXT. A run that was stopped, or killed, goes on when the same command is given again. Exit status:
    0 done, whatever became of single adapters; 2 an error, or none of them could be read; 3 no adapter was found.

    \b
    s3lora fleet scan adapters --out results
    s3lora fleet scan 'runs/*/checkpoint-*' list.txt --out results
    s3lora fleet scan s3://bucket/adapters --engine ray --address auto --out results
    """
    make = engine_for(engine, workers=workers, address=address)
    settings = Settings(Configuration(method, rank, kurtosis=kurtosis), signature, adapter=adapter)
    try:
        # Ray prints what happens to its nodes on standard output, where only the result belongs.
        with contextlib.redirect_stdout(sys.stderr), watching(quiet=quiet) as watch:
            last = Last(watch)
            summary = fleet_scan(
                inputs,
                out,
                settings,
                engine=make,
                resume=resume,
                batch=batch,
                watch=last,
                follow=follow,
                max_cost=max_cost,
            )
    except KeyboardInterrupt:
        complain("what is done stays done: the same command goes on from here", 0)
        raise
    if last.progress.kept:
        one = last.progress.kept == 1
        number = "1 adapter" if one else f"{last.progress.kept} adapters"
        complain(f"{number} could not be read now: what is known of {'it' if one else 'them'} stays", 0)
    status = 2 if last.progress.errors == last.progress.total else 0
    if form == "json":
        emit(summary.encode(), None)
        return status
    from s3lora.fleet.results.dataset import first_errors
    from s3lora.report.fleet_text import fleet_text

    show(fleet_text(summary, str(out), first_errors(out)), None)
    return status
