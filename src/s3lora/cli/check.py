"""`s3lora check`."""

from __future__ import annotations

import click

from s3lora.adapter.loaders import LOADERS
from s3lora.adapter.open import open_adapter
from s3lora.base.model import BaseModel
from s3lora.cli.command import Command
from s3lora.cli.options import adapter_option, format_option
from s3lora.cli.output import check_output, complain, emit, show
from s3lora.compat.checking import check
from s3lora.gate.places import place_of
from s3lora.report.documents import to_json


@click.command("check", cls=Command)
@click.argument("path", metavar="PATH")
@adapter_option
@click.option(
    "--base",
    metavar="BASE",
    help="The base model: its config.json, folder, weights, name in the Hub's cache, or hf://NAME, which is fetched.",
)
@click.option(
    "--loader",
    "loaders",
    multiple=True,
    metavar="NAME[=VERSION]",
    help=f"Only these; repeatable: {', '.join(LOADERS)}  [default: those meant for such an adapter].",
)
@click.option(
    "--fail-on",
    multiple=True,
    metavar="RULE",
    help="Exit 1 if this holds: loader:NAME, loaders (any of them), or modules (not in the base, or of another shape).",
)
@format_option("json", "sarif")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file.")
def check_command(
    path: str,
    adapter: str | None,
    base: str | None,
    loaders: tuple[str, ...],
    fail_on: tuple[str, ...],
    form: str,
    output: str | None,
) -> int:
    """Say whether an adapter loads, on which base and with which loaders, and what mends it.

    Each loader has a verdict – loads and means the same, loads and means something else, fails, or not known – with
    the reason, the versions it was seen in, and the command that mends it. Nothing is loaded or built, and nothing is
    fetched but, with --base hf://NAME, the base's configuration and the headers of its weights. Exit status: 0 done, 1
    a --fail-on rule holds, 2 an error, 3 nothing to check.

    \b
    s3lora check my-adapter
    s3lora check my-adapter --base base-model
    s3lora check my-adapter --base hf://meta-llama/Llama-3.1-8B
    s3lora check my-adapter --loader vllm --loader sglang=0.5.23 --fail-on loader:vllm
    """
    check_output(output)
    known = _base(base)
    with open_adapter(path, adapter) as opened:
        made = check(opened, known, loaders, fail_on)
        place = str(opened.path)
    if form == "json":
        emit(to_json(made), output)
    elif form == "sarif":
        from s3lora.report.check_sarif import check_sarif

        emit(check_sarif(made, place_of(place, made.source.files[0].name if made.source.files else None)), output)
    else:
        from s3lora.report.check_text import check_text

        show(check_text(made, path), output)
    for found in made.findings:
        complain(f"{path}: finding: {found.message}", 1)
    return int(bool(made.findings))


def _base(base: str | None) -> BaseModel | str | None:
    """Return the base as it was given, or what is known of one that is fetched."""
    if base is None or not base.startswith("hf://"):
        return base
    from s3lora.fleet.sources.base_models import fetched_base
    from s3lora.fleet.sources.protocols import UnreachableError

    try:
        return fetched_base(base)
    except UnreachableError as error:
        error.fix = "; ".join(filter(None, (error.fix, "or give a copy: --base PATH/config.json")))
        raise
