"""Write docs/command-help.md: what `s3lora --help` and the help of every command print on 80 columns.

    python docs/make_cli.py

A test fails where the page is not what this would write.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from s3lora.cli.main import cli

PAGE = Path(__file__).parent / "command-help.md"
#: What click makes of a terminal of 80 columns.
WIDTH = 78

HEAD = """\
# Help of every command

This is what the program itself says; [command line](command-line.md) explains it, with examples. The page is written by
`python docs/make_cli.py`.
"""


def block(words: str, context: click.Context) -> str:
    """Return a section with one command and what its help prints."""
    printed = "\n".join(line.rstrip() for line in context.command.get_help(context).splitlines())
    title = f"s3lora {words}".strip()
    return f"\n## {title}\n\n```console\n$ {title} --help\n{printed}\n```\n"


def blocks(words: str, context: click.Context) -> Iterator[str]:
    """Yield the section of a command and, of a group, those of its commands."""
    yield block(words, context)
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            yield from blocks(f"{words} {name}".strip(), click.Context(command, info_name=name, parent=context))


def page() -> str:
    """Return the whole page."""
    context = click.Context(cli, info_name="s3lora", terminal_width=WIDTH, **cli.context_settings)
    return "".join((HEAD, *blocks("", context)))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
