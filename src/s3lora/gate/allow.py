"""What a team accepts, with the reason: `--allow NAME`, or `allow` in a policy."""

from __future__ import annotations

from collections.abc import Iterable

from s3lora.errors import UsageError, one_of, printable
from s3lora.gate.conditions import CONDITIONS, strict
from s3lora.gate.counting import KINDS

#: What no team can accept, for a model with it computes NaN.
_NEVER = "nonfinite"


def allowed_names() -> dict[str, str]:
    """Return what can be allowed, as it is written → its name.

    It is the conditions that stand or are strict, and the kinds of tensors that `unmeasured` counts.
    """
    standing = (name for name, condition in CONDITIONS.items() if condition.standing)
    return {name.replace("_", "-"): name for name in (*strict(), *standing, *KINDS) if name != _NEVER}


def allowances(texts: Iterable[str]) -> dict[str, str]:
    """Return the reason of each name that is allowed; a text is `NAME` or `NAME: reason`.

    Raises UsageError for what cannot be allowed.

    >>> allowances(["heads: the classifier of our task", "bias"])
    {'heads': 'the classifier of our task', 'bias': ''}
    """
    found = {}
    names = allowed_names()
    for text in texts:
        written, _, reason = (part.strip() for part in text.partition(":"))
        name = names.get(written.replace("_", "-"))
        if name is None:
            fix = one_of(written.replace("_", "-"), names)
            raise UsageError(f"{printable(written, 60)!r} cannot be allowed", fix=fix)
        found[name] = reason
    return found
