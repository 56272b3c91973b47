"""Settings that have a name: a method, an index and a rule that were proposed, or measured, together."""

from __future__ import annotations

from dataclasses import dataclass

from s3lora.choose.ranking import Rule
from s3lora.choose.rules import Top


@dataclass(frozen=True, slots=True)
class Preset:
    """How modules are measured and chosen."""

    method: str
    index: str
    rule: Rule


#: `paper`: the setting of arXiv 2508.15068, the ten modules of the highest SSI by MAS-SVD, however many there are.
PRESETS = {"paper": Preset("mas-svd", "ssi", Top(10))}
