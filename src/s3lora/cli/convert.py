"""`s3lora convert`."""

from __future__ import annotations

from pathlib import Path

import click

from s3lora.adapter.loaders import LOADERS, loader_of
from s3lora.adapter.open import open_adapter
from s3lora.cli.command import Command, OneOf
from s3lora.cli.options import adapter_option, format_option
from s3lora.cli.output import emit, show
from s3lora.errors import UsageError
from s3lora.files import settle
from s3lora.report.documents import to_json
from s3lora.rewrite.convert.converting import NEW_DTYPES, TARGETS, convert, write_converted
from s3lora.rewrite.convert.loaders import format_for
from s3lora.rewrite.drop import PARTS


@click.command("convert", cls=Command)
@click.argument("path", metavar="PATH")
@click.option("--to", type=OneOf(list(TARGETS)), help="Format to write  [default: that of --loader].")
@click.option(
    "--loader",
    metavar="NAME[=VERSION]",
    help=f"Write it as this loader needs it: {', '.join(LOADERS)}.",
)
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Folder to write; must be new or empty.")
@adapter_option
@click.option("--bake-scaling", is_flag=True, help="Multiply the scaling into lora_B and write alpha = r.")
@click.option(
    "--pad-rank",
    type=click.IntRange(min=0),
    is_flag=False,
    flag_value=0,
    metavar="N",
    help="Give every module rank N by zeros; without N, the largest that there is.",
)
@click.option("--dtype", type=OneOf(NEW_DTYPES), help="Type of all floating numbers  [default: as they are].")
@click.option(
    "--base",
    metavar="BASE",
    help="The base model's config.json, or its folder: for gguf, fused experts in mlx and peft, and from some gguf.",
)
@click.option("--drop", type=OneOf(list(PARTS)), multiple=True, help="Leave these tensors out; repeatable.")
@click.option("--force", is_flag=True, help="Replace an existing adapter folder, the input included.")
@format_option("json")
def convert_command(
    path: str,
    to: str | None,
    loader: str | None,
    output: str,
    adapter: str | None,
    bake_scaling: bool,
    pad_rank: int | None,
    dtype: str | None,
    base: str | None,
    drop: tuple[str, ...],
    force: bool,
    form: str,
) -> None:
    """Write an adapter in another format, with the same update for every module.

    Whatever s3lora reads can be converted; modules that the format cannot hold are refused by name. What was written
    is read again and compared with the input, and the largest relative difference is printed: 0, or that of one
    rounding of each factor. --loader bakes, pads and renames what that loader needs, and refuses what it cannot load.
    s3lora.json beside it says what was done.

    \b
    s3lora convert my-adapter --to peft -o plain
    s3lora convert my-adapter --loader sglang -o for-sglang
    s3lora convert my-adapter --to peft --bake-scaling -o baked
    s3lora convert my-adapter --to peft --pad-rank -o one-rank
    s3lora convert my-adapter --to gguf --base base-model -o for-llama-cpp
    """  # fmt: skip
    if to is None and loader is None:
        raise UsageError(
            "neither a format nor a loader is given", fix=f"give --to {'|'.join(TARGETS)}, or --loader NAME"
        )
    if loader is not None:
        format_for(loader_of(loader), to)  # before anything is opened
    settle(Path(output))  # before it is read, where --output names the input itself
    with open_adapter(path, adapter) as opened:
        converted = convert(
            opened,
            to,
            loader=loader,
            bake=bake_scaling,
            pad=pad_rank,
            dtype=dtype,
            drop=drop,  # type: ignore[arg-type]
            base=base,
        )
        record, _ = write_converted(converted, output, force=force)
    if form == "json":
        emit(to_json(record), None)
    else:
        from s3lora.report.convert_text import convert_text

        show(convert_text(record, output), None)
