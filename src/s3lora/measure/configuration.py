"""What determines the numbers of a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from s3lora.errors import UsageError
from s3lora.spectrum.methods import METHODS


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that determined the numbers: method, M (`rank`, None for all), fit, sample, seed, kurtosis."""

    method: str = "mas-svd"
    rank: int | None = None
    fit: Literal["l2", "l1"] = "l2"
    sample: int | None = None
    seed: int = 0
    kurtosis: bool = False


def configured(
    method: str, rank: int | None, fit: Literal["l2", "l1"], sample: int | None, seed: int, kurtosis: bool
) -> Configuration:
    """Return the configuration of a scan; raise UsageError if it cannot be meant."""
    if method not in METHODS:
        raise UsageError(f"no method {method!r}", fix=f"choose one of {', '.join(METHODS)}")
    if fit not in ("l2", "l1"):
        raise UsageError(f"no fit {fit!r}", fix="choose l2 or l1")
    for name, value, least in (("rank", rank, 1), ("sample", sample, 2), ("seed", seed, 0)):
        if value is not None and value < least:
            raise UsageError(f"{name} must be {least} or more, not {value}")
    return Configuration(method, rank, fit, sample, seed, kurtosis)
