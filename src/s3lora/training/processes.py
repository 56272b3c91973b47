"""Several processes that train one model: what the first one decided, the others do."""

from __future__ import annotations

from s3lora.needs import need


def agreed(decision: bool) -> bool:
    """Return what the first process decided; every process has to ask at the same step.

    Without it, those that go on would wait for ever for those that stop.
    """
    distributed = need("torch.distributed")
    if not (distributed.is_available() and distributed.is_initialized()):
        return decision
    told = [decision]
    distributed.broadcast_object_list(told, src=0)
    return bool(told[0])
