"""A group of commands that imports each when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """Imports a command when it is called: scanning must not wait for what only pruning needs, and help for nothing.

    Command NAME is `NAME_command` in the module NAME of `package`, with `_` for `-`.
    """

    def __init__(self, *arguments: Any, package: str, about: Mapping[str, str], **keywords: Any) -> None:
        """Take the package, and a line about each of its commands, in the order in which help lists them."""
        super().__init__(*arguments, **keywords)
        self.package = package
        self.about = about

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.about)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
        if cmd_name not in self.about:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(importlib.import_module(f"{self.package}.{name}"), f"{name}_command")
        if not isinstance(command, click.Command):
            return None
        command.short_help = self.about[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.about.items()))
