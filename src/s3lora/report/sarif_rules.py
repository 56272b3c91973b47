"""What SARIF says of the kinds of rules and of troubles. An id, once given, never changes its meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s3lora.gate.findings import COUNTS, INDEX_ID

_NO_VERDICT = (
    "A rule compares a number with a limit that you chose. There is no limit that separates good from bad: the values "
    "depend on rank, data and training, and adapters trained on harmless data have sharp modules too. Compare an "
    "adapter with others of its recipe."
)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One kind of rule, or of trouble: its id, a name, a sentence, what it means, and what to do."""

    id: str
    name: str
    short: str
    full: str
    help: str
    level: str = "warning"

    def to_sarif(self) -> dict[str, Any]:
        """Return the `reportingDescriptor`."""
        return {
            "id": self.id,
            "name": self.name,
            "shortDescription": {"text": self.short},
            "fullDescription": {"text": self.full},
            "help": {"text": self.help},
            "defaultConfiguration": {"level": self.level},
        }


RULES = (
    Descriptor(
        INDEX_ID,
        "IndexMeetsLimit",
        "A module's spectral index meets a limit.",
        "The index of at least one module, such as its sharpness `ssi`, meets the comparison that a --fail-on rule "
        "makes. The update of a sharp module lies mostly in one direction.",
        f"{_NO_VERDICT} To see where in the model these modules are, run `s3lora scan`; to see what changes without "
        "them, `s3lora prune` and, with the base model, `s3lora eval`.",
    ),
    Descriptor(
        COUNTS["selected"],
        "ModulesSelected",
        "The number of modules that a selection rule chooses meets a limit.",
        "The selection rule of the scan (--top, --fraction, --threshold or --rule) chooses so many modules of the "
        "adapter that a --fail-on rule holds.",
        f"{_NO_VERDICT} `s3lora prune` with the same options writes the adapter without the modules that are chosen.",
    ),
    Descriptor(
        COUNTS["outliers"],
        "OutlierModules",
        "The number of modules that are outliers of their projection meets a limit.",
        "So many modules have an index whose robust z-score within their projection exceeds --z that a --fail-on rule "
        "holds.",
        f"{_NO_VERDICT} An outlier differs from modules of the same kind in the same adapter; compare checkpoints with "
        "`s3lora compare` to see when it came.",
    ),
    Descriptor(
        COUNTS["nonfinite"],
        "NonFiniteModules",
        "Modules hold NaN or infinity.",
        "The factors or the scaling of at least one module are not finite, so that its update has no spectrum and no "
        "index, and a model with this adapter computes NaN.",
        "The training diverged, or the file is damaged. Fetch the file again or go back to an earlier checkpoint.",
        "error",
    ),
    Descriptor(
        COUNTS["zero_updates"],
        "ZeroUpdates",
        "The number of modules whose update is zero meets a limit.",
        "So many modules change nothing, because B = 0 or B·A cancels, that a --fail-on rule holds. They were never "
        "trained, or were pruned by zeroing.",
        "Look whether the training reached these modules: a wrong list of target modules, or frozen factors, leave B "
        "at zero. An adapter that was pruned with --mode zero has such modules on purpose.",
    ),
)
#: Where no rule was given: what was measured, which is no finding.
SUMMARY = Descriptor(
    "S3L000",
    "Summary",
    "What was measured.",
    "The sharpest modules of an adapter. It is written where no --fail-on rule was given, and it is no finding.",
    _NO_VERDICT,
    "note",
)
NOT_SCANNED = Descriptor(
    "S3L900",
    "NotScanned",
    "An adapter could not be scanned.",
    "A file is missing, damaged, hostile or of a kind that s3lora does not analyse; no rule was held against it.",
    "The message says why, and what to do.",
    "error",
)
NOTHING_TO_AUDIT = Descriptor(
    "S3L901",
    "NothingToAudit",
    "There was nothing to audit.",
    "No weights, no LoRA module, or none that the filters let pass; no rule was held against it.",
    "Check the path, and the options --projection, --layers and --only.",
    "warning",
)
INCOMPLETE = Descriptor(
    "S3L902",
    "IncompleteScan",
    "Some modules have no index.",
    "The method is undefined for the shape of some modules, or they hold NaN or infinity that no rule asked about; the "
    "rules were held against the others only.",
    "Use another method, or add the rule `nonfinite`.",
    "error",
)
TROUBLES = (NOT_SCANNED, NOTHING_TO_AUDIT, INCOMPLETE)
