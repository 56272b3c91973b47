"""What all commands share: help in sections, the format by the suffix of `--output`, and what was probably meant."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from s3lora.cli.sections import SECTIONS, section_of
from s3lora.errors import UsageError, nearest, printable

#: End of the name of a file → its format.
SUFFIXES = {
    ".html": "html",
    ".htm": "html",
    ".json": "json",
    ".csv": "csv",
    ".sarif": "sarif",
    ".svg": "svg",
    ".png": "png",
    ".xml": "junit",
    # Nothing writes these: text must not hide behind their names.
    **{
        f".{name}": name
        for name in ("pdf", "docx", "xlsx", "ods", "tsv", "parquet", "yaml", "toml", "jpg", "jpeg", "gif")
    },
}
#: Of commands that write something else.
_OTHERS = {".md": "Markdown"}
#: Commands with so many options list them in sections.
MANY = 15


class OneOf(click.Choice[str]):
    """One of some names; a wrong one is answered by the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            near = nearest(str(value), self.choices)
            if near is None:
                raise
            self.fail(f"{str(value)!r} is none of them. Did you mean {near!r}?", param, ctx)


class AnyPath(click.types.StringParamType):
    """A path, of which only shell completion wants to know that it is one."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete it."""
        return [CompletionItem(incomplete, type="file")]


def _refuse_files_for_options(words: Sequence[str]) -> None:
    """Raise UsageError for a word that reads as an option and names a file.

    Whoever passes on the names of a repository's files, as pre-commit does, would let a folder called `--only=x` choose
    what is looked at.
    """
    for word in words:
        if word == "--":
            return
        if word.startswith("-") and os.sep in word and os.path.lexists(word):
            raise UsageError(
                f"{printable(word, 120)} is also the name of a file", fix=f"write ./{printable(word, 120)}"
            )


class Command(click.Command):
    """A command of s3lora."""

    def __init__(self, *arguments: Any, writes: str | None = None, **keywords: Any) -> None:
        """Let shells complete what is a path; `writes` is the one format of a command that has no `--format`."""
        super().__init__(*arguments, **keywords)
        self._writes = writes
        for one in self.params:
            if one.type is click.STRING and any(word in (one.metavar or "") for word in ("PATH", "FILE", "FOLDER")):
                one.type = AnyPath()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line, and take the format from the name of the output where none is written."""
        if not ctx.resilient_parsing:
            _refuse_files_for_options(args)
        left = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            self._take_format(ctx)
        return left

    def _take_format(self, ctx: click.Context) -> None:
        options = {option.name: option for option in self.params if isinstance(option, click.Option)}
        form, output = options.get("form"), options.get("output")
        written = ctx.get_parameter_source("form") is click.core.ParameterSource.COMMANDLINE
        named = ctx.params.get("output")
        if self._writes is not None and isinstance(named, str):
            kinds = {**SUFFIXES, **_OTHERS}
            end = next((end for end in kinds if named.lower().endswith(end)), None)
            if end is not None and kinds[end] != self._writes:
                fix = f"it writes {self._writes}; give another name than {named}"
                raise UsageError(f"{self.name} writes no {end} file", fix=fix)
        if form is None or output is None or written or not isinstance(named, str):
            return
        asked = next((SUFFIXES[end] for end in SUFFIXES if named.lower().endswith(end)), "")
        choices: Sequence[str] = getattr(form.type, "choices", ())
        folder = output.metavar != "FILE"
        if folder and (output.required or asked != "html"):  # a page can stand for a folder of results
            return
        if asked in choices:
            ctx.params["form"] = asked
            ctx.set_parameter_source("form", click.core.ParameterSource.COMMANDLINE)
        elif asked and not folder:
            known = ", ".join(choices)
            raise UsageError(
                f"{self.name} writes no {asked}", fix=f"it writes {known}; give --format, or another name than {named}"
            )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options in sections, where there are many."""
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        if len(options) <= MANY:
            super().format_options(ctx, formatter)
            return
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in SECTIONS}
        for option in options:
            record = option.get_help_record(ctx)
            if record is not None:
                rows[section_of(self.name or "", "help" if "--help" in option.opts else option.name or "")].append(
                    record
                )
        for title, records in rows.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
