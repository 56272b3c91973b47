"""Sentences that name what to give: to whoever types a command its options, to whoever calls a function its parameters.

One sentence is written, with a name in braces where the two differ; `WAYS` knows both.
"""

from __future__ import annotations

from typing import Any

#: What can be given → as the option of a command, and as Python has it.
WAYS = {
    "adapter": ("--adapter ", "adapter="),
    "bake": ("--bake-scaling", "bake=True"),
    "base": ("--base", "base="),
    "batch_size": ("--batch-size", "batch_size="),
    "code": ("--code", "code="),
    "drop_all": ("--drop all", 'drop=["all"]'),
    "dtype": ("--dtype ", "dtype="),
    "endpoint": ("--endpoint", "a server"),
    "energy": ("--energy", "energy="),
    "folder": ("--out", "folder="),
    "follow": ("--follow", "follow="),
    "force": ("--force", "force=True"),
    "force_flat": ("--force-flat", "flat=True"),
    "harmful": ("--harmful", "harmful="),
    "index": ("--index", "index="),
    "judge_endpoint": ("--judge-endpoint", "the server of the judge"),
    "judge_logits": ("--judge-logits", "logits=True"),
    "judge_profile": ("--judge-profile", "profile="),
    "keep_rank": ("--keep-rank", "keep_rank=True"),
    "kurtosis": ("--kurtosis", "kurtosis=True"),
    "limit": ("--limit", "limit="),
    "max_cost": ("--max-cost ", "max_cost="),
    "out": ("-o", "out="),
    "pad": ("--pad-rank", "pad="),
    "policy": ("--policy", "read_policy"),
    "prompt_field": ("--prompt-field", "prompt_fields"),
    "prompt_field_is": ("--prompt-field ", "prompt_fields="),
    "prune_all": ("prune --drop all", 'prune(…, drop=["all"])'),
    "rank": ("--rank", "rank="),
    "reference": ("--reference", "a reference"),
    "references": ("--references", "references="),
    "remove": ("--mode remove", "Remove()"),
    "scale": ("--mode scale", "Scale()"),
    "strengths": ("--strengths", "strengths"),
    "suite": ("--suite ", "the suite "),
    "tasks": ("--tasks", "tasks="),
    "to": ("--to", "to="),
    "tokens": ("--tokens", "tokens="),
    "top": ("--top", "top"),
    "unaligned": ("--unaligned", "unaligned="),
    "variant": ("--variant", "variant="),
    "where": ("--where", "where"),
    "where_is": ("--where ", "where="),
    "workers": ("--workers", "workers="),
    "zero": ("--mode zero", "Zero()"),
}
_COMMAND = {name: option for name, (option, _) in WAYS.items()}
_PYTHON = {name: parameter for name, (_, parameter) in WAYS.items()}


class Worded(str):
    """A text as a caller in Python reads it, with what the user of a command reads instead."""

    command: str

    def __new__(cls, python: str, command: str) -> Worded:
        """Keep both."""
        made = super().__new__(cls, python)
        made.command = command
        return made

    def __reduce__(self) -> tuple[type[Worded], tuple[str, str]]:
        """Return what a copy in another process is made of."""
        return Worded, (str(self), self.command)


def worded(text: str, **values: Any) -> Worded:
    """Return a text with its names in braces replaced: those of `WAYS` by what they name, `values` by their values,
    which may be such texts themselves.

    >>> text = worded("{out} is taken; give {force} to replace {name}", name="x")
    >>> str(text), text.command
    ('out= is taken; give force=True to replace x', '-o is taken; give --force to replace x')
    """
    commands = {name: for_command(value) if isinstance(value, str) else value for name, value in values.items()}
    return Worded(text.format_map({**_PYTHON, **values}), text.format_map({**_COMMAND, **commands}))


def option(name: str) -> Worded:
    """Return an option by its name, which as a parameter has underscores, as it is given."""
    return Worded(f"{name.replace('-', '_')}=", f"--{name}")


def for_command(text: str) -> str:
    """Return a text as the user of a command reads it."""
    return text.command if isinstance(text, Worded) else text


def all_worded(separator: str, texts: list[str]) -> Worded:
    """Return several texts as one, for either reader."""
    return Worded(separator.join(texts), separator.join(map(for_command, texts)))
