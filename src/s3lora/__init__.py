"""s3lora: audit a LoRA adapter from its file alone, and prune its sharpest modules.

>>> import s3lora
>>> adapter = s3lora.open_adapter("my-adapter")              # doctest: +SKIP
>>> scan = s3lora.scan(adapter)                              # doctest: +SKIP
>>> plan = s3lora.select(scan, s3lora.Top(10))               # doctest: +SKIP
>>> pruned = s3lora.prune(adapter, plan)                     # doctest: +SKIP
>>> s3lora.write_pruned(pruned, scan, "my-adapter-pruned")   # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING

from s3lora._version import __version__

if TYPE_CHECKING:
    from s3lora.adapter.model import Adapter, LoraModule, Scaling
    from s3lora.adapter.open import open_adapter
    from s3lora.compare import Comparison, ModuleChange, compare
    from s3lora.compose import Alignment, Composition, ModuleComposition, ModuleUpdate, compose
    from s3lora.errors import (
        AdapterFileError,
        NonFiniteError,
        NothingToAuditError,
        OutputError,
        S3LoRAError,
        SelectionError,
        UnsupportedAdapterError,
        UsageError,
    )
    from s3lora.provenance import Provenance, read_provenance, restore, write_pruned
    from s3lora.prune import Pruned, Settings, prune
    from s3lora.rules import Fraction, Gap, Null, Outlier, Threshold, Top
    from s3lora.scan import ModuleScan, Scan, scan
    from s3lora.select import Choice, Filter, Plan, Share, select
    from s3lora.series import ModuleSeries, Series, checkpoints, compare_series
    from s3lora.spectrum.subspaces import Overlap

#: Public name → the module that defines it.
_HOME = {
    "Adapter": "s3lora.adapter.model",
    "AdapterFileError": "s3lora.errors",
    "Alignment": "s3lora.compose",
    "Choice": "s3lora.select",
    "Comparison": "s3lora.compare",
    "Composition": "s3lora.compose",
    "Filter": "s3lora.select",
    "Fraction": "s3lora.rules",
    "Gap": "s3lora.rules",
    "LoraModule": "s3lora.adapter.model",
    "ModuleChange": "s3lora.compare",
    "ModuleComposition": "s3lora.compose",
    "ModuleScan": "s3lora.scan",
    "ModuleSeries": "s3lora.series",
    "ModuleUpdate": "s3lora.compose",
    "NonFiniteError": "s3lora.errors",
    "NothingToAuditError": "s3lora.errors",
    "Null": "s3lora.rules",
    "Outlier": "s3lora.rules",
    "OutputError": "s3lora.errors",
    "Overlap": "s3lora.spectrum.subspaces",
    "Plan": "s3lora.select",
    "Provenance": "s3lora.provenance",
    "Pruned": "s3lora.prune",
    "S3LoRAError": "s3lora.errors",
    "Scaling": "s3lora.adapter.model",
    "Scan": "s3lora.scan",
    "SelectionError": "s3lora.errors",
    "Series": "s3lora.series",
    "Settings": "s3lora.prune",
    "Share": "s3lora.select",
    "Threshold": "s3lora.rules",
    "Top": "s3lora.rules",
    "UnsupportedAdapterError": "s3lora.errors",
    "UsageError": "s3lora.errors",
    "checkpoints": "s3lora.series",
    "compare": "s3lora.compare",
    "compare_series": "s3lora.series",
    "compose": "s3lora.compose",
    "open_adapter": "s3lora.adapter.open",
    "prune": "s3lora.prune",
    "read_provenance": "s3lora.provenance",
    "restore": "s3lora.provenance",
    "scan": "s3lora.scan",
    "select": "s3lora.select",
    "write_pruned": "s3lora.provenance",
}

__all__ = [
    "Adapter",
    "AdapterFileError",
    "Alignment",
    "Choice",
    "Comparison",
    "Composition",
    "Filter",
    "Fraction",
    "Gap",
    "LoraModule",
    "ModuleChange",
    "ModuleComposition",
    "ModuleScan",
    "ModuleSeries",
    "ModuleUpdate",
    "NonFiniteError",
    "NothingToAuditError",
    "Null",
    "Outlier",
    "OutputError",
    "Overlap",
    "Plan",
    "Provenance",
    "Pruned",
    "S3LoRAError",
    "Scaling",
    "Scan",
    "SelectionError",
    "Series",
    "Settings",
    "Share",
    "Threshold",
    "Top",
    "UnsupportedAdapterError",
    "UsageError",
    "__version__",
    "checkpoints",
    "compare",
    "compare_series",
    "compose",
    "open_adapter",
    "prune",
    "read_provenance",
    "restore",
    "scan",
    "select",
    "write_pruned",
]


class _Package(types.ModuleType):
    """Imports a public name when it is first used.

    So the command line can say how many threads NumPy's BLAS may start before NumPy is imported. `scan`, `select`,
    `prune`, `compare` and `compose` are functions as well as the modules they live in: the name means the function.
    """

    def __getattr__(self, name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 's3lora' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOME[name]), name)
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOME and isinstance(value, types.ModuleType):
            return  # importing s3lora.scan must not hide the function
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOME})


sys.modules[__name__].__class__ = _Package
