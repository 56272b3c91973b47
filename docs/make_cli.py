"""Write docs/command-help.md: what `s3lora --help` and the help of every command print on 80 columns.

    python docs/make_cli.py

A test fails where the page is not what this would write.
"""

from __future__ import annotations

from pathlib import Path

import click

from s3lora.cli.main import COMMANDS, cli

PAGE = Path(__file__).parent / "command-help.md"
#: What click makes of a terminal of 80 columns.
WIDTH = 78

HEAD = """\
# Help of every command

This is what the program itself says; [command line](command-line.md) explains it, with examples. The page is written by
`python docs/make_cli.py`.
"""


def help_of(name: str | None = None) -> str:
    """Return what `--help` prints, of the program or of one of its commands."""
    with click.Context(cli, info_name="s3lora", terminal_width=WIDTH, **cli.context_settings) as outer:
        if name is None:
            return cli.get_help(outer)
        command = cli.get_command(outer, name)
        assert command is not None
        with click.Context(command, info_name=name, parent=outer) as inner:
            return command.get_help(inner)


def block(*words: str) -> str:
    """Return a section with one command and what it prints."""
    printed = "\n".join(line.rstrip() for line in help_of(*words).splitlines())
    title = " ".join(("s3lora", *words))
    return f"\n## {title}\n\n```console\n$ {title} --help\n{printed}\n```\n"


def page() -> str:
    """Return the whole page."""
    return "".join((HEAD, block(), *map(block, COMMANDS)))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
