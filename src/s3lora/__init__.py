"""s3lora: audit a LoRA adapter from its file alone, and prune its sharpest modules.

>>> import s3lora
>>> adapter = s3lora.open_adapter("my-adapter")              # doctest: +SKIP
>>> scan = s3lora.scan(adapter)                              # doctest: +SKIP
>>> plan = s3lora.select(scan, s3lora.Top(10))               # doctest: +SKIP
>>> pruned = s3lora.prune(adapter, plan)                     # doctest: +SKIP
>>> s3lora.write_pruned(pruned, scan, "my-adapter-pruned")   # doctest: +SKIP
"""

from s3lora._version import __version__
from s3lora.adapter.model import Adapter, LoraModule, Scaling
from s3lora.adapter.open import open_adapter
from s3lora.compare import Comparison, ModuleChange, compare
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

__all__ = [
    "Adapter",
    "AdapterFileError",
    "Choice",
    "Comparison",
    "Filter",
    "Fraction",
    "Gap",
    "LoraModule",
    "ModuleChange",
    "ModuleScan",
    "NonFiniteError",
    "NothingToAuditError",
    "Null",
    "Outlier",
    "OutputError",
    "Plan",
    "Provenance",
    "Pruned",
    "S3LoRAError",
    "Scaling",
    "Scan",
    "SelectionError",
    "Settings",
    "Share",
    "Threshold",
    "Top",
    "UnsupportedAdapterError",
    "UsageError",
    "__version__",
    "compare",
    "open_adapter",
    "prune",
    "read_provenance",
    "restore",
    "scan",
    "select",
    "write_pruned",
]
