"""diffusers 0.42.1: LoRA of picture models, in its own names, kohya's and PEFT's. Run on a tiny SD1 pipeline."""

from __future__ import annotations

from collections.abc import Iterator

from s3lora.adapter.loaders.base import Loader, as_trained
from s3lora.adapter.loaders.folder import LoaderView, Taken
from s3lora.adapter.loaders.problems import Problem, other_forms
from s3lora.adapter.model import Adapter

#: Formats that diffusers reads besides PEFT's.
PICTURES = ("diffusers", "kohya")
_NAME = "pytorch_lora_weights"
#: First names of the paths of parts of a picture model.
_PARTS = (
    "unet",
    "text_encoder",
    "text_encoder_2",
    "transformer",
    "lora_unet",
    "lora_te",
    "diffusion_model",
    "down_blocks",
)


def reads(view: LoaderView) -> bool:
    """Return whether the weights may be of a picture model: then PEFT keys have no configuration beside them."""
    plain = view.config is None and view.format == "peft"
    return plain or view.format in PICTURES or any(name.startswith(_NAME) for name in view.names)


def takes(view: LoaderView) -> Taken:
    """Follow `_best_guess_weight_name` of diffusers 0.35 and later: safetensors first, then `.bin`."""
    for suffix in (".safetensors", ".bin"):
        found = [
            name
            for name in view.ending(suffix)
            if not any(word in name for word in ("scheduler", "optimizer", "checkpoint"))
        ]
        named = [name for name in found if name.endswith(_NAME + suffix)]
        found = named or found
        if len(found) > 1:
            return (), f"refuses to choose among {len(found)} {suffix} files unless it is given a name"
        if found:
            return tuple(found), ""
    return (), "finds no .safetensors or .bin file"


def _problems(adapter: Adapter) -> Iterator[Problem]:
    if adapter.format not in (*PICTURES, "peft"):
        yield Problem(
            f"is stored as {adapter.format}, whose names it does not know", "convert it first", "unknown", mends=()
        )
    elif adapter.format == "peft" and not any(module.path.startswith(_PARTS) for module in adapter.modules):
        what = "names no part of a picture model, such as `unet.` or `transformer.`"
        yield Problem(what, "use a loader of language models", "unknown")
    yield from other_forms(adapter)
    if any(module.dora for module in adapter.modules):
        yield Problem("uses DoRA, which was not seen there", "load it once and look", "unknown")


LOADER = Loader(
    "diffusers",
    _problems,
    scaling=as_trained,
    reads_patterns="0",
    reads=reads,
    takes=takes,
    formats=("diffusers",),
    seen=("0.42.1",),
    how="run",
    missing=("other", "leaves them out, with a warning"),
    writes=False,
)
