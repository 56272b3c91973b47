"""What SARIF says of the kinds of rules and of troubles. An id, once given, never changes its meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s3lora.compat.rules import LOADER_ID
from s3lora.gate.conditions import CONDITIONS, NO_VERDICT
from s3lora.gate.findings import INDEX_ID, PERCENTILE_ID, RANK_ID

#: Level → what GitHub calls it where security is no matter.
SEVERITIES = {"error": "error", "warning": "warning", "note": "recommendation"}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One kind of rule, or of trouble: its id, a name, a sentence, what it means, and what to do.

    `severity`, from 0 to 10, makes it a matter of security for GitHub, which shows it as low, medium, high or critical.
    """

    id: str
    name: str
    short: str
    full: str
    help: str
    level: str = "warning"
    severity: float | None = None

    def to_sarif(self) -> dict[str, Any]:
        """Return the `reportingDescriptor`; GitHub shows the Markdown of its help where it has some."""
        security = {"tags": ["security"], "security-severity": f"{self.severity:.1f}"} if self.severity else {}
        return {
            "id": self.id,
            "name": self.name,
            "shortDescription": {"text": self.short},
            "fullDescription": {"text": self.full},
            "help": {"text": self.help, "markdown": f"{self.full}\n\n**What to do.** {self.help}\n"},
            "defaultConfiguration": {"level": self.level},
            "properties": security or {"tags": ["quality"], "problem.severity": SEVERITIES[self.level]},
        }


#: What a check has as well.
LOADER_RULE = Descriptor(
    LOADER_ID,
    "LoaderVerdict",
    "A loader does not load the adapter as it was trained.",
    "The loader stops at the adapter, or goes on with another update than the one that was trained, or nobody has "
    "seen what it does.",
    "The message says why, and what mends it. The rules are those of the versions that were seen.",
    "error",
)
RULES = (
    Descriptor(
        INDEX_ID,
        "IndexMeetsLimit",
        "A module's spectral index meets a limit.",
        "The index of at least one module, such as its sharpness `ssi`, meets the comparison that a --fail-on rule "
        "makes. The update of a sharp module lies mostly in one direction.",
        f"{NO_VERDICT} To see where in the model these modules are, run `s3lora scan`; to see what changes without "
        "them, `s3lora prune` and, with the base model, `s3lora eval`.",
    ),
    *(
        Descriptor(one.id, one.title, one.short, one.full, one.help, one.level, one.severity)
        for one in CONDITIONS.values()
    ),
    Descriptor(
        RANK_ID,
        "RankMeetsLimit",
        "A module's rank meets a limit.",
        "The rank of at least one module, as its tensors have it, meets the comparison that a --fail-on rule makes.",
        "A server may hold adapters up to one rank only. Train with a smaller rank.",
    ),
    Descriptor(
        PERCENTILE_ID,
        "PercentileMeetsLimit",
        "Where a module's index stands in a reference population meets a limit.",
        "The share of the reference's modules of the same kind with a lower index meets the comparison that a "
        "--fail-on rule makes.",
        f"{NO_VERDICT} Of a hundred ordinary modules, one lies above the 99th percentile.",
    ),
    LOADER_RULE,
)
#: Where no rule was given: what was measured, which is no finding.
SUMMARY = Descriptor(
    "S3L000",
    "Summary",
    "What was measured.",
    "The sharpest modules of an adapter. It is written where no --fail-on rule was given, and it is no finding.",
    NO_VERDICT,
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
