"""A group of commands that imports each when it is called."""

from __future__ import annotations

import importlib
from typing import Any

import click


class LazyGroup(click.Group):
    """Imports a command when it is called: scanning must not wait for what only pruning needs.

    Command NAME is `NAME_command` in the module NAME of `package`.
    """

    def __init__(self, *arguments: Any, package: str, names: tuple[str, ...], **keywords: Any) -> None:
        """Take the package and, in the order in which help lists them, the names of its commands."""
        super().__init__(*arguments, **keywords)
        self.package = package
        self.names = names

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
        if cmd_name not in self.names:
            return None
        command = getattr(importlib.import_module(f"{self.package}.{cmd_name}"), f"{cmd_name}_command")
        return command if isinstance(command, click.Command) else None
