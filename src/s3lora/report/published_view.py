"""An adapter among published ones in sentences, as every report for people has them."""

from __future__ import annotations

from collections.abc import Iterator

from s3lora.errors import printable
from s3lora.measure.against_published import AgainstPublished, LeftOut, PublishedGroup, PublishedMark
from s3lora.report.values import count
from s3lora.spectrum.indices import INDICES

#: What stands behind every number here, and belongs beside it.
CAVEAT = (
    "Published adapters are files under 4 MiB from public code repositories, mostly of small models and tutorials. They"
    " are no sample of any hub, nobody knows which of them are harmful, and larger models look blunt beside them."
)
#: The same where a line must do.
SHORT = "They are small and public, mostly of tutorials: no sample of any hub, and nobody knows which are harmful."
_WHY: dict[LeftOut, str] = {
    "rank": "published adapters of rank 1, or above 16, are too few",
    "role": "the name does not tell what it does",
    "few": "too few published modules have its role and rank",
    "width": "it is far wider or narrower than published ones of its role and rank",
    "form": "it is no linear LoRA module",
}


def published_lines(against: AgainstPublished) -> Iterator[str]:
    """Yield sentences on where an adapter stands; on a missing training signal first, as the rest then says little."""
    signal = against.signal
    if signal is not None and not signal.found:
        yield (
            f"No training signal: by {INDICES[against.index].title} it is as blunt as random updates of its shapes and"
            f" ranks (median excess {signal.excess:+.3f}, {_modules(signal.modules)})."
        )
    if against.sharpest is not None:
        standing = against.standings[against.sharpest]
        group = against.groups[standing.group]
        yield (
            f"By {_index(against)}, {printable(against.sharpest, 200)} is sharper than"
            f" {band_of(standing.marks[against.index])} of published modules of its {_shared(group)}"
            f" ({group.adapters:,} adapters, {group.sources:,} sources, {_models(group)})."
        )
    if against.median is not None and len(against.standings) > 1:
        beyond = f"{against.beyond or 'none'} {'lies' if against.beyond < 2 else 'lie'}"
        yield (
            f"The median of {_modules(len(against.standings))} is sharper than {band_of(against.median)};"
            f" {beyond} above the 95th percentile; of published ones 1 in 20 does."
        )
    for reason, number in against.left_out.items():
        yield f"No comparison for {_modules(number)}: {_WHY[reason]}."


def _index(against: AgainstPublished) -> str:
    """Return the index of the comparison as sentences have it, with its formula where no table shows it."""
    title = INDICES[against.index].title
    return "energy (σ₁²/Σσ²)" if against.index == "energy" else title


def band_of(mark: PublishedMark) -> str:
    """Return the interval of a percentile in words; above the 95th there is nothing to tell.

    >>> band_of(PublishedMark(0.9, 89.0, 80.4, 94.6, False)), band_of(PublishedMark(0.9, 95.0, 94.9, 95.0, True))
    ('80–95%', '95%')
    """
    low, high = f"{mark.low:.0f}", f"{mark.high:.0f}"
    return f"{low}%" if low == high else f"{low}–{high}%"


def _shared(group: PublishedGroup) -> str:
    return "role and rank" if group.architecture is None else "role, rank and architecture"


def _models(group: PublishedGroup) -> str:
    return "small models" if group.architecture is None else group.architecture


def _modules(number: int) -> str:
    return f"{count(number)} module{'' if number == 1 else 's'}"
