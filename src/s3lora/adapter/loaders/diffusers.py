"""diffusers 0.42.1: LoRA of picture models, in its own names, kohya's and PEFT's. Run on SD1, SDXL and Flux."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from s3lora.adapter.formats.header import diffusers_configs
from s3lora.adapter.loaders.base import Loader, as_trained, text_encoders
from s3lora.adapter.loaders.folder import LoaderView, Taken
from s3lora.adapter.loaders.problems import Problem, other_forms, some
from s3lora.adapter.model import Adapter
from s3lora.errors import AdapterFileError

#: Formats that diffusers reads besides PEFT's.
PICTURES = ("diffusers", "kohya")
#: The release that was run.
SEEN = "0.42.1"
#: How paths begin in a U-Net, and in the text encoder of transformers 4 within a pipeline.
_BLOCKS = ("down_blocks.", "mid_block.", "up_blocks.")
_WITHIN = "text_encoder.text_model."
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
    yield from _unnamed(adapter)
    yield from _of_text(adapter)
    yield from other_forms(adapter)
    if any(module.dora for module in adapter.modules):
        yield Problem("uses DoRA, which was not seen there", "load it once and look", "unknown")


def _unnamed(adapter: Adapter) -> Iterator[Problem]:
    """Yield the modules of a U-Net whose keys do not say so."""
    bare = [module.path for module in adapter.modules if module.path.startswith(_BLOCKS)]
    if bare and adapter.format != "kohya":
        what = f"has keys that begin with no part of a pipeline ({some(bare)}), and it goes on without them"
        yield Problem(what, "put `unet.` before the keys", "other", tuple(bare))


def _of_text(adapter: Adapter) -> Iterator[Problem]:
    """Yield what keeps it from loading updates of text encoders."""
    told = [str(one) for file in adapter.files for one in _targets(file.metadata)]
    within = [module.path for module in adapter.modules if module.path.startswith(_WITHIN)]
    if within and any(target.startswith("text_model.") for target in told):
        what = (
            f"names {some(within)} and the like in its header, with `text_model.`, which the text encoder of "
            "transformers 5 has not, and it stops"
        )
        yield Problem(what, "leave `lora_adapter_metadata` out, or `text_model.`", modules=tuple(within), since=SEEN)
    for encoder, kinds in text_encoders(adapter).items():
        lost = sorted(kinds["q"] | kinds["k"] | kinds["v"])
        if lost and not kinds["out"]:
            others = any(one.path.startswith(f"{encoder}_") and one.path not in lost for one in adapter.modules)
            does = "goes on without them" if others else "stops"
            what = f"has no `out_proj` in a text encoder, by which it knows kohya's names, and it {does}: {some(lost)}"
            yield Problem(what, "add an `out_proj` of zeros, which changes nothing", "other" if others else "fails",
                          tuple(lost))  # fmt: skip


def _targets(metadata: Mapping[str, str]) -> Iterator[object]:
    """Yield what the header says of the modules of the first text encoder."""
    try:
        targets = diffusers_configs(metadata).get("text_encoder", {}).get("target_modules")
    except AdapterFileError:  # told where it is read
        return
    yield from targets if isinstance(targets, list) else ()


LOADER = Loader(
    "diffusers",
    _problems,
    scaling=as_trained,
    reads=reads,
    takes=takes,
    formats=("diffusers",),
    seen=(SEEN,),
    how="run",
    missing=("other", "leaves them out, with a warning"),
    writes=False,
)
