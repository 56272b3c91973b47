"""Which ranks would nearly do, in sentences: from the energy of the updates, and from that of random factors."""

from __future__ import annotations

from collections.abc import Sequence

from s3lora.measure.scan import ModuleScan


def smaller(modules: Sequence[ModuleScan]) -> list[str]:
    """Return which ranks would do, where these are less than there are and known of all that are not zero."""
    known = [(module.energy_rank, module) for module in modules if module.energy_rank is not None]
    if len(known) < sum(not module.zero for module in modules) or all(rank >= one.rank for rank, one in known):
        return []
    ranks = sorted(rank for rank, _ in known)
    least = f"rank {ranks[0]}" if ranks[0] == ranks[-1] else f"ranks {ranks[0]}-{ranks[-1]}"
    kept = sum(rank * sum(module.shape) for rank, module in known)
    share = kept / sum(module.rank * sum(module.shape) for _, module in known)
    held = "holds" if ranks[0] == ranks[-1] else "hold"
    line = f"{least} {held} 99% of each update in {share:.0%} of the size: resize --energy 99%"
    above = sorted(module.null_rank for _, module in known if module.null_rank is not None)
    if not above or not above[-1]:
        return [line]
    count = f"{above[0]}" if above[0] == above[-1] else f"{above[0]}-{above[-1]}"
    what = "direction of each stands" if count == "1" else "directions of each stand"
    return [line, f"{count} {what} above noise"]
