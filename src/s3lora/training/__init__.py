"""In training: watching what becomes of every module and of refusals, and terms of the loss that hold on to them.

>>> from s3lora.training import S3LoRACallback, refusal_anchor, spectral_penalty

Nothing here needs torch or transformers before it is used. See docs/training.md.
"""

# Names are imported when they are used, as those of `s3lora` are.
import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from s3lora.training.adding import add_to_loss
    from s3lora.training.anchor import RefusalAnchor, refusal_anchor
    from s3lora.training.callback import S3LoRACallback
    from s3lora.training.penalty import spectral_penalty, spectral_values

#: Public name → the module that defines it.
_HOME = {
    "RefusalAnchor": "s3lora.training.anchor",
    "add_to_loss": "s3lora.training.adding",
    "refusal_anchor": "s3lora.training.anchor",
    "spectral_penalty": "s3lora.training.penalty",
    "spectral_values": "s3lora.training.penalty",
}

__all__ = [
    "RefusalAnchor",
    "S3LoRACallback",
    "add_to_loss",
    "refusal_anchor",
    "spectral_penalty",
    "spectral_values",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used; the callback becomes one of transformers' only then."""
    value: object
    if name == "S3LoRACallback":
        value = importlib.import_module("s3lora.training.callback").of_transformers()
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 's3lora.training' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
