"""The profiles of judges by name, and which of them a model is told to be of."""

from __future__ import annotations

from collections.abc import Iterable

from s3lora.errors import UsageError, printable
from s3lora.evaluate.judges.guards import LLAMA_GUARD_3, QWEN3GUARD
from s3lora.evaluate.judges.profile import JudgeProfile
from s3lora.evaluate.judges.published import HARMBENCH_CLS, STRONGREJECT
from s3lora.evaluate.judges.rubric import RUBRIC

#: Every profile by the name that a user gives it.
PROFILES: dict[str, JudgeProfile] = {
    profile.name: profile for profile in (RUBRIC, LLAMA_GUARD_3, QWEN3GUARD, HARMBENCH_CLS, STRONGREJECT)
}


def profile_named(name: str) -> JudgeProfile:
    """Return a profile; raise UsageError, which lists all of them, for no such name."""
    if name not in PROFILES:
        raise UsageError(f"no judge profile {printable(name, 40)}", fix=f"choose from {', '.join(PROFILES)}")
    return PROFILES[name]


def told_by_name(model: str) -> JudgeProfile | None:
    """Return the one profile that knows a model of this name, None where none or several do.

    >>> told_by_name("meta-llama/Llama-Guard-3-8B").name
    'llama-guard-3'
    """
    return _only(p for p in PROFILES.values() if p.known is not None and p.known.search(model.casefold()))


def told_by_template(template: str) -> JudgeProfile | None:
    """Return the one profile whose mark a chat template holds, None where none or several do."""
    return _only(p for p in PROFILES.values() if p.template_mark is not None and p.template_mark in template)


def _only(found: Iterable[JudgeProfile]) -> JudgeProfile | None:
    profiles = list(found)
    return profiles[0] if len(profiles) == 1 else None
