"""Repair: giving back refusals that fine-tuning took, at a known price. See docs/repair.md.

The package is also the function: `s3lora.repair(adapter, base)` is `s3lora.repair.repairing.repair`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package that is called like the function in it, whichever of both was imported first."""

    def __call__(self, *args: Any, **more: Any) -> Any:
        """Call `s3lora.repair.repairing.repair`."""
        from s3lora.repair.repairing import repair

        return repair(*args, **more)


sys.modules[__name__].__class__ = _CallablePackage
