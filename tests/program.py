"""The commands of the program, those within groups too, as the tests of the documentation go through them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import click

from s3lora.cli.main import cli


def contexts(outer: click.Context | None = None, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Context]]:
    """Yield every command by its words (`scan`, `fleet scan`), groups but the outermost included, with a context."""
    outer = click.Context(cli, info_name="s3lora", **cli.context_settings) if outer is None else outer
    assert isinstance(outer.command, click.Group)
    for name in outer.command.list_commands(outer):
        command = outer.command.get_command(outer, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=outer)
        yield " ".join((*words, name)), inner
        if isinstance(command, click.Group):
            yield from contexts(inner, (*words, name))


def all_commands() -> dict[str, click.Command]:
    """Return the commands that do something, by their words."""
    return {words: inner.command for words, inner in contexts() if not isinstance(inner.command, click.Group)}


def options(words: str) -> set[str]:
    """Return the long options of a command."""
    parameters = all_commands()[words].params
    found = [name for p in parameters if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)]
    return {name for name in found if name.startswith("--")}


@contextlib.contextmanager
def parsed(words: Sequence[str]) -> Iterator[tuple[str, click.Context]]:
    """Parse a command line as the program would; give the command's words and its context, and raise as click does.

    It is parsed within the program's own context: a command remembers the names of its help option from the first.
    """
    outer = click.Context(cli, info_name="s3lora", **cli.context_settings)
    rest, named = list(words), []
    while isinstance(outer.command, click.Group):
        if not rest:
            raise click.UsageError("a command is missing")
        command = outer.command.get_command(outer, rest[0])
        if command is None:
            raise click.UsageError(f"there is no command {rest[0]}")
        named.append(rest.pop(0))
        if isinstance(command, click.Group):
            outer = click.Context(command, info_name=named[-1], parent=outer)
            continue
        with command.make_context(named[-1], rest, parent=outer) as context:
            yield " ".join(named), context
        return
