"""vLLM: builds modules from the keys of the file, so that none is missed. Read in its sources."""

from __future__ import annotations

from collections.abc import Iterator

from s3lora.adapter.model import Adapter
from s3lora.rewrite.loaders.base import MERGE, Loader, Problem, dora, not_peft, other_tensors, trained_bias

#: What its `--max-lora-rank` may be, and is by default.
MAX_RANKS, DEFAULT_RANK = (1, 8, 16, 32, 64, 128, 256, 320, 512), 16


def _problems(adapter: Adapter) -> Iterator[Problem]:
    yield from not_peft(adapter)
    yield from dora(adapter)
    yield from trained_bias(adapter)
    yield from other_tensors(adapter)
    if (rank := max((module.rank for module in adapter.modules), default=0)) > MAX_RANKS[-1]:
        yield f"has modules of rank {rank}, and it takes {MAX_RANKS[-1]} at most", MERGE


def _rank_note(before: int, after: int) -> str | None:
    """Return what its `--max-lora-rank` must be where the one that was enough no longer is; its default is 16."""
    enough, needed = (next((rank for rank in MAX_RANKS if rank >= given), given) for given in (before, after))
    if needed <= max(enough, DEFAULT_RANK):
        return None
    return f"vLLM needs --max-lora-rank {needed} for rank {after}"


LOADER = Loader("vllm", _problems, rank_note=_rank_note)
