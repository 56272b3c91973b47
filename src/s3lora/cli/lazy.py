"""A group of commands that imports each when it is called."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from s3lora.errors import nearest


class LazyGroup(click.Group):
    """Imports a command when it is called: scanning must not wait for what only pruning needs, and help for nothing.

    Command NAME is `NAME_command` in the module NAME of `package`, with `_` for `-`.
    """

    def __init__(
        self,
        *arguments: Any,
        package: str,
        about: Mapping[str, str],
        sections: Mapping[str, Sequence[str]] | None = None,
        **keywords: Any,
    ) -> None:
        """Take the package, and a line about each of its commands, in the order in which help lists them.

        `sections`: title → the commands that help lists below it; all of them stand in one.
        """
        super().__init__(*arguments, **keywords)
        self.package = package
        self.about = about
        self.sections = sections

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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; raise a usage error that says what was probably meant."""
        name = args[0]
        if ctx.resilient_parsing or name in self.about or name.startswith("-"):
            return super().resolve_command(ctx, args)
        near = nearest(name, self.about)
        path = "scan" in self.about and (os.path.exists(name) or (near is None and "/" in name))
        meant = f"{ctx.command_path} scan {name}" if path else near
        raise click.UsageError(f"No such command {name!r}." + (f" Did you mean {meant!r}?" if meant else ""), ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        for title, names in (self.sections or {"Commands": tuple(self.about)}).items():
            with formatter.section(title):
                formatter.write_dl([(name, self.about[name]) for name in names])
