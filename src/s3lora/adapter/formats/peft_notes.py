"""What a PEFT configuration says of an adapter that its numbers alone do not show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3lora.adapter.formats.patterns import layer_of
from s3lora.adapter.model import LoraModule
from s3lora.errors import printable

#: Initialisations that change the base weight when the adapter is loaded.
BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
#: Beginning of its name → what became of the part of the base weight that its factors began with; PEFT 0.21.2 was run,
#: but LoftQ, which it runs on a GPU alone.
_STARTS = {
    "pissa": "which is taken out of the base at load",
    "olora": "which is taken out of the base at load",
    "corda": "which the training took out of its base; PEFT stops at it without what `preprocess_corda` found",
    "lora_ga": "which the training took out of its base; PEFT takes nothing out at load, and it fits that base alone",
    "loftq": "which makes up for what its quantisation lost; it fits that quantised base alone",
}
#: Layers that a model may be put together of; the largest have 126.
MAX_LAYERS = 1000
#: Layers that many base models tie: the embeddings of what is read, and of what is written.
READ, WRITTEN = ("embed_tokens", "wte", "embed_in"), ("lm_head", "embed_out")


def changed_base(config: Mapping[str, Any] | None) -> str | None:
    """Return the initialisation whose factors hold a part of the base weights, None where there is none.

    >>> changed_base({"init_lora_weights": "pissa_niter_16"})
    'pissa_niter_16'
    """
    method = (config or {}).get("init_lora_weights")
    return method if isinstance(method, str) and method.lower().startswith(BASE_CHANGING) else None


def start_of(method: str) -> str:
    """Return which of `BASE_CHANGING` an initialisation is."""
    return next(name for name in BASE_CHANGING if method.lower().startswith(name))


def takes_out(method: str, module: LoraModule) -> bool:
    """Return whether an initialisation takes a part of the base weight of a module into its factors.

    PEFT 0.21.2 does so with a table of embeddings by LoftQ alone (`Embedding.update_layer`).
    """
    return module.kind != "embedding" or start_of(method) == "loftq"


def conversion_of(method: str) -> str:
    """Return what makes an ordinary LoRA of an adapter that was initialised so."""
    if start_of(method) == "loftq":
        return "keep it whole, on the quantised base of its training: PEFT has no conversion for it"
    return "save it with `path_initial_model_for_weight_conversion`, which makes an ordinary LoRA of it"


def _taken(method: str) -> str:
    drawn = "_niter_" in method
    return f"{_STARTS[start_of(method)]}{', by a draw that is another one each time' if drawn else ''}"


def replicates(config: Mapping[str, Any] | None) -> bool:
    """Return whether the layers of the base model are put together anew at load."""
    return bool((config or {}).get("layer_replication"))


def replicated_layers(config: Mapping[str, Any] | None) -> tuple[int, ...]:
    """Return the number that each layer has in the base, by its number in the model of `layer_replication`.

    It is empty where there is no `layer_replication`, or one that nobody can read.

    >>> replicated_layers({"layer_replication": [[0, 2], [1, 3]]})
    (0, 1, 1, 2)
    """
    ranges = (config or {}).get("layer_replication")
    if not isinstance(ranges, list) or len(ranges) > MAX_LAYERS:
        return ()
    layers: list[int] = []
    for one in ranges:
        whole = isinstance(one, list) and len(one) == 2 and all(type(end) is int and end >= 0 for end in one)
        if not whole or one[1] - one[0] + len(layers) > MAX_LAYERS:
            return ()
        layers += range(*one)
    return tuple(layers)


def tied_updates(config: Mapping[str, Any], modules: Sequence[LoraModule]) -> tuple[str, ...]:
    """Return the paths of embeddings and output layers whose updates PEFT ties, none where it does not."""
    if not config.get("ensure_weight_tying"):
        return ()
    read, written = ([one.path for one in modules if one.projection in names] for names in (READ, WRITTEN))
    return (*read, *written) if read and written else ()


def peft_notes(config: Mapping[str, Any], modules: Sequence[LoraModule]) -> Iterator[str]:
    """Yield what the user should know."""
    method = changed_base(config)
    if method is not None and any(takes_out(method, module) for module in modules):
        yield (
            f"initialised by {printable(method, 40)}: B·A holds a part of the base weight, {_taken(method)}, "
            "so the scores are not those of what was learned"
        )
    if replicates(config):
        yield "layer_replication: PEFT leaves out, repeats and orders the layers of the base model as it says"
    if config.get("alora_invocation_tokens"):
        yield "aLoRA: it acts only on what follows its invocation tokens"
    if any(layer_of(module.path) != module.path for module in modules):
        yield (
            "LoRA of nn.MultiheadAttention: PEFT 0.21.2 adds the update of its out_proj twice, in training as well; it "
            "counts once here"
        )
    names = {module.projection for module in modules}
    if tied_updates(config, modules):
        yield "ensure_weight_tying: the updates of embeddings and output layer are one in PEFT where the base ties them"
    elif names.intersection(READ) and names.intersection(WRITTEN):
        yield "embeddings and output layer both have an update: where the base model ties them, both act on one weight"
