"""s3lora: audit a LoRA adapter from its file alone, and prune its sharpest modules.

>>> import s3lora
>>> scan = s3lora.scan("my-adapter")
>>> plan = s3lora.select(scan, s3lora.Top(10))
>>> pruned = s3lora.prune("my-adapter", plan)
>>> record, written = s3lora.write_pruned(pruned, scan, "my-adapter-pruned")
"""

# Python's own modules are not imported here: `python -m s3lora` would take them from the working directory.
import importlib

from s3lora._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from s3lora.adapter.checkpoints import checkpoints
    from s3lora.adapter.inventory.model import Inventory, InventoryFile, InventoryTensor, LoaderChoice, Unapplied
    from s3lora.adapter.model import Adapter, LoraModule, Scaling
    from s3lora.adapter.open import open_adapter
    from s3lora.base.model import BaseModel, BaseModule
    from s3lora.base.names import ModuleRenaming
    from s3lora.base.read import read_base
    from s3lora.choose.rules import Fraction, Gap, Null, Outlier, Threshold, Top
    from s3lora.choose.select import Choice, Filter, Plan, Share, select
    from s3lora.compat.checking import check
    from s3lora.compat.results import BaseFacts, Check, CheckFinding, LoaderReason, LoaderVerdict, ModuleCheck
    from s3lora.errors import (
        AdapterFileError,
        CostError,
        ModelError,
        NonFiniteError,
        NoSuchModuleError,
        NothingToAuditError,
        OutputError,
        S3LoRAError,
        SelectionError,
        UnsupportedAdapterError,
        UsageError,
    )
    from s3lora.measure.against_base import AgainstBase, ModuleAgainstBase, WeightDelta
    from s3lora.measure.against_published import (
        AgainstPublished,
        PublishedGroup,
        PublishedMark,
        PublishedStanding,
        TrainingSignal,
    )
    from s3lora.measure.comparison import Comparison, ModuleComparison, compare
    from s3lora.measure.composition import Composition, compose
    from s3lora.measure.delta import scan_delta
    from s3lora.measure.others import TensorComparison
    from s3lora.measure.published import among_published
    from s3lora.measure.scan import ModuleScan, Scan, scan
    from s3lora.measure.series import TrainingSeries, read_series
    from s3lora.measure.summing import Alignment, ModuleComposition, ModuleUpdate
    from s3lora.needs import MissingPackageError
    from s3lora.repair.build_data import repair_data
    from s3lora.repair.data import RepairData
    from s3lora.repair.repairing import repair
    from s3lora.repair.results import Repair, RepairLimits
    from s3lora.rewrite.conversion_record import ConversionRecord
    from s3lora.rewrite.convert.converting import Converted, convert, write_converted
    from s3lora.rewrite.modes import Clip, Mode, Remove, Scale, Zero
    from s3lora.rewrite.provenance import Provenance, read_provenance
    from s3lora.rewrite.prune import Pruned, prune, write_pruned
    from s3lora.rewrite.resize import resize
    from s3lora.rewrite.resize_record import ResizedModule, ResizeProvenance
    from s3lora.rewrite.restore import restore
    from s3lora.rewrite.sum_record import SummedModule, SumProvenance
    from s3lora.rewrite.summed import write_sum
    from s3lora.spectrum.subspaces import Overlap
    from s3lora.views import Drawing

