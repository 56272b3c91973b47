"""A base model that is named, and loaded only when all that can be checked without it has been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3lora.adapter.model import Adapter
from s3lora.evaluate.bench import Advance
from s3lora.evaluate.chat_setup import NO_SETUP, ChatSetup
from s3lora.evaluate.local import LocalModel

#: What the progress says meanwhile.
LOADING = "loading the model"


@dataclass(frozen=True)
class BaseToLoad:
    """A base model by its name, to be loaded when it is known that the adapters fit.

    Parameters:
        base: a model folder, a `.gguf` file, a Hub name, `demo`, or `demo-aligned`.
        device: as for `LocalModel`.
        dtype: as for `LocalModel`.
        batch_size: as for `LocalModel`.
        chat: as for `LocalModel`.

    >>> BaseToLoad("demo", dtype="bfloat16").base
    'demo'
    """

    base: str
    device: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    chat: ChatSetup = NO_SETUP

    def load(self, adapters: Sequence[Adapter] = ()) -> LocalModel:
        """Load it; raises as `LocalModel` does, for adapters that do not fit before the weights are read."""
        own = {name: getattr(self, name) for name in ("device", "dtype", "batch_size", "chat")}
        return LocalModel(self.base, **own, adapters=adapters)


def loaded(
    base: str | BaseToLoad | LocalModel, adapters: Sequence[Adapter], advance: Advance | None = None
) -> LocalModel:
    """Return the model, loaded now unless it is already; `advance` is told of it before."""
    if isinstance(base, LocalModel):
        return base
    if advance is not None:
        advance(0.0, LOADING)
    return (BaseToLoad(base) if isinstance(base, str) else base).load(adapters)
