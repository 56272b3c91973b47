"""The loss of reference texts: a smooth measure of usefulness that needs no generation."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from s3lora.evaluate.chat import ChatModel, Prompt, digest_of
from s3lora.evaluate.results import MeasureColumn
from s3lora.evaluate.store import AnswerStore

#: Raised where a loss that is kept changes its meaning.
VERSION = 1

Losses = Callable[..., Sequence[tuple[float, int]]]


def reference_losses(
    model: ChatModel,
    prompts: Sequence[Prompt],
    references: Sequence[str],
    store: AnswerStore | None,
    cut: Collection[int] = (),
) -> MeasureColumn | None:
    """Return the cross-entropy of each reference in nats a token, weighted by tokens: the weighted mean is per token.

    None for a model that cannot tell, such as a server. An item without tokens, or whose loss is not finite, is None
    and weighs nothing. `cut` has the places of references that do not end where their text does. The losses of a list
    are kept and computed all together, since rounding depends on what is computed beside what: so a loss does not
    depend on what was known before.
    """
    losses: Losses | None = getattr(model, "losses", None)
    if losses is None:
        return None
    pairs = enumerate(zip(prompts, references, strict=True))
    items = [[one.as_dicts(), text, *(["cut"] if place in cut else [])] for place, (one, text) in pairs]
    key = digest_of(["losses", VERSION, model.identity, items])
    known = store.get([key]).get(key) if store is not None else None
    if known is None:
        more = {"cut": cut} if cut else {}
        found = [[float(nats), int(tokens)] for nats, tokens in losses(prompts, references, **more)] if items else []
        # JSON has no infinity and no NaN.
        known = {"losses": [[nats if math.isfinite(nats) else None, tokens] for nats, tokens in found]}
        if store is not None:
            store.put({key: known})
    weighed = [(nats, tokens) if nats is not None and tokens else (None, 0) for nats, tokens in known["losses"]]
    values = tuple(None if nats is None else nats / tokens for nats, tokens in weighed)
    return MeasureColumn(values, tuple(float(tokens) for _, tokens in weighed))