#: Public name → the module that defines it.
_HOME = {
    "Adapter": "s3lora.adapter.model",
    "AdapterFileError": "s3lora.errors",
    "AgainstBase": "s3lora.measure.against_base",
    "AgainstPublished": "s3lora.measure.against_published",
    "Alignment": "s3lora.measure.summing",
    "BaseFacts": "s3lora.compat.results",
    "BaseModel": "s3lora.base.model",
    "BaseModule": "s3lora.base.model",
    "Check": "s3lora.compat.results",
    "CheckFinding": "s3lora.compat.results",
    "Choice": "s3lora.choose.select",
    "Clip": "s3lora.rewrite.modes",
    "Comparison": "s3lora.measure.comparison",
    "Composition": "s3lora.measure.composition",
    "ConversionRecord": "s3lora.rewrite.conversion_record",
    "Converted": "s3lora.rewrite.convert.converting",
    "CostError": "s3lora.errors",
    "Drawing": "s3lora.views",
    "Filter": "s3lora.choose.select",
    "Fraction": "s3lora.choose.rules",
    "Gap": "s3lora.choose.rules",
    "Inventory": "s3lora.adapter.inventory.model",
    "InventoryFile": "s3lora.adapter.inventory.model",
    "InventoryTensor": "s3lora.adapter.inventory.model",
    "LoaderChoice": "s3lora.adapter.inventory.model",
    "LoaderReason": "s3lora.compat.results",
    "LoaderVerdict": "s3lora.compat.results",
    "LoraModule": "s3lora.adapter.model",
    "Mode": "s3lora.rewrite.modes",
    "ModelError": "s3lora.errors",
    "ModuleAgainstBase": "s3lora.measure.against_base",
    "ModuleCheck": "s3lora.compat.results",
    "ModuleComparison": "s3lora.measure.comparison",
    "ModuleComposition": "s3lora.measure.summing",
    "ModuleRenaming": "s3lora.base.names",
    "ModuleScan": "s3lora.measure.scan",
    "ModuleUpdate": "s3lora.measure.summing",
    "MissingPackageError": "s3lora.needs",
    "NoSuchModuleError": "s3lora.errors",
    "NonFiniteError": "s3lora.errors",
    "NothingToAuditError": "s3lora.errors",
    "Null": "s3lora.choose.rules",
    "Outlier": "s3lora.choose.rules",
    "OutputError": "s3lora.errors",
    "Overlap": "s3lora.spectrum.subspaces",
    "Plan": "s3lora.choose.select",
    "Provenance": "s3lora.rewrite.provenance",
    "Pruned": "s3lora.rewrite.prune",
    "PublishedGroup": "s3lora.measure.against_published",
    "PublishedMark": "s3lora.measure.against_published",
    "PublishedStanding": "s3lora.measure.against_published",
    "Remove": "s3lora.rewrite.modes",
    "Repair": "s3lora.repair.results",
    "RepairData": "s3lora.repair.data",
    "RepairLimits": "s3lora.repair.results",
    "ResizeProvenance": "s3lora.rewrite.resize_record",
    "ResizedModule": "s3lora.rewrite.resize_record",
    "S3LoRAError": "s3lora.errors",
    "Scale": "s3lora.rewrite.modes",
    "Scaling": "s3lora.adapter.model",
    "Scan": "s3lora.measure.scan",
    "SelectionError": "s3lora.errors",
    "Share": "s3lora.choose.select",
    "SumProvenance": "s3lora.rewrite.sum_record",
    "SummedModule": "s3lora.rewrite.sum_record",
    "TensorComparison": "s3lora.measure.others",
    "Threshold": "s3lora.choose.rules",
    "Top": "s3lora.choose.rules",
    "TrainingSeries": "s3lora.measure.series",
    "TrainingSignal": "s3lora.measure.against_published",
    "Unapplied": "s3lora.adapter.inventory.model",
    "UnsupportedAdapterError": "s3lora.errors",
    "UsageError": "s3lora.errors",
    "WeightDelta": "s3lora.measure.against_base",
    "Zero": "s3lora.rewrite.modes",
    "among_published": "s3lora.measure.published",
    "check": "s3lora.compat.checking",
    "checkpoints": "s3lora.adapter.checkpoints",
    "compare": "s3lora.measure.comparison",
    "compose": "s3lora.measure.composition",
    "convert": "s3lora.rewrite.convert.converting",
    "open_adapter": "s3lora.adapter.open",
    "prune": "s3lora.rewrite.prune",
    "read_base": "s3lora.base.read",
    "read_provenance": "s3lora.rewrite.provenance",
    "read_series": "s3lora.measure.series",
    "repair_data": "s3lora.repair.build_data",
    "resize": "s3lora.rewrite.resize",
    "restore": "s3lora.rewrite.restore",
    "scan": "s3lora.measure.scan",
    "scan_delta": "s3lora.measure.delta",
    "select": "s3lora.choose.select",
    "write_converted": "s3lora.rewrite.convert.converting",
    "write_pruned": "s3lora.rewrite.prune",
    "write_sum": "s3lora.rewrite.summed",
}

__all__ = [
    "Adapter",
    "AdapterFileError",
    "AgainstBase",
    "AgainstPublished",
    "Alignment",
    "BaseFacts",
    "BaseModel",
    "BaseModule",
    "Check",
    "CheckFinding",
    "Choice",
    "Clip",
    "Comparison",
    "Composition",
    "ConversionRecord",
    "Converted",
    "CostError",
    "Drawing",
    "Filter",
    "Fraction",
    "Gap",
    "Inventory",
    "InventoryFile",
    "InventoryTensor",
    "LoaderChoice",
    "LoaderReason",
    "LoaderVerdict",
    "LoraModule",
    "MissingPackageError",
    "Mode",
    "ModelError",
    "ModuleAgainstBase",
    "ModuleCheck",
    "ModuleComparison",
    "ModuleComposition",
    "ModuleRenaming",
    "ModuleScan",
    "ModuleUpdate",
    "NoSuchModuleError",
    "NonFiniteError",
    "NothingToAuditError",
    "Null",
    "Outlier",
    "OutputError",
    "Overlap",
    "Plan",
    "Provenance",
    "Pruned",
    "PublishedGroup",
    "PublishedMark",
    "PublishedStanding",
    "Remove",
    "Repair",
    "RepairData",
    "RepairLimits",
    "ResizeProvenance",
    "ResizedModule",
    "S3LoRAError",
    "Scale",
    "Scaling",
    "Scan",
    "SelectionError",
    "Share",
    "SumProvenance",
    "SummedModule",
    "TensorComparison",
    "Threshold",
    "Top",
    "TrainingSeries",
    "TrainingSignal",
    "Unapplied",
    "UnsupportedAdapterError",
    "UsageError",
    "WeightDelta",
    "Zero",
    "__version__",
    "among_published",
    "check",
    "checkpoints",
    "compare",
    "compose",
    "convert",
    "open_adapter",
    "prune",
    "read_base",
    "read_provenance",
    "read_series",
    "repair",
    "repair_data",
    "resize",
    "restore",
    "scan",
    "scan_delta",
    "select",
    "write_converted",
    "write_pruned",
    "write_sum",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used.

    So the command line can say how many threads NumPy's BLAS may start before NumPy is imported.
    """
    if name == "repair":  # a package that can be called
        return importlib.import_module("s3lora.repair")
    if name not in _HOME:
        raise AttributeError(f"module 's3lora' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
