"""One small adapter of every kind that people have, made by seed, with its updates as dense matrices.

`docs/make_kinds.py` runs every command on each of them, and a test runs the cells again.
"""

from __future__ import annotations

from tests.kinds import others, peft, pictures, refused
from tests.kinds.kind import GROUPS, Kind

__all__ = ["GROUPS", "KINDS", "Kind"]

#: Every kind, in the order of the page.
KINDS: tuple[Kind, ...] = (*peft.KINDS, *others.KINDS, *pictures.KINDS, *refused.KINDS)
