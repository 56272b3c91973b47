"""What commands, policies and pages need to know of a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from s3lora.choose.ranking import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A number that a rule takes, given by the option `--name`.

    Parameters:
        name: of the option, in lower-case letters.
        type: int or float.
        metavar: what stands for the number in the help.
        help: a sentence.
        default: None where the option is what asks for the rule.
        least, most: ends of its range, as far as the option's help should show them.
    """

    name: str
    type: type[int] | type[float]
    metavar: str
    help: str
    default: float | None = None
    least: int | None = None
    most: int | None = None

    @property
    def kind(self) -> str:
        """Return what a policy calls the type."""
        return "a whole number" if self.type is int else "a number"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleKind:
    """A kind of rule, with all that anyone needs to know of it.

    Parameters:
        name: the first word of the rule as text.
        make: makes the rule from the values of `settings` and `shared`, as keywords.
        settings: options of its own.
        asked_by_option: whether its only setting, as `--top 10`, asks for it; else `--rule name` does.
        shared: other options of the commands that it takes, such as `seed`.
        leading: whether it takes the units from the first to some last one.
        page: how the page of a scan offers it; None where the page cannot apply it. What it does there is the function
            of this name in `RULES` of `rules.js`.
    """

    name: str
    make: Callable[..., Rule]
    settings: tuple[Setting, ...] = ()
    asked_by_option: bool = False
    shared: tuple[str, ...] = ()
    leading: bool = False
    page: str | None = None

    def rule(self, options: Mapping[str, Any]) -> Rule:
        """Return the rule that the values of a command's options ask for; raise UsageError if they cannot be meant."""
        names = (*(setting.name for setting in self.settings), *self.shared)
        return self.make(**{name: options[name] for name in names})
