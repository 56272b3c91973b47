"""The scaling as the header of a weights file tells it, where no configuration stands beside the file.

Diffusers writes PEFT's configuration of each model into `lora_adapter_metadata`, and scales by it. kohya writes
`ss_network_alpha`, and `conv_alpha` among `ss_network_args`, which no loader reads: a converter may have multiplied the
factors by it and left the header as it was. What has no alpha beside its tensors is scaled by 1 in both.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from s3lora.adapter.formats.base import StoredAdapter, positive
from s3lora.adapter.formats.parts import Scalings
from s3lora.adapter.formats.wrappers import PREFIX
from s3lora.adapter.model import LoraModule, Scaling
from s3lora.errors import AdapterFileError, printable

DIFFUSERS, KOHYA, KOHYA_ARGS = "lora_adapter_metadata", "ss_network_alpha", "ss_network_args"
#: How keys of picture models begin, as Diffusers writes them; `transformer.h` is GPT-2's.
_OF_PICTURES = re.compile(
    r"(?:unet|text_encoder(?:_\d)?|transformer(?:_\d)?|diffusion_model)\.(?!h\.|wte\b|wpe\b)|lora_[a-z]"
    r"|(?:down_blocks|mid_block|up_blocks|transformer_blocks|single_transformer_blocks|double_blocks|single_blocks)\."
)
_LABEL = "the header"


def with_header(modules: Iterable[LoraModule], source: StoredAdapter) -> tuple[tuple[LoraModule, ...], tuple[str, ...]]:
    """Return the modules with the scaling of the header where nothing else tells it, and what to say of it.

    What stands beside the tensors, or in the configuration, goes before the header; where they differ, that is said.
    Forms other than LoRA are left as they are: what their alpha is divided by is theirs to say.

    Raises AdapterFileError for a header that cannot be meant.
    """
    header = _Header(source)
    made: list[LoraModule] = []
    contradicted: list[tuple[LoraModule, Scaling]] = []
    for module in modules:
        told = header.of(module) if module.form == "LoRA" else None
        if module.scaling.origin == "unknown" and (applied := header.applied(module, told)) is not None:
            module = dataclasses.replace(module, scaling=applied)
        if told is not None and told.origin == "metadata" and abs(told.value / module.scaling.value - 1) > 1e-6:
            contradicted.append((module, told))
        made.append(module)
    if not contradicted:
        return tuple(made), ()
    first, told = contradicted[0]
    lacking = first.scaling.origin in ("default", "unknown")
    by = "the configuration" if source.config is not None else "the lack of alphas" if lacking else "the alpha tensors"
    return tuple(made), (
        f"{by} and {header.name} contradict each other about the scaling of {len(contradicted)} of {len(made)} modules "
        f"(first {printable(first.path, 120)}: {first.scaling.value:g} and {told.value:g}); the former decides",
    )


def diffusers_configs(metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return PEFT's configuration of each model that a file of Diffusers is for, by the first name of its keys.

    >>> diffusers_configs({"lora_adapter_metadata": '{"unet.r": 4, "unet.lora_alpha": 8}'})
    {'unet': {'r': 4, 'lora_alpha': 8}}

    Raises AdapterFileError where the metadata is no JSON object.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, value in _json(metadata, DIFFUSERS).items():
        model, _, field = key.partition(".")
        if field:
            found.setdefault(model, {})[field] = value
    return found


def _json(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    if key not in metadata:
        return {}
    try:
        read = msgspec.json.decode(metadata[key])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise AdapterFileError(f"`{key}` in its header is no JSON object", file=_LABEL)
    return read


class _Header:
    """What the header of one file says of scalings."""

    def __init__(self, source: StoredAdapter) -> None:
        metadata = source.metadata
        self._models = {
            model: Scalings(config, f"`{DIFFUSERS}`") for model, config in diffusers_configs(metadata).items()
        }
        self.name = f"`{DIFFUSERS}` in the header" if self._models else f"`{KOHYA}` in the header"
        self._alpha = _number(metadata, KOHYA)
        self._conv_alpha = _number(_texts(metadata), "conv_alpha") if KOHYA_ARGS in metadata else None
        self._bare = source.config is None

    def of(self, module: LoraModule) -> Scaling | None:
        """Return the scaling of a module as the header has it, None where it says nothing."""
        model, _, path = module.path.partition(".")
        if model in self._models:
            return dataclasses.replace(self._models[model].of(path, module.rank), origin="metadata")
        alpha = self._alpha
        if module.kind == "conv" and self._conv_alpha is not None and _wide(module):
            alpha = self._conv_alpha
        return None if alpha is None else Scaling(alpha / module.rank, "metadata")

    def applied(self, module: LoraModule, told: Scaling | None) -> Scaling | None:
        """Return what loaders scale a module by that has no alpha beside it, None where they have no default."""
        if module.form != "LoRA" or (told is not None and module.path.partition(".")[0] in self._models):
            return told
        # Diffusers and kohya's scripts scale by 1 what has no alpha.
        of_peft = module.A.parts[0].tensor.name.startswith(PREFIX)
        known = self._bare and not of_peft and _OF_PICTURES.match(module.path)
        return Scaling(1.0, "default") if known else None


def _wide(module: LoraModule) -> bool:
    """Return whether a convolution looks at more than one place: kohya gives those an alpha of their own."""
    return any(size > 1 for size in module.A.parts[0].tensor.shape[2:])


def _texts(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in _json(metadata, KOHYA_ARGS).items() if isinstance(value, str)}


def _number(metadata: Mapping[str, str], key: str) -> float | None:
    """Return a number that kohya writes as text; "None" is none."""
    text = metadata.get(key)
    if text is None or text == "None" or len(text) > 40:
        return None
    try:
        value = float(text)
    except ValueError:
        raise AdapterFileError(f"`{key}` is {printable(text, 40)}, not a positive number", file=_LABEL) from None
    return positive({key: value}, key, _LABEL) if value else None
