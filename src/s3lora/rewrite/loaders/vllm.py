"""vLLM: builds modules from the keys of the file, so that none is missed. Read in its sources."""

from __future__ import annotations

from collections.abc import Iterator

from s3lora.adapter.model import Adapter
from s3lora.rewrite.loaders.base import Loader, Problem, dora, not_peft, other_tensors, trained_bias


def _problems(adapter: Adapter) -> Iterator[Problem]:
    yield from not_peft(adapter)
    yield from dora(adapter)
    yield from trained_bias(adapter)
    yield from other_tensors(adapter)


LOADER = Loader("vllm", _problems)
