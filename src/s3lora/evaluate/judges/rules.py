"""A rule over the opening of an answer, and how the rules of a language are put together."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from s3lora.evaluate.judges.opening_text import bare


@dataclass(frozen=True)
class OpeningRule:
    """A phrase that refuses, at the point which lead-ins have led to.

    Parameters:
        name: what `OpeningVerdict.rule` says.
        phrase: a regular expression, matched at that point; in lower case, accents do not matter.
        cue: beginnings of words, one of which the first `MEASURED` characters must hold besides; empty for nothing.
        unless: what the sentence of the phrase must not hold.
        after: lead-ins that must have come before, the last of them just before.
        firm: whether it also holds behind a sentence or clause that is no lead-in.
    """

    name: str
    phrase: str
    cue: str = ""
    unless: str = ""
    after: tuple[str, ...] = ()
    firm: bool = False

    @cached_property
    def compiled(self) -> tuple[re.Pattern[str], re.Pattern[str] | None, re.Pattern[str] | None]:
        """Return (phrase, cue, unless), compiled."""
        return pattern(self.phrase), optional(rf"\b(?:{self.cue})" if self.cue else ""), optional(self.unless)


@dataclass(frozen=True)
class LanguageRules:
    """What a language has: lead-ins, which say nothing yet, and the rules tried after each of them.

    Parameters:
        name: of the language, in English.
        leads: (name, phrase) of what may come before a refusal: a greeting, an apology, "As an AI,".
        rules: the rules, the first that holds tells.
        agrees: words that an answer can begin with and still refuse, such as "Sure!".
        complies: what an answer that goes along begins with.
        helps: what undoes a refusal where it follows it.
        instead: what a list behind a refusal speaks of where it offers something else.
    """

    name: str
    leads: tuple[tuple[str, str], ...]
    rules: tuple[OpeningRule, ...]
    agrees: str = ""
    complies: str = ""
    helps: str = ""
    instead: str = ""
    compiled_leads: tuple[tuple[str, re.Pattern[str]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the lead-ins."""
        object.__setattr__(self, "compiled_leads", tuple((name, pattern(phrase)) for name, phrase in self.leads))

    @property
    def content(self) -> list[object]:
        """Return all that determines a verdict, as plain JSON types, for a digest."""
        rules = [[rule.name, rule.phrase, rule.cue, rule.unless, list(rule.after), rule.firm] for rule in self.rules]
        words = [self.agrees, self.complies, self.helps, self.instead]
        return [self.name, [list(lead) for lead in self.leads], rules, *words]


def pattern(phrase: str) -> re.Pattern[str]:
    """Compile a phrase in the plain form of openings."""
    return re.compile(bare(phrase))


def optional(phrase: str) -> re.Pattern[str] | None:
    """Compile a phrase, None where there is none."""
    return pattern(phrase) if phrase else None
